"""What the estimators of mixed-effects models share: groups, fitting, predictors."""

import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning

from skvi._sklearn import Interval, StrOptions, check_sample_weight
from skvi.columns import numeric_column, validate_columns
from skvi.estimators.base import VariationalEstimator
from skvi.estimators.grouping import (
    Factors,
    columns_of,
    entries_of,
    factor_names,
    factor_values,
    grouped_rows,
    levels_of,
    slopes_of,
)
from skvi.estimators.mixed_attributes import MixedAttributes
from skvi.estimators.mixed_summary import MixedSummaryMixin
from skvi.estimators.priors import positive_precisions
from skvi.estimators.variance_priors import (
    EFFECTS_DEFAULT,
    NOISE_DEFAULT,
    variance_prior,
)
from skvi.inference.blocks import blas_threads
from skvi.linalg import ArrowLayout
from skvi.models.glm import ColumnTotals
from skvi.models.glm.data import Frame
from skvi.models.mixed import (
    FAMILIES,
    Block,
    EffectsLaw,
    GaussianRows,
    ScalePrior,
    SitedRows,
    linear_response,
    parts_of,
    run,
)

# Posterior sds left: iterations that form no large matrix are cheap, so be exact.
DISTANCE_TOL, CHEAP, MANY = 1e-7, 500, 100_000
DISTANCE_TOL_OF_MANY = 1e-4
WEIGHT_PRECISION = 0.16  # a prior sd of 2.5 for a column's sd: log odds, rates, y's sd
INTERCEPT_PRECISION = 0.04  # a prior sd of five
FAR = 5.0  # sds that the mean of a slope column may be from zero
SLICE = 8192  # rows that are predicted together

PARAMETERS = {
    **{
        name: constraint
        for name, constraint in VariationalEstimator._parameter_constraints.items()
        if name != "n_jobs"
    },
    "groups": [None, str, Integral, tuple, list],
    "random_slopes": [None, str, Integral, tuple, list, dict],
    "offset": [None, str, Integral],
    "sd_prior": [None, tuple, list, dict],
    "correlation_concentration": [Interval(Real, 0.0, None, closed="neither")],
    "weight_precision": [None, Real, "array-like"],
    "intercept_precision": [None, Interval(Real, 0.0, None, closed="neither")],
    "fit_intercept": ["boolean"],
    "posterior_covariance": [StrOptions({"variational", "linear_response"})],
}


class Rows:
    """Validated rows.

    Attributes
    ----------
    features : array of shape (n, p)
    groups : list of arrays of shape (n,)
        Ids, by factor.
    offset : array of shape (n,)
    trials : array of shape (n,) or None
    kept : positions of the features
    """

    def __init__(self, features, groups, offset, trials, kept):
        self.features = features
        self.groups = groups
        self.offset = offset
        self.trials = trials
        self.kept = kept
        self.shape = features.shape
        self.include_random = True

    def __getitem__(self, some):
        trials = None if self.trials is None else self.trials[some]
        groups = [ids[some] for ids in self.groups]
        out = Rows(self.features[some], groups, self.offset[some], trials, self.kept)
        out.include_random = self.include_random
        return out

    def slices(self):
        for start in range(0, max(1, self.shape[0]), SLICE):
            yield slice(start, min(start + SLICE, self.shape[0]))


class MixedEffectsModel(MixedSummaryMixin, VariationalEstimator):
    """Base of the regressor and the classifier."""

    _roles = ("groups", "offset")
    exposure = trials = None

    # -- rows --------------------------------------------------------------------------

    def _check_intercept(self, *names):
        """That parameters of the intercept are not given where there is none."""
        for name in () if self.fit_intercept else names:
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} means nothing with "
                    "fit_intercept=False: leave it None."
                )

    def _rows(self, X, include_random):
        """Validated rows to predict, and whether effects of known levels count."""
        rows, _ = self._validate(X)
        rows.include_random = bool(include_random)
        return rows

    def _validate(self, X, y="no_validation", reset=False, **params):
        roles = {role: getattr(self, role) for role in self._roles}
        roles["groups"] = columns = columns_of(self.groups)
        split, y = validate_columns(
            self,
            X,
            y,
            roles=roles,
            reset=reset,
            dtype=np.float64,
            ensure_min_features=0 if columns else 1,
            **params,
        )
        features = split.features
        offset = np.zeros(features.shape[0])
        if split.values.get("offset") is not None:
            offset += numeric_column(split.values["offset"], "offset")
        if split.values.get("exposure") is not None:
            exposure = split.values["exposure"]
            offset += np.log(numeric_column(exposure, "exposure", positive=True))
        trials = split.values.get("trials")
        if trials is not None:
            trials = numeric_column(trials, "trials", positive=True)
        groups = factor_values(entries_of(self.groups), columns, split.values["groups"])
        return Rows(features, groups, offset, trials, split.kept), y

    def _weights(self, sample_weight, rows):
        return check_sample_weight(
            sample_weight, rows.features, dtype=np.float64, ensure_non_negative=True
        )

    @staticmethod
    def _counted(rows, y, weight):
        """Without rows of weight zero."""
        counted = weight > 0.0
        if counted.all():
            return rows, y, weight
        if not counted.any():
            raise ValueError(
                "sample_weight is zero for all samples: give some a positive one."
            )
        return rows[counted], y[counted], weight[counted]

    # -- fitting -----------------------------------------------------------------------

    def _fit_rows(self, rows, y, weight, task):
        rows, y, weight = self._counted(rows, y, weight)
        frame = self._frame(rows.features, weight)
        units = self._units(y, weight, rows.offset)
        factors = self._factors(rows, frame)
        model, sd_priors, noise_prior = self._model(factors, frame, units)
        response, offset = units.inward(y, rows.offset)
        block = Block(
            grouped_rows(
                model.layout, frame, rows, factors, factors.codes(rows.groups)
            ),
            self._response(response, rows),
            weight,
            offset,
        )
        extra = {
            "y_offset_": units.shift if units.location else 0.0,
            "y_scale_": units.scale,
            "intercept_mean_": units.shift,
            "intercept_precision_": self._level_precision() / units.scale**2,
            "weight_precision_": model.ridge[: rows.shape[1]],
            "sd_prior_": sd_priors,
            "levels_": dict(zip(factors.names, factors.levels)),
            "_fitted_factors": factors,
            "_fitted_kept": rows.kept,
        }
        if noise_prior is not None:
            extra["noise_sd_prior_"] = noise_prior
        of_fit = MixedAttributes(
            model,
            frame,
            units,
            factors.slope_scales(frame),
            weight.sum(),
            extra,
            is_classifier(self),
        )

        def law_of(q):
            gaussian = q.gaussian
            return EffectsLaw(
                gaussian.mean, [gaussian.precision], q.components, q.noise
            )

        def on_iteration(fit):
            self._report(len(fit.path) - 1, fit.elbo + of_fit.log_units)
            with task.subtask("iteration") as iteration:
                iteration.attributes = lambda: of_fit.attributes(
                    fit, law_of(fit.posterior)
                )
            return iteration.stop

        with blas_threads(model.layout.n_root):
            q = model.start(block, self._to_go_on_from(model))
            many = model.layout.n_root > CHEAP or len(y) > MANY
            distance_tol = DISTANCE_TOL_OF_MANY if many else DISTANCE_TOL
            settings = self.max_iter, self.tol, distance_tol
            fit = run(model, block, q, settings, on_iteration)
            law = law_of(fit.posterior)
            if self.posterior_covariance == "linear_response":
                law = self._corrected(model, block, fit, law)
            for name in ("noise_variance_", "noise_sd_prior_"):
                self.__dict__.pop(name, None)  # of a family that has none
            self.__dict__.update(of_fit.attributes(fit, law))
        if not (fit.converged or fit.stopped):
            warnings.warn(
                f"The fit did not converge in max_iter={self.max_iter} iterations. "
                f"Raise max_iter or tol (now {self.tol}), or call fit again with "
                "warm_start=True to go on from here. A variance that the data leave "
                "near zero takes many; another sd_prior may end sooner.",
                ConvergenceWarning,
                stacklevel=5,  # the caller of fit, past its decorators
            )

    @staticmethod
    def _corrected(model, block, fit, law):
        try:
            return linear_response(model, block, fit.posterior)
        except ValueError as error:  # a fit that took long is not thrown away
            warnings.warn(
                f"{error} The covariances of this fit are the variational ones.",
                ConvergenceWarning,
                stacklevel=6,
            )
            return law

    def _frame(self, X, weight):
        if X.shape[1]:
            return ColumnTotals.of(X, weight).frame(self.fit_intercept)
        none = np.zeros(0)
        return Frame(none, none, np.zeros(0, dtype=bool), self.fit_intercept)

    def _factors(self, rows, frame):
        entries = entries_of(self.groups)
        seen = getattr(self, "feature_names_in_", None)
        names = factor_names(entries, seen, self.n_features_in_)
        slopes = slopes_of(self, self.random_slopes, entries, rows.kept)
        flat = sorted({j for at in slopes for j in at})
        constant = [j for j in flat if not frame.varies[j]]
        if constant:
            names_of = [self._name_of(j, rows.kept) for j in constant]
            raise ValueError(
                f"random_slopes={self.random_slopes!r}: {names_of} hold one value "
                "only, so that nothing can vary by group with them; leave them out "
                "(intercepts vary by group in any case)."
            )
        self._warn_of_far_slopes(flat, frame, rows.kept)
        of_slopes = [[self._name_of(j, rows.kept) for j in at] for at in slopes]
        levels = [levels_of(ids) for ids in rows.groups]
        return Factors(names, slopes, of_slopes, levels)

    def _warn_of_far_slopes(self, features, frame, kept):
        """Where zero is far from all rows, intercepts and slopes are hardly two."""
        far = [
            self._name_of(j, kept)
            for j in features
            if abs(frame.offset[j]) > FAR * frame.scale[j]
        ]
        if far:
            warnings.warn(
                f"random_slopes={self.random_slopes!r}: the values of {far} are many "
                "standard deviations from zero, where random intercepts are those of "
                "the column as given. Centre these columns, or no prior of intercepts "
                "and slopes will suit.",
                UserWarning,
                stacklevel=7,  # the caller of fit, past its decorators
            )

    def _name_of(self, feature, kept):
        names = getattr(self, "feature_names_in_", None)
        if names is None:
            names = [f"x{j}" for j in range(self.n_features_in_)]
        return str(np.asarray(names, dtype=object)[kept][feature])

    def _model(self, factors, frame, units):
        names, sizes = factors.in_order()
        if self.sd_prior is not None and not names:
            raise ValueError(
                f"sd_prior={self.sd_prior!r} means nothing with groups=None: name the "
                "column of the groups, or leave sd_prior None."
            )
        p = len(frame.scale)
        layout = ArrowLayout(p + frame.level, sizes)
        ridge = np.broadcast_to(self._weight_precision(p), (p,))
        if frame.level:
            ridge = np.append(ridge, self._level_precision())
        resolved = {
            name: variance_prior(
                self._sd_prior(name, factors.names),
                EFFECTS_DEFAULT,
                n_effects,
                self.correlation_concentration,
                "sd_prior",
            )
            for name, (_, n_effects) in zip(names, sizes)
        }
        concentration = self.correlation_concentration
        if concentration != 1.0 and not any(
            isinstance(prior, ScalePrior) and prior.dim > 1
            for prior, _ in resolved.values()
        ):
            raise ValueError(
                f"correlation_concentration={concentration!r} means nothing without "
                "random_slopes whose sd_prior is half-normal, half-t or half-Cauchy: "
                "leave it 1."
            )
        noise, spec = None, None
        if self._has_noise:
            noise, spec = variance_prior(
                self.noise_sd_prior, NOISE_DEFAULT, 1, 1.0, "noise_sd_prior"
            )
        kind = GaussianRows if self._has_noise else SitedRows
        model = kind(
            self._likelihood(),
            layout,
            parts_of(layout, names, frame.level),
            np.array(ridge),
            {name: prior for name, (prior, _) in resolved.items()},
            noise,
            FAMILIES[self.posterior],
        )
        specs = {name: resolved[name][1] for name in factors.names}
        return model, specs, spec

    _has_noise = False

    def _sd_prior(self, name, names):
        if not isinstance(self.sd_prior, dict):
            return self.sd_prior
        entries = entries_of(self.groups)
        unknown = [k for k in self.sd_prior if k not in names and k not in entries]
        if unknown:
            raise ValueError(
                f"sd_prior has {unknown!r}, which are no grouping factors; the factors "
                f"are {names}."
            )
        entry = entries[names.index(name)]
        return self.sd_prior.get(name, self.sd_prior.get(entry))

    def _weight_precision(self, p):
        if self.weight_precision is None:
            return WEIGHT_PRECISION
        return positive_precisions(self.weight_precision, p)

    def _level_precision(self):
        value = self.intercept_precision
        return INTERCEPT_PRECISION if value is None else float(value)

    def _response(self, y, rows):
        return y

    def _to_go_on_from(self, model):
        """The last fit's posterior, if warm_start asks for it and there is one."""
        if not self.warm_start or not hasattr(self, "_fitted_q"):
            return None
        q = self._fitted_q
        return q if (q.noise is None) == (model.noise_prior is None) else None

    # -- predictions -------------------------------------------------------------------

    def _draw(self, n, rng):
        draws = self.posterior_.sample(n, rng)
        shift = draws["coef"] @ self.X_offset_
        level = draws.get("level", self._fitted_units.shift + np.zeros_like(shift))
        draws["intercept"] = level - shift
        return draws

    def _predictor(self, rows):
        """(grouped rows, mean of eta in its units)."""
        units, factors = self._fitted_units, self._fitted_factors
        codes = factors.codes(rows.groups)
        known = codes
        if not rows.include_random:
            known = [np.full_like(code, -1) for code in codes]
        grouped = grouped_rows(
            self._fitted_model.layout, self._fitted_frame, rows, factors, known
        )
        grouped.new, grouped.new_ids = factors.new_levels(
            rows, codes, known, self._fitted_frame
        )
        mean = units.shift + rows.offset
        mean = mean + units.scale * grouped.dot(self._fitted_law.mean)
        return grouped, mean

    def _predictors(self, rows):
        """Yield (slice, mean, variance, mean and variance of what new levels add).

        All but the mean are in standard units, whose squares are floats.
        """
        for some in rows.slices():
            grouped, mean = self._predictor(rows[some])
            variance = self._fitted_law.of_predictors(grouped)
            yield some, mean, variance, *self._fitted_law.of_new_levels(grouped)

    def _replicated(self, rows, n_samples, rng):
        """Draws of eta, (n, n_samples), new levels drawn, too; and of the noise."""
        model, units, q = self._fitted_model, self._fitted_units, self._fitted_q
        z = q.sample(n_samples, rng)
        theta = np.empty((n_samples, model.layout.dim))
        for name, at in q.parts.items():
            theta[:, np.ravel(at)] = np.reshape(z[name], (n_samples, -1))
        grouped, _ = self._predictor(rows)
        eta = units.scale * grouped.dot(theta.T)
        for name, term in grouped.new.items():
            ids = grouped.new_ids[name]
            n_new = ids.max(initial=-1) + 1
            if n_new == 0:
                continue
            noise = rng.standard_normal((n_samples, n_new, term.shape[1]))
            factor = np.linalg.cholesky(z[f"covariance_{name}"])
            effects = noise @ np.swapaxes(factor, -1, -2)
            each = np.einsum("na,sna->ns", term, effects[:, np.maximum(ids, 0)])
            eta += units.scale * each * (ids >= 0)[:, None]
        noise = z.get("noise_variance")
        return eta + (units.shift + rows.offset)[:, None], (
            None if noise is None else units.scale**2 * noise[:, 0, 0]
        )
