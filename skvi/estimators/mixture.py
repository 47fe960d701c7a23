"""Gaussian mixtures for scikit-learn."""

import warnings
from numbers import Integral, Real

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import ClassifierTags
from sklearn.utils.validation import check_is_fitted, validate_data

from skvi._sklearn import Interval, StrOptions, check_sample_weight, fit_context
from skvi.callbacks import fit_task
from skvi.distributions.student_mixture import StudentMixture
from skvi.estimators.base import VariationalEstimator, as_generator, keeps_fit_on_error
from skvi.estimators.density import PredictiveDensityMixin
from skvi.estimators.mixture_attributes import MixtureAttributes
from skvi.estimators.mixture_posterior import MixtureSummaryMixin
from skvi.estimators.mixture_priors import MixturePriors
from skvi.inference.drivers import StochasticState
from skvi.inference.engine import Fit
from skvi.models.mixture import (
    FAMILIES,
    Frame,
    GaussianEmission,
    MixtureModel,
    MixturePosterior,
    Rows,
    Settings,
    StudentEmission,
    Totals,
    geometry_for,
    moves,
    search,
)

POSITIVE = Interval(Real, 0.0, None, closed="neither")


class VariationalGaussianMixture(
    PredictiveDensityMixin, MixtureSummaryMixin, VariationalEstimator
):
    """DOCSTRING"""

    _parameter_constraints = {
        **VariationalEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({"full", "tied", "diag", "spherical"})],
        "emission": [StrOptions({"gaussian", "student_t"})],
        "emission_dof": [POSITIVE],
        "weight_concentration_prior_type": [
            StrOptions({"dirichlet_process", "dirichlet_distribution"})
        ],
        "weight_concentration_prior": [None, POSITIVE],
        "mean_precision_prior": [None, POSITIVE],
        "mean_prior": [None, "array-like"],
        "degrees_of_freedom_prior": [None, POSITIVE],
        "covariance_prior": [None, Real, "array-like"],
        "moves": [None, StrOptions({"merge"})],
        "init_params": [
            StrOptions({"auto", "kmeans", "k-means++", "random", "random_from_data"})
        ],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "learning_decay": [Interval(Real, 0.5, 1.0, closed="right")],
        "learning_offset": [Interval(Real, 1.0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        n_components=1,
        covariance_type="full",
        posterior="structured",
        emission="gaussian",
        emission_dof=4.0,
        weight_concentration_prior_type="dirichlet_process",
        weight_concentration_prior=None,
        mean_precision_prior=None,
        mean_prior=None,
        degrees_of_freedom_prior=None,
        covariance_prior=None,
        moves=None,
        init_params="auto",
        n_init=1,
        max_iter=500,
        tol=1e-6,
        learning_decay=0.7,
        learning_offset=1.0,
        random_state=None,
        warm_start=False,
        n_jobs=None,
        verbose=False,
    ):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.posterior = posterior
        self.emission = emission
        self.emission_dof = emission_dof
        self.weight_concentration_prior_type = weight_concentration_prior_type
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_precision_prior = mean_precision_prior
        self.mean_prior = mean_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.moves = moves
        self.init_params = init_params
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.learning_decay = learning_decay
        self.learning_offset = learning_offset
        self.random_state = random_state
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = self._takes_sparse
        # Of predict_proba: scikit-learn's check of sparse input reads it.
        tags.classifier_tags = ClassifierTags(multi_class=True)
        return tags

    # -- fitting -----------------------------------------------------------------------

    @fit_context(prefer_skip_nested_validation=True)
    @keeps_fit_on_error
    def fit(self, X, y=None, sample_weight=None):
        """Fit the posterior.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows. float32 stays float32; CSR stays sparse with diagonal and spherical
            covariances; NaN marks missing entries, which are integrated out.

        y : None
            Ignored; there by convention.

        sample_weight : array-like of shape (n_samples,), default=None
            How many times each row counts: weight 2 is the row twice.

        Returns
        -------
        self : object
        """
        X, weight = self._validate_training(X, sample_weight, reset=True)
        frame = self._frame(X, weight)
        rows = Rows(X, weight, frame)
        totals = Totals.of(rows, products=self._is_matrix)
        with fit_task(self, X=X, sample_weight=sample_weight) as task:
            frame_of_fit = self._frame_attributes(totals, frame, rows)
            fit = self._search(rows, totals, frame_of_fit, task)
            self.__dict__.update(frame_of_fit.attributes(fit))
            self._fitted_stream = None
            self.n_samples_seen_ = X.shape[0]
        if not (fit.converged or fit.stopped):
            warnings.warn(
                f"The fit did not converge in max_iter={self.max_iter} iterations. "
                f"Raise max_iter or tol (now {self.tol} nats a row), use fewer "
                "components, or call fit again with warm_start=True to go on.",
                ConvergenceWarning,
                stacklevel=4,
            )
        return self

    @fit_context(prefer_skip_nested_validation=True)
    @keeps_fit_on_error
    def partial_fit(self, X, y=None, sample_weight=None):
        """Move the posterior by a block of rows that belongs to a larger data set.

        A step of stochastic variational inference: the block's statistics, scaled up to
        all rows seen so far, are blended with those before, with the weight
        ``(learning_offset + t) ** -learning_decay`` for the t-th block. The first
        block starts the search for components, so let it be a random one. Priors that
        are relative to the data follow the running totals.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            New rows.

        y : None
            Ignored; there by convention.

        sample_weight : array-like of shape (n_samples,), default=None
            How many times each row counts.

        Returns
        -------
        self : object
            ``elbo_`` is then an estimate, from the blended statistics.
        """
        first = not hasattr(self, "_fitted_q")
        X, weight = self._validate_training(X, sample_weight, reset=first)
        if first:
            frame = self._frame(X, weight)
        else:
            self._check_same_shape()
            frame = self._fitted_frame
        rows = Rows(X, weight, frame)
        block = Totals.of(rows, products=self._is_matrix)
        totals = block if first else self._fitted_totals + block
        frame_of_fit = self._frame_attributes(totals, frame, rows)
        model = frame_of_fit.model
        with fit_task(self, X=X, sample_weight=sample_weight) as task:
            if first:
                q = self._search(rows, totals, frame_of_fit, task).posterior
                state = StochasticState(self.learning_decay, self.learning_offset)
            else:
                q, state = self._fitted_q, self._stream()
                grown = totals.weight / self._fitted_totals.weight
                state.statistics = state.statistics.scaled(grown)
            q = MixturePosterior(q.weights, q.components, model.geometry)
            q = state.step(
                model, q, (rows, slice(0, rows.n)), totals.weight / block.weight
            )
            moved = moves.reordered(model, state.statistics.values)
            if moved is not None:
                q, values = moved
                state.statistics = state.statistics.with_values(values)
            terms = model.elbo_terms(state.statistics, q)
            fit = Fit(q, state.statistics, terms, [sum(terms.values())], state.n_steps)
            n_seen = X.shape[0] + (0 if first else self.n_samples_seen_)
            self.__dict__.update(frame_of_fit.attributes(fit))
            self._fitted_stream = state
            self.n_samples_seen_ = n_seen
        return self

    def _stream(self):
        """The stochastic state so far: that of a whole fit is one step."""
        if self._fitted_stream is not None:
            return self._fitted_stream.copy()
        state = StochasticState(self.learning_decay, self.learning_offset)
        state.statistics, state.n_steps = self._fitted_statistics, 1
        return state

    def _search(self, rows, totals, frame_of_fit, task):
        settings = Settings(self.max_iter, self.tol, merge=self.moves == "merge")

        def on_iteration(fit):
            elbo = fit.elbo + frame_of_fit.log_units
            self._report(len(fit.path) - 1, elbo)
            with task.subtask("iteration") as iteration:
                iteration.attributes = lambda: frame_of_fit.attributes(fit)
            return iteration.stop

        model = frame_of_fit.model
        q = self._warm_posterior(model, frame_of_fit.frame)
        if q is not None:
            return search.run(model, rows, q, settings, self.n_jobs, on_iteration)
        return search.search(
            model,
            rows,
            totals,
            self.init_params,
            self.n_init,
            settings,
            as_generator(self.random_state),
            self.n_jobs,
            on_iteration,
        )

    def _warm_posterior(self, model, frame):
        """The last fit's posterior in the units of this one, or None."""
        if not (self.warm_start and hasattr(self, "_fitted_q")):
            return None
        self._check_same_shape()
        q, before = self._fitted_q, self._fitted_frame
        scale = before.unit / frame.unit
        shift = (before.centre - frame.centre) / frame.unit
        scale = scale[0] if self.covariance_type == "spherical" else scale
        components = q.components
        if np.any(scale != 1.0) or np.any(shift != 0.0):
            components = components.rescaled(scale, shift)
        return MixturePosterior(q.weights, components, model.geometry)

    def _check_same_shape(self):
        """Whether the last fit's posterior is one of this estimator's parameters."""
        before = self._fitted_model
        K, dim = before.components_prior.location.shape
        same = (
            K == self.n_components
            and dim == self.n_features_in_
            and self._fitted_kind == self._kind
        )
        if not same:
            raise ValueError(
                f"n_components={self.n_components}, covariance_type="
                f"{self.covariance_type!r} and weight_concentration_prior_type="
                f"{self.weight_concentration_prior_type!r} on {self.n_features_in_} "
                f"features differ from those of the last fit ({K} components, "
                f"{self._fitted_kind}, {dim} features): set warm_start=False and call "
                "fit to start anew."
            )

    def _frame_attributes(self, totals, frame, rows):
        """The model of these totals, with what turns its fits into attributes."""
        empty = np.flatnonzero(totals.observed == 0.0)
        if empty.size:
            raise ValueError(
                f"Column(s) {empty.tolist()} of X hold no number at all (only NaN): "
                "drop them."
            )
        priors = MixturePriors.resolve(self, totals, frame)
        emission = (
            GaussianEmission()
            if self.emission == "gaussian"
            else StudentEmission(self.emission_dof)
        )
        model = MixtureModel(
            priors.weights(self.n_components, self.weight_concentration_prior_type),
            priors.components(self.n_components, self.covariance_type),
            self._geometry(rows),
            emission,
            FAMILIES[self.posterior],
        )
        return MixtureAttributes(model, frame, totals, priors, self._kind)

    # -- rows --------------------------------------------------------------------------

    @property
    def _kind(self):
        return self.covariance_type, self.weight_concentration_prior_type

    def _frame(self, X, weight):
        return Frame.of(
            X,
            weight,
            common=self.covariance_type == "spherical",
            robust=self.emission == "student_t",
        )

    @property
    def _is_matrix(self):
        return self.covariance_type in ("full", "tied")

    @property
    def _takes_sparse(self):
        return self.covariance_type in ("diag", "spherical")

    def _geometry(self, rows):
        return geometry_for(self.covariance_type, rows.dim, rows.has_missing)

    def _validate_rows(self, X, reset=False):
        return validate_data(
            self,
            X,
            reset=reset,
            accept_sparse="csr" if self._takes_sparse else False,
            dtype=[np.float64, np.float32],
            ensure_all_finite="allow-nan",
        )

    def _validate_training(self, X, sample_weight, reset):
        X = self._validate_rows(X, reset)
        if sparse.issparse(X) and np.isnan(X.data).any():
            raise ValueError(
                "Sparse X contains NaN: for missing entries pass X.toarray()."
            )
        if sample_weight is None:
            return X, None
        weight = check_sample_weight(
            sample_weight, X, dtype=np.float64, ensure_non_negative=True
        )
        counted = weight > 0.0
        return (X, weight) if counted.all() else (X[counted], weight[counted])

    # -- the posterior -----------------------------------------------------------------

    def _predictive(self):
        check_is_fitted(self)
        q, emission = self._fitted_q, self._fitted_model.emission
        df, loc, scale = q.components.predictive()
        return StudentMixture(q.weights.mean, emission.predictive_dof(df), loc, scale)

    def _local_law(self, X):
        """(model, posterior, rows) of the local variables of X."""
        frame = self._fitted_frame
        rows = Rows(self._dense_rows(X), None, frame)
        geometry = self._geometry(rows)
        model = self._fitted_model.with_geometry(geometry)
        q = self._fitted_q
        return model, MixturePosterior(q.weights, q.components, geometry), rows
