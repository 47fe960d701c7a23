"""From posteriors in standard units to fitted attributes in the data's units."""

import numpy as np

from skvi.distributions import PointMass, Rescaled

COLLAPSED_SD = 0.05  # noise sd, in sds of y, below which a fit interpolates


class LinearAttributes:
    """The fitted attributes of a linear model: a pure function of its posteriors.

    So a callback can have them at any iteration, and a failure can rebuild them.
    """

    def __init__(self, design, single, models, values):
        self.design = design
        self.single = single
        self.models = models
        self.values = values
        self.log_units = -design.weight * np.log(design.y_scale)

    def attributes(self, fits, linear_response=False):
        """The attributes of fits, one a target."""
        design, models = self.design, self.models
        posteriors = [fit.posterior for fit in fits]
        laws = [
            q.coef_law(model, values, linear_response)
            for q, model, values in zip(posteriors, models, self.values)
        ]
        scale = np.multiply.outer(design.y_scale, 1.0 / design.x_scale)
        coef = np.array([q.coef_mean for q in posteriors]) * scale
        expected = [q.expect() for q in posteriors]
        noise = np.array([float(q.noise_variance) for q in posteriors])
        by_target = {
            "coef_": coef,
            "coef_std_": np.sqrt([law.variances() for law in laws]) * scale,
            "intercept_": design.y_mean - coef @ design.x_mean,
            "noise_variance_": noise * design.y_scale**2,
            "noise_precision_": np.array([e["tau"] for e in expected])
            / design.y_scale**2,
            "weight_precision_": np.array([e["lambda"] for e in expected]),
            "noise_collapse_probability_": np.array(
                [float(q.noise_sf(COLLAPSED_SD**-2)) for q in posteriors]
            ),
            "y_offset_": design.y_mean,
            "y_scale_": design.y_scale,
        }
        if self.single:
            by_target = {k: _scalar(v[0]) for k, v in by_target.items()}
        outward = [self._outward(q, t) for t, q in enumerate(posteriors)]
        terms = [
            self._terms(fit, q, t) for t, (fit, q) in enumerate(zip(fits, outward))
        ]
        total = {name: sum(term[name] for term in terms) for name in terms[0]}
        longest = max(len(fit.path) for fit in fits)
        paths = [np.pad(fit.path, (0, longest - len(fit.path)), "edge") for fit in fits]
        return {
            **by_target,
            "X_offset_": design.x_mean,
            "X_scale_": design.x_scale,
            "posterior_": outward[0] if self.single else tuple(outward),
            "elbo_": float(sum(total.values())),
            "elbo_terms_": total,
            "elbo_path_": np.sum(paths, axis=0) + self.log_units.sum(),
            "n_iter_": max(fit.n_iter for fit in fits),
            "converged_": all(fit.converged for fit in fits),
            "noise_precision_prior_": self._noise_prior(),
            "weight_precision_prior_": _prior_tuple(models[0].weight_prior),
            "_fitted_posteriors": posteriors,
            "_fitted_laws": laws,
        }

    def _outward(self, q, t):
        design, s = self.design, self.design.y_scale[t]
        scale = {"coef": s / design.x_scale, "level": s, "noise_precision": s**-2}
        scale = {name: value for name, value in scale.items() if name in q.names}
        return Rescaled(q, scale, {"level": design.y_mean[t]})

    def _terms(self, fit, outward, t):
        """The bound's terms in the data's units: densities change, the sum by data."""
        terms = dict(fit.elbo_terms)
        terms["log_likelihood"] += float(self.log_units[t])
        terms["log_prior"] -= outward.log_volume
        terms["entropy"] += outward.log_volume
        return terms

    def _noise_prior(self):
        priors = [_prior_tuple(model.noise_prior) for model in self.models]
        if priors[0] is None:
            return None
        rates = [rate * s**2 for (_, rate), s in zip(priors, self.design.y_scale)]
        return priors[0][0], rates[0] if self.single else np.array(rates)


def _scalar(value):
    return float(value) if np.ndim(value) == 0 else value


def _prior_tuple(prior):
    if isinstance(prior, PointMass):
        return None
    return float(np.ravel(prior.shape)[0]), float(np.ravel(prior.rate)[0])
