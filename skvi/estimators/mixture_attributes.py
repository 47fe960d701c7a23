"""From a mixture's posterior in standard units to fitted attributes in the data's."""

import numpy as np


class MixtureAttributes:
    """The fitted attributes: a pure function of the posterior.

    So a callback can have them at any iteration, and a failure can rebuild them.
    """

    def __init__(self, model, frame, totals, priors, kind):
        self.model = model
        self.frame = frame
        self.totals = totals
        self.priors = priors
        self.covariance_type = kind[0]
        self.kind = kind
        self.log_units = -float(totals.observed @ np.log(frame.unit))

    def attributes(self, fit):
        """The attributes of a fit."""
        q, frame = fit.posterior, self.frame
        spherical = self.covariance_type == "spherical"
        unit = frame.unit[0] if spherical else frame.unit
        outward = q.rescaled(unit, frame.centre)
        terms = self._terms(fit, q, outward)
        components = outward.components
        weights = q.weights
        concentration = (
            (weights.a.copy(), weights.b.copy())
            if hasattr(weights, "a")
            else weights.concentration.copy()
        )
        return {
            "weights_": weights.mean,
            "means_": components.location.copy(),
            **self._covariances(components),
            "weight_concentration_": concentration,
            "mean_precision_": _by_component(components.mean_precision),
            "posterior_": outward,
            "elbo_": float(sum(terms.values())),
            "elbo_terms_": terms,
            "elbo_path_": np.array(fit.path) + self.log_units,
            "n_iter_": fit.n_iter,
            "converged_": fit.converged,
            **self.priors.attributes(frame, self.covariance_type),
            "_fitted_kind": self.kind,
            "_fitted_model": self.model,
            "_fitted_frame": frame,
            "_fitted_totals": self.totals,
            "_fitted_q": q,
            "_fitted_statistics": fit.statistics,
        }

    def _covariances(self, components):
        if self.covariance_type in ("full", "tied"):
            wishart = components.wishart
            # precisions_ = B B' with B upper triangular, as scikit-learn has it.
            root = np.sqrt(wishart.dof)[..., None, None]
            return {
                "covariances_": wishart.inverse_scale / wishart.dof[..., None, None],
                "precisions_": wishart.mean,
                "precisions_cholesky_": root
                * np.swapaxes(wishart.inverse_factor, -1, -2),
                "degrees_of_freedom_": wishart.dof.copy(),
            }
        noise = components.noise
        return {
            "covariances_": noise.rate / noise.shape,
            "precisions_": noise.mean,
            "precisions_cholesky_": np.sqrt(noise.mean),
            "degrees_of_freedom_": 2.0 * noise.shape,
        }

    def _terms(self, fit, q, outward):
        """The bound's terms in the data's units: densities change, the sum by data."""
        terms = dict(fit.elbo_terms)
        volume = outward.components.entropy() - q.components.entropy()
        model = self.model
        # Latent entries are measured in the data's units, too.
        missing = self.totals.weight - self.totals.observed
        latent = (
            float(missing @ np.log(self.frame.unit))
            if model.geometry.has_latent
            else 0.0
        )
        terms["log_likelihood"] += self.log_units - latent
        terms["log_prior"] -= volume
        terms["entropy"] += volume + latent
        return terms


def _by_component(mean_precision):
    """One number a component where its coordinates share it."""
    if mean_precision.ndim == 2 and np.all(mean_precision == mean_precision[:, :1]):
        return mean_precision[:, 0].copy()
    return mean_precision.copy()
