"""What the estimators with a linear predictor share: fitting, streams, weights."""

import warnings
from numbers import Real

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from skvi._sklearn import Interval, StrOptions, check_sample_weight
from skvi.columns import numeric_column, validate_columns
from skvi.distributions import Gamma, LocationScaleMixture, PointMass
from skvi.estimators.base import VariationalEstimator
from skvi.estimators.glm_attributes import GLMAttributes
from skvi.estimators.linear_summary import LinearSummaryMixin
from skvi.estimators.priors import gamma_pair, positive_precisions
from skvi.inference.blocks import blas_threads
from skvi.inference.drivers import StochasticState
from skvi.inference.engine import Fit
from skvi.linalg import DenseRows, restricted, scaled_covariance
from skvi.models.glm import (
    FAMILIES,
    Block,
    ColumnSites,
    ColumnTotals,
    GLMModel,
    RowSites,
    run,
)
from skvi.models.glm.posterior import parts_of
from skvi.models.glm.search import better, restart, start
from skvi.models.glm.stream import WithPast, moved
from skvi.models.glm.units import in_other_units

# Posterior sds left: passes over few rows are cheap, so be exact.
DISTANCE_TOL, CHEAP = 1e-7, 1 << 26  # products of two entries in a pass
DISTANCE_TOL_OF_MANY = 1e-4
STREAM_ITER = 10  # iterations of partial_fit on a block
INTERCEPT_PRECISION = 0.04  # a prior sd of five: of log odds, log rates, sds of y
WEIGHT_SHAPE = 1.0  # of the prior of lambda, whose rate is the shape over ...
SIGNALS = {"ridge": np.inf, "ard": 20.0}  # ... p, and this many columns over p, too


PARAMETERS = {
    "prior": [StrOptions({"ridge", "ard"})],
    "weight_precision": [None, Real, "array-like"],
    "weight_precision_prior": [None, tuple, list],
    "intercept_precision": [None, Interval(Real, 0.0, None, closed="neither")],
    "fit_intercept": ["boolean"],
    "posterior_covariance": [StrOptions({"variational", "linear_response"})],
    "learning_decay": [Interval(Real, 0.5, 1.0, closed="right")],
    "learning_offset": [Interval(Real, 1.0, None, closed="left")],
}


class Rows:
    """Validated rows: the features, and what the linear predictor has besides."""

    def __init__(self, features, offset, kept):
        self.features = features
        self.offset = offset
        self.kept = kept
        self.shape = features.shape

    def slices(self, width=1):
        """Slices of rows about which no more than this many numbers each are held."""
        width = max(width, self.shape[1])
        step = int(np.clip((1 << 23) // width, 16, 8192))
        for i in range(0, self.shape[0], step):
            yield slice(i, min(i + step, self.shape[0]))


class GeneralizedLinearModel(LinearSummaryMixin, VariationalEstimator):
    """Base of the classifier and the regressor.

    A subclass resolves its likelihood, the prior of the dispersion and the running
    totals of its response, and turns y into numbers.
    """

    _roles = ()
    _parts_are_scalar = True  # whether coef has no axis of outputs
    _intercept_mean = None

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # -- rows --------------------------------------------------------------------------

    def _validate(self, X, y="no_validation", reset=False, **params):
        split, y = validate_columns(
            self,
            X,
            y,
            roles=self._roles,
            reset=reset,
            accept_sparse=("csr", "csc"),
            dtype=[np.float64, np.float32],
            **params,
        )
        features = split.features
        if sparse.issparse(features):
            features = sparse.csr_array(features)
        offset = np.zeros(features.shape[0])
        if split.values.get("offset") is not None:
            offset += numeric_column(split.values["offset"], "offset")
        if split.values.get("exposure") is not None:
            exposure = numeric_column(
                split.values["exposure"], "exposure", positive=True
            )
            offset += np.log(exposure)
        return Rows(features, offset, split.kept), y

    def _weights(self, sample_weight, rows):
        n = rows.shape[0]
        if sample_weight is None:
            return np.ones(n)
        return check_sample_weight(
            sample_weight, rows.features, dtype=np.float64, ensure_non_negative=True
        )

    @staticmethod
    def _counted(rows, y, weight):
        """Without rows of weight zero."""
        counted = weight > 0.0
        X = rows.features
        if counted.all():
            return X, y, weight, rows.offset
        if not counted.any():
            raise ValueError(
                "sample_weight (with class_weight) is zero for all samples: give some "
                "a positive one."
            )
        return X[counted], y[counted], weight[counted], rows.offset[counted]

    # -- fitting -----------------------------------------------------------------------

    def _fit_rows(self, rows, y, weight, task):
        X, y, weight, offset = self._counted(rows, y, weight)
        totals = self._totals(X, y, weight, offset)
        wide = X.shape[0] <= X.shape[1]
        frame, units, model = self._set_up(totals, wide_rows=X if wide else None)
        y, offset = units.inward(y, offset)
        if wide:
            blocks = [Block(X, y, weight, offset, frame, rows=model.space.rows)]
        else:
            blocks = Block.parts(X, y, weight, offset, frame)
        of_fit = GLMAttributes(
            model, frame, units, weight.sum(), self._extra(totals, units), blocks
        )

        def on_iteration(fit):
            self._report(len(fit.path) - 1, fit.elbo + of_fit.log_units)
            with task.subtask("iteration") as iteration:
                iteration.attributes = lambda: of_fit.attributes(fit)
            return iteration.stop

        with blas_threads(min(*X.shape) * model.n_outputs):
            level = model.likelihood.centre(y, weight, offset)
            data = X, y, weight, offset, frame
            q = start(model, data, blocks, level, self.n_jobs)
            before = self._to_go_on_from(model, frame)
            if before is not None:
                q = restart(model, blocks, q, units, before, self.n_jobs)
            settings = self.max_iter, self.tol, _distance_tol(X), X.dtype
            fit = run(
                model,
                blocks,
                q,
                settings,
                self.n_jobs,
                on_iteration,
                fallback=lambda: model.start(blocks, level, self.n_jobs),
            )
            self._adopt(of_fit, fit, None)
        if not (fit.converged or fit.stopped):
            warnings.warn(
                f"The fit did not converge in max_iter={self.max_iter} iterations. "
                f"Raise max_iter or tol (now {self.tol}), or call fit again with "
                "warm_start=True to go on from here. Where the data leave weights "
                "undetermined (separated classes, collinear columns) a larger "
                "weight_precision ends sooner.",
                ConvergenceWarning,
                stacklevel=5,  # the caller of fit, past its decorators
            )

    def _partial_fit_rows(self, rows, y, weight, task):
        X, y, weight, offset = self._counted(rows, y, weight)
        totals, first = self._totals(X, y, weight, offset), self._is_first()
        n_new = float(weight.sum())
        n_before = 0.0 if first else self._fitted_weight
        if not first:
            totals = tuple(a + b for a, b in zip(self._fitted_totals, totals))
        frame, units, model = self._set_up(totals)
        model.positive = True
        y, offset = units.inward(y, offset)
        block = Block(X, y, weight, offset, frame)
        of_fit = GLMAttributes(
            model, frame, units, n_before + n_new, self._extra(totals, units)
        )
        with blas_threads(X.shape[1] * model.n_outputs):
            level = model.likelihood.centre(y, weight, offset)
            settings = self.max_iter, self.tol, _distance_tol(X), X.dtype
            scale = (n_before + n_new) / n_new
            if first:
                q = run(model, [block], model.start([block], level), settings).posterior
                state = StochasticState(self.learning_decay, self.learning_offset)
            else:
                state = self._stream((frame, units))
                grown = (n_before + n_new) / n_before
                state.statistics = state.statistics.scaled(grown)
                q = self._step(model, state, block, scale, units, level, settings)
            state.absorb(model.statistics(q, block), scale)
            terms = model.elbo_terms(state.statistics, q)
            path = [sum(terms.values())]
            fit = Fit(q, state.statistics, terms, path, state.n_steps)
            self._adopt(of_fit, fit, state)

    def _step(self, model, state, block, scale, units, level, settings):
        """The posterior after one block more: a short climb beside the past."""
        before = self._fitted_q
        law = in_other_units(before.dispersion_law, self._fitted_units, units)
        past = WithPast(model, state.statistics, state.rho, scale)
        lam = model.first_weight_precision(before.weight_precision)
        q = past.cold(block, level, law)
        try:
            warm = model.posterior(model.sites(state.statistics.values, law), lam)
            q = better(past, [block], warm, q)
        except np.linalg.LinAlgError:
            pass  # the past has no posterior in these units: the cold one it is
        _, *rest = settings
        return run(past, [block], q, (STREAM_ITER, *rest)).posterior

    def _check_stream(self):
        """Whether the posterior so far is one of this estimator's parameters."""
        if self._is_first():
            return
        kind = self._fitted_kind
        if kind != self._kind():
            raise ValueError(
                f"{kind} of the posterior so far differ from {self._kind()} now: call "
                "fit to start anew, or set them back."
            )

    def _kind(self):
        """Parameters that a stream must keep."""
        names = "family", "link", "fit_intercept", "offset", "exposure", "dof"
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def _is_first(self):
        return not hasattr(self, "_fitted_q")

    def _totals(self, X, y, weight, offset):
        return ColumnTotals.of(X, weight), self._response_totals(y, weight, offset)

    def _set_up(self, totals, wide_rows=None):
        """(frame, units, model) of running totals."""
        columns, response = totals
        frame = columns.frame(self.fit_intercept)
        units = response.units(self._intercept_mean, self.fit_intercept)
        likelihood, p = self._likelihood(columns.weight), len(frame.scale)
        K = likelihood.n_outputs
        space = ColumnSites(K)
        if wide_rows is not None:
            space = RowSites(K, frame.rows(wide_rows))
        model = GLMModel(
            likelihood,
            self._weight_prior(p),
            self._level_precision() if self.fit_intercept else None,
            self._dispersion_prior(units),
            FAMILIES[self.posterior],
            space,
            parts_of(K, p, self.fit_intercept, self._parts_are_scalar),
        )
        return frame, units, model

    def _weight_prior(self, p):
        if self.weight_precision is not None:
            if self.weight_precision_prior is not None:
                raise ValueError(
                    f"weight_precision_prior={self.weight_precision_prior!r} means "
                    "nothing with weight_precision, which is then known: leave one of "
                    "them None."
                )
            return PointMass(positive_precisions(self.weight_precision, p))
        default = WEIGHT_SHAPE, WEIGHT_SHAPE / p * min(1.0, SIGNALS[self.prior] / p)
        shape, rate = gamma_pair(
            self.weight_precision_prior, default, "weight_precision_prior"
        )
        return Gamma(shape, np.full(p, rate) if self.prior == "ard" else rate)

    def _level_precision(self):
        value = self.intercept_precision
        return INTERCEPT_PRECISION if value is None else float(value)

    def _extra(self, totals, units):
        return {
            "y_offset_": units.shift if units.location else 0.0,
            "y_scale_": units.scale,
            "intercept_mean_": units.shift,
            "intercept_precision_": self._level_precision() / units.scale**2,
            "_fitted_totals": totals,
            "_fitted_kind": self._kind(),
            "_fitted_weight": totals[0].weight,
        }

    def _adopt(self, of_fit, fit, stream):
        response = self.posterior_covariance == "linear_response"
        self.__dict__.update(of_fit.attributes(fit, response), _fitted_stream=stream)

    def _to_go_on_from(self, model, frame):
        """The last fit's posterior and its units, where it is one of this model."""
        if not self.warm_start or self._is_first():
            return None
        before = self._fitted_model
        same = (
            before.n_features == model.n_features
            and before.n_outputs == model.n_outputs
            and type(before.likelihood) is type(model.likelihood)
            and self._fitted_frame.level == frame.level
        )
        if not same:
            return None
        return self._fitted_q, self._fitted_frame, self._fitted_units

    def _stream(self, after):
        """The stochastic state so far, in new units: that of a whole fit is a step."""
        state, model = self._fitted_stream, self._fitted_model
        if state is None:
            state = StochasticState()
            values = model.space.by_column(self._fitted_statistics.values)
            state.statistics = self._fitted_statistics.with_values(values)
            state.n_steps = 1
        state = state.copy()
        state.decay, state.offset = self.learning_decay, self.learning_offset
        before = self._fitted_frame, self._fitted_units
        state.statistics = moved(
            state.statistics, model.n_outputs, self._fitted_weight, before, after
        )
        return state

    # -- what is read off a fit --------------------------------------------------------

    @property
    def coef_covariance_(self):
        """Posterior covariance of the weights, in the order of ``coef_.ravel()``."""
        check_is_fitted(self)
        at = np.ravel(self._fitted_q.parts["coef"])
        scale = np.broadcast_to(
            self._fitted_units.scale / self.X_scale_, self.coef_.shape
        )
        covariance = restricted(self._fitted_law.covariance(), at)
        return scaled_covariance(covariance, scale.ravel())

    def _draw(self, n, rng):
        draws = self.posterior_.sample(n, rng)
        shift = draws["coef"] @ self.X_offset_
        level = draws.get("level", self._fitted_units.shift + np.zeros_like(shift))
        draws["intercept"] = level - shift
        return draws

    def _predictors(self, rows, width=1):
        """Yield (slice, means, (co)variances) of the linear predictor, in its units."""
        model, units, K = (
            self._fitted_model,
            self._fitted_units,
            self._fitted_model.n_outputs,
        )
        for some in rows.slices(width):
            block = self._fitted_frame.rows(rows.features[some])
            mean, variance = model.predictors(
                self._fitted_q.gaussian, block, self._fitted_law
            )
            offset = units.shift + rows.offset[some]
            mean = (offset if K == 1 else offset[:, None]) + units.scale * mean
            yield some, mean, units.scale**2 * variance

    def _laws(self, rows, level=1.0, noise=False):
        """Gaussian laws of ``level * b + rows @ w`` by output, in the data's units."""
        model, units = self._fitted_model, self._fitted_units
        level = np.broadcast_to(level, len(rows))
        shift = level * units.shift
        if self._fitted_frame.level:
            rows = np.column_stack([rows, level])
        mean, variance = model.predictors(
            self._fitted_q.gaussian, DenseRows(rows), self._fitted_law
        )
        if model.n_outputs == 1:
            mean, variance = mean[:, None], variance[:, None, None]
        one = np.ones(1), np.array([np.inf])
        return [
            LocationScaleMixture(
                *one,
                (shift + units.scale * mean[:, k])[:, None],
                units.scale * np.sqrt(np.maximum(variance[:, k, k], 0.0))[:, None],
            )
            for k in range(model.n_outputs)
        ]

    def _summary_notes(self):
        notes = {"elbo": self.elbo_}
        if hasattr(self, "dispersion_"):
            notes["dispersion"] = self.dispersion_
        return notes


def _distance_tol(X):
    n, p = X.shape
    return DISTANCE_TOL if n * p * min(n, p) <= CHEAP else DISTANCE_TOL_OF_MANY
