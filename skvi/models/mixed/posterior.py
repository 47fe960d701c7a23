"""The posterior of a mixed-effects model."""

from functools import cached_property

import numpy as np

from skvi.distributions import NamedGaussian, Product


class MixedPosterior(Product):
    """q(weights, level, effects) prod_f q(covariance_f) q(noise variance).

    Parameters
    ----------
    gaussian : Gaussian
        Of weights, level and all effects.
    parts : dict
        Where in that vector "coef", "level" and "effects_<name>" are.
    components : dict of str to InverseWishart
        By name of factor.
    noise : InverseWishart or None
        Of the noise variance, a 1 x 1 matrix.
    sites : dict or None
        What the likelihood has put into the Gaussian, and the prior's precisions in it:
        where a damped step starts from.
    """

    def __init__(self, gaussian, parts, components, noise=None, sites=None):
        factors = {"effects": NamedGaussian(gaussian, parts)}
        for name, law in components.items():
            factors[f"covariance_{name}"] = law
        if noise is not None:
            factors["noise_variance"] = noise
        super().__init__(factors)
        self.gaussian = gaussian
        self.parts = parts
        self.components = components
        self.noise = noise
        self.sites = sites

    @cached_property
    def block_sums(self):
        """Sums over levels of the covariances of their effects, by factor."""
        return block_sums(self.gaussian.precision, len(self.components))

    def without_sites(self):
        """The same, to keep: sites are as large as the precision."""
        return MixedPosterior(self.gaussian, self.parts, self.components, self.noise)


def parts_of(layout, names, level):
    """Positions of "coef", "level" and each factor's effects."""
    p = layout.width - level
    parts = {"coef": np.arange(p)}
    if level:
        parts["level"] = np.array(p)
    for f, name in enumerate(names):
        parts[f"effects_{name}"] = layout.positions(f)
    return parts


def block_sums(precision, n_factors):
    """Sums over levels of the covariances of their effects, by factor."""
    return [precision.blocks(f).sum(axis=0) for f in range(n_factors)]
