"""From the posterior of a mixed-effects model to attributes in the data's units."""

import numpy as np

from skvi.distributions import InverseGamma, Product, Rescaled


class MixedAttributes:
    """The fitted attributes, a pure function of the posterior.

    Parameters
    ----------
    model : MixedModel
    frame : Frame
    units : Units
    slopes : dict of str to array
        Scales of each factor's slope columns, by name of factor.
    weight : float
        Of all rows.
    extra : dict
        Attributes that the posterior has no say in.
    classes : bool
        Whether the model is one of classes.
    """

    def __init__(self, model, frame, units, slopes, weight, extra, classes):
        self.model = model
        self.frame = frame
        self.units = units
        self.extra = extra
        self.classes = classes
        self.log_units = -weight * np.log(units.scale) if units.location else 0.0
        self.effect_scale = {
            name: units.scale / np.append(1.0, scale) for name, scale in slopes.items()
        }

    def attributes(self, fit, law):
        """The attributes of a fit whose covariances are those of ``law``."""
        q, frame, units = fit.posterior, self.frame, self.units
        mean, parts = law.mean, q.parts
        scale = units.scale / frame.scale
        coef = mean[parts["coef"]] * scale
        level = mean[parts["level"]] if frame.level else 0.0
        common = law.common_covariance()
        row = np.append(-frame.offset / frame.scale, np.ones(int(frame.level)))
        intercept = units.shift + units.scale * level - coef @ frame.offset
        variance = row @ common @ row if frame.level else 0.0
        outward = self._outward(q)
        volume = outward.entropy() - q.entropy()
        terms = dict(fit.elbo_terms)
        terms["log_likelihood"] += float(self.log_units)
        terms["log_prior"] -= volume
        terms["entropy"] += volume
        out = {
            "coef_": self._outputs(coef),
            "coef_std_": self._outputs(np.sqrt(np.diag(common))[: len(coef)] * scale),
            "intercept_": self._outputs(float(intercept)),
            "intercept_std_": self._outputs(
                float(units.scale * np.sqrt(max(variance, 0.0)))
            ),
            "covariances_": self._covariances(q),
            "posterior_": outward,
            "elbo_": float(sum(terms.values())),
            "elbo_terms_": terms,
            "elbo_path_": np.array(fit.path) + self.log_units,
            "n_iter_": fit.n_iter,
            "converged_": fit.converged,
            "X_offset_": frame.offset,
            "X_scale_": frame.scale,
            **self.extra,
            "_fitted_q": q.without_sites(),
            "_fitted_law": law,
            "_fitted_model": self.model,
            "_fitted_frame": frame,
            "_fitted_units": units,
            "_fitted_effect_scale": self.effect_scale,
        }
        if q.noise is not None:
            noise = outward["noise_variance"]
            out["noise_variance_"] = float(noise.mean)
        return out

    def _outputs(self, value):
        """As scikit-learn has it: with an axis of outputs for classes."""
        return np.asarray(value)[None] if self.classes else value

    def _covariances(self, q):
        return {
            name: law.mean * np.multiply.outer(*[self.effect_scale[name]] * 2)
            for name, law in q.components.items()
        }

    def _outward(self, q):
        units, frame = self.units, self.frame
        scale, shift = {"coef": units.scale / frame.scale}, {}
        if frame.level:
            scale["level"], shift["level"] = units.scale, units.shift
        for name in q.components:
            shape = q.parts[f"effects_{name}"].shape
            each = np.broadcast_to(self.effect_scale[name], shape)
            scale[f"effects_{name}"] = each
        factors = {"effects": Rescaled(q.factors["effects"], scale, shift)}
        for name, law in q.components.items():
            factors[f"covariance_{name}"] = law.rescaled(self.effect_scale[name])
        if q.noise is not None:
            # One number rather than a matrix of one.
            rate = 0.5 * q.noise.scale[0, 0] * units.scale**2
            factors["noise_variance"] = InverseGamma(0.5 * q.noise.dof, rate)
        return Product(factors)
