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
from skvi.inference.blocks import blas_threads
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
    r"""A mixture of Gaussians with a posterior over weights, means and precisions.

    Every prediction integrates over that posterior, the density of a row included, and
    ``elbo_`` compares numbers of components, covariance types and priors on the data
    they were fitted to. Entries may be missing, and rows may be outliers. The successor
    of :class:`sklearn.mixture.BayesianGaussianMixture`.

    .. math::

        \pi \sim \mathrm{Dirichlet} \text{ or stick-breaking}, \quad
        \Lambda_k \sim \mathrm{Wishart}, \quad
        \mu_k \mid \Lambda_k \sim N(m_0, (\beta_0 \Lambda_k)^{-1}), \quad
        x_i \mid z_i = k \sim N(\mu_k, \Lambda_k^{-1})

    Parameters
    ----------
    n_components : int, default=1
        Number of components K, an upper limit of those used: the default prior leaves
        superfluous ones without rows. See Notes for how to choose it.

    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        Each component has its own matrix, all share one, each has its own variances,
        or each has one variance.

    posterior : {"structured", "mean_field"}, default="structured"
        The posterior family.

        - "structured": mean and precision of a component jointly, a Normal-Wishart
          (Normal-Gamma for "diag" and "spherical").
        - "mean_field": q(mu) q(Lambda), independent of each other. Its means are the
          same or nearly so, their variances smaller, its bound lower. It costs the
          same.

    emission : {"gaussian", "student_t"}, default="gaussian"
        The law of the rows of a component. With "student_t" a row far from all
        components counts for little in their moments.

    emission_dof : float, default=4.0
        Degrees of freedom of Student-t rows; fixed, not learnt. Choose it by ``elbo_``.

    weight_concentration_prior_type : {"dirichlet_process", "dirichlet_distribution"}
        Prior of the weights: stick-breaking cut off at K components (the default), or a
        symmetric Dirichlet. With sticks the order of components matters; they are put
        into the order with the highest bound, mostly that of decreasing size.

    weight_concentration_prior : None or float, default=None
        alpha_0: v_k ~ Beta(1, alpha_0) for sticks, Dirichlet(alpha_0, ..., alpha_0)
        otherwise. Smaller means fewer components with rows. None is 1 / n_components.

    mean_precision_prior : None or float, default=None
        beta_0: how many rows the prior of a mean is worth. None is 0.1.

    mean_prior : None or array-like of shape (n_features,), default=None
        m_0, in the data's units. None is the mean of X.

    degrees_of_freedom_prior : None or float, default=None
        nu_0: how many rows the prior of a covariance is worth, about. Must exceed
        n_features - 1 for "full" and "tied". None is n_features + 2 for these and 3 for
        "diag" and "spherical".

    covariance_prior : None, float or array-like, default=None
        C_0, in the data's units: a precision has the prior mean nu_0 C_0^-1. Of shape
        (n_features, n_features) for "full" and "tied", (n_features,) for "diag", a
        number for "spherical"; a number elsewhere is that variance for every column.
        None is the empirical covariance S of the N rows, shrunk
        to (N S + D diag(S)) / (N + D) for D columns; the variances of the columns; or
        the mean of these.

    moves : {"merge"} or None, default=None
        "merge" tries, at an optimum, to merge pairs of components that are close, and
        keeps what raises the bound. Off by default: on images of digits that raised the
        bound and lowered the held-out density. See the user guide.

    init_params : {"auto", "kmeans", "k-means++", "random", "random_from_data"}
        Where iterations start. "auto", the default, searches on up to 5000 rows: plain
        starts, and fine partitions whose parts are merged while that raises the
        evidence, are run for a few iterations; the best are split and merged anew; the
        winner runs to the end on all rows. The others make one start each, from the
        same sample. (500 rows with missing entries and "full" or "tied" covariances.)

    n_init : int, default=1
        How often to do that. The highest bound wins.

    max_iter : int, default=500
        Largest number of iterations of a run.

    tol : float, default=1e-6
        A run has converged when an iteration raises the bound by less than `tol` nats a
        row and the posterior is estimated to be within 0.001 of its standard deviations
        of where it is going.

    learning_decay : float, default=0.7
        Of ``partial_fit``: the t-th block counts (learning_offset + t)^-learning_decay.
        Above 0.5 and at most 1.

    learning_offset : float, default=1.0
        Of ``partial_fit``: larger ones make early blocks count less. At least 1.

    random_state : int, RandomState instance or None, default=None
        Determines the starts, and the draws of ``sample``. Pass an int for the same
        fit every time.

    warm_start : bool, default=False
        Whether ``fit`` starts from the posterior of the last fit, where it stands in
        the data's own units, in place of a search. An error is raised if
        `n_components`, `covariance_type`, `weight_concentration_prior_type` or the
        number of features has changed; `posterior`, `emission` and priors may change.

    n_jobs : int or None, default=None
        Number of threads over starts and blocks of rows. None is 1 unless in a
        ``joblib.parallel_config`` context.

    verbose : int or bool, default=False
        True prints the ELBO at iterations 1, 2, 4, 8, ... of each run; 2 prints every
        one.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Posterior mean of the weights.

    means_ : ndarray of shape (n_components, n_features)
        Posterior mean of the means.

    means_std_ : ndarray of shape (n_components, n_features)
        Posterior standard deviations of the means.

    means_covariance_ : ndarray of shape (n_components, n_features, n_features)
        Posterior covariance of each mean, computed when asked for.

    covariances_ : ndarray
        Inverse of the posterior mean of the precisions. Of shape (n_components,
        n_features, n_features) for "full", (n_features, n_features) for "tied",
        (n_components, n_features) for "diag", (n_components,) for "spherical". With
        ``emission="student_t"`` the squared scale of the rows, not their covariance.

    precisions_ : ndarray of the shape of ``covariances_``
        Posterior mean of the precisions.

    precisions_cholesky_ : ndarray of the shape of ``covariances_``
        Upper triangular U with U U' the precision, as in scikit-learn; for "diag" and
        "spherical" the square root.

    mean_precision_ : ndarray of shape (n_components,)
        beta_k: about how many rows the posterior of each mean is worth. Of shape
        (n_components, n_features) where columns differ, as with missing entries and
        "diag" or "spherical".

    degrees_of_freedom_ : ndarray
        nu_k. Of shape (n_components,) for "full" and "spherical", () for "tied" and
        (n_components, n_features) for "diag".

    weight_concentration_ : tuple (a, b) of ndarrays, or ndarray
        Parameters of the Beta posteriors of the sticks, of shape (n_components - 1,)
        each, or of the Dirichlet, of shape (n_components,).

    elbo_ : float
        Evidence lower bound in nats, every constant included; comparable between fits
        to the same X and weights. After ``partial_fit`` an estimate for all rows seen.

    elbo_terms_ : dict
        ``log_likelihood``, ``log_prior`` and ``entropy``, which sum to ``elbo_``.

    elbo_path_ : ndarray of shape (n_evaluations,)
        The ELBO by iteration of the run that won, its starting point's first.

    posterior_ : distribution
        Variables ``weights``, ``means`` and ``precisions``; with ``sample``,
        ``log_density``, ``entropy`` and ``covariance``.

    weight_concentration_prior_ : float
        The prior that was used, as are the next four.

    mean_precision_prior_, degrees_of_freedom_prior_ : float

    mean_prior_, covariance_prior_ : ndarray
        In the data's units; a float for the covariance of "spherical".

    n_iter_ : int
        Iterations of the run that won.

    converged_ : bool
        Whether it converged.

    n_samples_seen_ : int
        Rows fitted, those of earlier ``partial_fit`` calls included.

    n_features_in_ : int
        Number of features seen during fit.

    feature_names_in_ : ndarray of shape (``n_features_in_``,)
        Names of features seen during fit, where X had names.

    Raises
    ------
    ValueError
        If X or a parameter is not valid, or a column holds no number at all; nothing
        fitted before is lost.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` iterations were not enough.

    See Also
    --------
    sklearn.mixture.BayesianGaussianMixture : Point predictions, and a bound without its
        constants.
    sklearn.mixture.GaussianMixture : Maximum likelihood.

    Notes
    -----
    **Priors.** They are proper and relative to the data. Lambda_k has the Wishart prior
    of nu_0 degrees of freedom and mean nu_0 C_0^-1; for "diag" and "spherical" each
    precision has the prior Gamma(nu_0 / 2, C_0 / 2), which is the same in one
    dimension. With nu_0 = n_features + 2 the prior mean of a covariance is C_0, that of
    all rows together: components are narrower, and a few rows show it. (For "diag" and
    "spherical" it is C_0 as well.) Student-t rows take m_0 and C_0 from the bulk of the
    rows: rows far from it count less in both.

    **Units.** Multiplying n rows of D columns by c subtracts n D log c from ``elbo_``
    and changes nothing else. Columns may be multiplied one by one (with "spherical",
    all by the same number) and shifted at will.

    **How many components.** Fit several numbers and take the highest ``elbo_``, which
    describes one labelling of the components. Permuting the labels gives up to K!
    equally good ones, so ``elbo_`` can lie up to log K! below what the same fit with
    all of its labellings would have. Fits whose numbers of components differ by one and
    their ELBO by less than log(K + 1) are as good as each other.

    **Densities.** ``score_samples`` is the log predictive density under q. For the
    structured posterior and Gaussian rows it is exact, a mixture of Student-t laws.
    Otherwise each component has a Student-t that is close to the exact law: mean-field
    adds the spread of the mean to it, and Student-t rows combine the two degrees of
    freedom as 1 / (1 / df + 1 / emission_dof). In each case it integrates to one.

    **Missing entries** are integrated out, which assumes that whether an entry is
    missing does not depend on its value. For "full" and "tied" they are latent
    variables of the bound.

    References
    ----------
    .. [1] C. M. Bishop (2006). Pattern Recognition and Machine Learning, section 10.2.
    .. [2] D. M. Blei, M. I. Jordan (2006). Variational inference for Dirichlet process
       mixtures. Bayesian Analysis 1(1).
    .. [3] M. Svensen, C. M. Bishop (2005). Robust Bayesian mixture modelling.
       Neurocomputing 64.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skvi import VariationalGaussianMixture
    >>> X, _ = load_iris(return_X_y=True)
    >>> fits = [
    ...     VariationalGaussianMixture(n_components=k, random_state=0).fit(X)
    ...     for k in (1, 2)
    ... ]
    >>> [round(model.elbo_) for model in fits]
    [-422, -310]
    >>> model = fits[1]
    >>> model.weights_.round(2), model.weights_interval(0.9).round(1)[1]
    (array([0.67, 0.33]), array([0.3, 0.4]))
    >>> model.means_std_[1].round(2)
    array([0.05, 0.05, 0.04, 0.02])

    What the third measurement is, given the first:

    >>> rows = [[5.0, float("nan"), float("nan"), float("nan")]]
    >>> law = model.conditional(rows, features=2)
    >>> law.mean.shape, law.interval(0.9).shape
    ((1, 1), (1, 1, 2))
    """

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
        tags.classifier_tags = ClassifierTags(multi_class=self.n_components > 2)
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
        with (
            fit_task(self, X=X, sample_weight=sample_weight) as task,
            blas_threads(rows.dim),  # products are of the size of the cache
        ):
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
        with (
            fit_task(self, X=X, sample_weight=sample_weight) as task,
            blas_threads(rows.dim),
        ):
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
            state = self._fitted_stream.copy()
            state.decay, state.offset = self.learning_decay, self.learning_offset
            return state
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
        missing = rows.has_missing
        patterns = not (missing and rows.rows_are_patterns)
        return geometry_for(self.covariance_type, rows.dim, missing, patterns)

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
        geometry = geometry_for(self.covariance_type, rows.dim, rows.has_missing)
        model = self._fitted_model.with_geometry(geometry)
        q = self._fitted_q
        return model, MixturePosterior(q.weights, q.components, geometry), rows
