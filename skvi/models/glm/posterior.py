"""The posterior of a generalised linear model."""

import numpy as np

from skvi.distributions import NamedGaussian, Product


class GLMPosterior(Product):
    """q(weights, level) q(lambda) q(dispersion).

    Parameters
    ----------
    gaussian : Gaussian
        Of the weights and the level, one output after the other.
    parts : dict
        Where in that vector "coef" and "level" are.
    weight_precision : Gamma or PointMass
    dispersion : LogNormal, PointMass or None
    sites, ridge : dict and array, or None
        What likelihood and prior have put into the Gaussian: where a step starts from.
    """

    def __init__(
        self, gaussian, parts, weight_precision, dispersion, sites=None, ridge=None
    ):
        factors = {"coefficients": NamedGaussian(gaussian, parts)}
        factors["weight_precision"] = weight_precision
        if dispersion is not None:
            factors["dispersion"] = dispersion
        super().__init__(factors)
        self.gaussian = gaussian
        self.parts = parts
        self.weight_precision = weight_precision
        self.dispersion = dispersion
        self.sites = sites
        self.ridge = ridge

    @property
    def dispersion_law(self):
        """(mean, variance) of the log dispersion, or None."""
        if self.dispersion is None:
            return None
        e = self.dispersion.expect()
        return e["log"], max(e.get("log_square", e["log"] ** 2) - e["log"] ** 2, 0.0)

    def without_sites(self):
        """The same, to keep: sites are as large as the precision."""
        return GLMPosterior(
            self.gaussian, self.parts, self.weight_precision, self.dispersion
        )


def parts_of(n_outputs, n_features, level, scalar):
    """Positions of "coef" and "level"; of shapes without an output axis if scalar."""
    width = n_features + level
    at = np.arange(n_outputs * width).reshape(n_outputs, width)
    if scalar:
        at = at[0]
    parts = {"coef": at[..., :n_features]}
    if level:
        parts["level"] = at[..., n_features]
    return parts
