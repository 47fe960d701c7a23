"""From a posterior in standard units to fitted attributes in the data's units."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from skvi.distributions import PointMass, Rescaled
from skvi.linalg import DenseRows
from skvi.models.glm import linear_response


class GLMAttributes:
    """The fitted attributes of a generalised linear model.

    They are a pure function of its posterior, so that callbacks can have them at any
    iteration.

    Parameters
    ----------
    model : GLMModel
    frame : Frame
    units : Units
    weight : float
        Of all rows.
    extra : dict
        Attributes that the posterior has no say in.
    blocks : list of Block, optional
        All rows, for linear response.
    """

    def __init__(self, model, frame, units, weight, extra, blocks=None):
        self.model = model
        self.blocks = blocks
        self.frame = frame
        self.units = units
        self.extra = extra
        location = units.location
        self.log_units = -weight * np.log(units.scale) if location else 0.0
        # A response that has no units keeps its dispersion.
        self.dispersion_unit = units.scale**2 if location else 1.0

    def attributes(self, fit, response=False):
        """The attributes of a fit; covariances corrected by linear response if asked.

        ``n_features_in_`` and the like are the estimator's own business.
        """
        q, frame, units = fit.posterior, self.frame, self.units
        gaussian, parts = q.gaussian, q.parts
        law = self._response(q, fit) if response else gaussian.precision
        scale = units.scale / frame.scale
        sd = np.sqrt(law.variances())
        coef = gaussian.mean[parts["coef"]] * scale
        level = gaussian.mean[parts["level"]] if frame.level else 0.0
        outward = self._outward(q)
        out = {
            "coef_": coef,
            "coef_std_": sd[parts["coef"]] * scale,
            "intercept_": self._intercept(coef, level),
            "intercept_std_": self._intercept_std(law, coef),
            "weight_precision_": _number(q.weight_precision.mean),
            "weight_precision_prior_": _pair(self.model.weight_prior),
            "posterior_": outward,
            "elbo_terms_": self._terms(fit, outward),
            "elbo_path_": np.array(fit.path) + self.log_units,
            "n_iter_": fit.n_iter,
            "converged_": fit.converged,
            "X_offset_": frame.offset,
            "X_scale_": frame.scale,
            **self.extra,
            "_fitted_q": q.without_sites(),
            "_fitted_law": law,
            "_fitted_statistics": fit.statistics,
            "_fitted_model": self.model,
            "_fitted_frame": frame,
            "_fitted_units": units,
        }
        out["elbo_"] = float(sum(out["elbo_terms_"].values()))
        if q.dispersion is not None:
            unit, prior = self.dispersion_unit, self.model.dispersion_prior
            out["dispersion_"] = float(q.dispersion.mean * unit)
            out["dispersion_prior_"] = (
                None
                if isinstance(prior, PointMass)
                else (prior.shape, prior.rate * unit)
            )
        return out

    def _response(self, q, fit):
        try:
            return linear_response(self.model, q, fit.statistics.values, self.blocks)
        except ValueError as error:  # a fit that took long is not thrown away
            warnings.warn(
                f"{error} The covariances of this fit are the variational ones.",
                ConvergenceWarning,
                stacklevel=2,
            )
            return q.gaussian.precision

    def _intercept(self, coef, level):
        units, frame = self.units, self.frame
        if not frame.level:
            return _number(np.zeros(coef.shape[:-1]) + units.shift)
        return _number(units.shift + units.scale * level - coef @ frame.offset)

    def _intercept_std(self, law, coef):
        if not self.frame.level:
            return _number(np.zeros(coef.shape[:-1]))
        row = np.append(-self.frame.offset / self.frame.scale, 1.0)
        K = self.model.n_outputs
        variance = law.of_predictors(DenseRows(row[None, :]), K)
        if K > 1:
            variance = np.einsum("nkk->nk", variance)
        return _number(self.units.scale * np.sqrt(variance.reshape(coef.shape[:-1])))

    def _outward(self, q):
        units, shape = self.units, q.parts["coef"].shape
        scale = {"coef": np.broadcast_to(units.scale / self.frame.scale, shape)}
        shift = {}
        if self.frame.level:
            scale["level"] = np.full(q.parts["level"].shape, units.scale)
            shift["level"] = units.shift
        if q.dispersion is not None:
            scale["dispersion"] = self.dispersion_unit
        return Rescaled(q.without_sites(), scale, shift)

    def _terms(self, fit, outward):
        """The bound's terms in the data's units: densities change, the sum by data."""
        terms = dict(fit.elbo_terms)
        terms["log_likelihood"] += float(self.log_units)
        terms["log_prior"] -= outward.log_volume
        terms["entropy"] += outward.log_volume
        return terms


def _number(value):
    return float(value) if np.ndim(value) == 0 else value


def _pair(prior):
    if isinstance(prior, PointMass):
        return None
    return float(np.ravel(prior.shape)[0]), float(np.ravel(prior.rate)[0])
