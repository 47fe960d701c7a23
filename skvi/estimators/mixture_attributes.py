"""From a mixture's posterior in standard units to fitted attributes in the data's."""

import numpy as np

from skvi.estimators.gaussian_components import component_attributes


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
            **component_attributes(components, self.covariance_type),
            "weight_concentration_": concentration,
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
