"""Bayesian linear regression for scikit-learn."""

import warnings
from numbers import Real

import numpy as np
from sklearn.base import MultiOutputMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import validate_data

from skvi._sklearn import Interval, StrOptions, check_sample_weight, fit_context
from skvi.callbacks import fit_task
from skvi.distributions import Gamma, PointMass
from skvi.estimators.base import VariationalEstimator, keeps_fit_on_error
from skvi.estimators.linear import LinearModelMixin
from skvi.estimators.linear_attributes import LinearAttributes
from skvi.estimators.priors import gamma_pair, positive_precisions
from skvi.inference.blocks import blas_threads, run_parallel
from skvi.inference.drivers import Batch
from skvi.inference.engine import climb
from skvi.models.regression import FAMILIES, Moments, RegressionModel

NOISE_PRIOR = (0.25, 0.001)  # (shape, rate) of tau s_y^2: see Notes
WEIGHT_SHAPE = 2.0
DISTANCE_TOL = 1e-7  # posterior sds left: iterations never touch the data, so be exact


class VariationalBayesianRegression(
    LinearModelMixin, MultiOutputMixin, VariationalEstimator
):
    r"""Bayesian linear regression with learnt noise and shrinkage.

    Predictions come with calibrated intervals, coefficients with posterior
    covariances, and the fit with an ELBO that is comparable between models. In the
    default setting the posterior is exact and ``elbo_`` *is* the log evidence.

    .. math::

        y_i \sim N(b + x_i^T w,\ 1/\tau), \quad
        w_j \sim N(0,\ 1/(\tau \lambda_j)), \quad
        \tau s_y^2 \sim \mathrm{Gamma}, \quad \lambda_j \sim \mathrm{Gamma}

    for columns of X that have been standardised, with s_y the standard deviation of y.

    Parameters
    ----------
    posterior : {"structured", "mean_field"}, default="structured"
        The posterior family.

        - "structured": full covariance of the weights, jointly with the noise. With
          ``prior="ridge"``, or with `weight_precision` given, it is the exact
          posterior, and ``elbo_`` the log evidence.
        - "mean_field": weights, noise and precisions independent of each other. The
          means are those of ridge regression, and nearly right; the variances are too
          small where columns of X correlate.

    prior : {"ridge", "ard"}, default="ridge"
        "ridge" shares one prior precision lambda between all weights; "ard" (automatic
        relevance determination) learns one a column and so finds those that matter.

    weight_precision : None, float or array-like of shape (n_features,), default=None
        The prior precision lambda, relative to the noise precision and for
        standardised columns. None learns it; a positive number, or one a column, fixes
        it.

    noise_precision : None or float, default=None
        The noise precision tau, in 1 / (units of y) squared. None learns it; a
        positive number fixes it, as for a known measurement error.

    weight_precision_prior : None or tuple (shape, rate), default=None
        Gamma prior of lambda. None is (2, 2 / n_features); see Notes.

    noise_precision_prior : None or tuple (shape, rate), default=None
        Gamma prior of tau s_y^2, the noise precision relative to y's variance. None is
        (0.25, 0.001); see Notes.

    intercept_precision : float, default=0.01
        kappa_0: the intercept, taken as y's level at the mean of X, has the prior
        N(mean of y, 1 / (tau kappa_0)), worth so many rows.

    fit_intercept : bool, default=True
        Whether there is an intercept. Without one, nothing is centred and "standard
        deviation" means the root mean square about zero.

    posterior_covariance : {"variational", "linear_response"}, default="variational"
        What ``coef_covariance_``, ``coef_std_``, predictive stds and intervals are
        taken from: q itself, or its linear-response correction, which restores the
        correlations that a mean-field q leaves out [3]_. ``posterior_``, ``elbo_``,
        ``sample_posterior`` and ``sample_y`` stay those of q.

    max_iter : int, default=500
        Largest number of iterations. The exact posterior needs one.

    tol : float, default=1e-6
        The fit has converged when an iteration raises the ELBO by less than `tol` nats
        and the posterior is estimated to be within 1e-7 of its standard deviations of
        where it is going.

    warm_start : bool, default=False
        Whether iterations start at the posterior of the last fit, where that had the
        same family and number of columns. Exact posteriors take no iterations.

    n_jobs : int or None, default=None
        Number of threads over blocks of rows, and over targets. None is 1 unless in a
        ``joblib.parallel_config`` context.

    verbose : int or bool, default=False
        True prints the ELBO at iterations 1, 2, 4, 8, ...; 2 prints every one.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_targets, n_features)
        Posterior mean of the weights.

    intercept_ : float or ndarray of shape (n_targets,)
        Posterior mean of y at x = 0.

    coef_std_ : ndarray of the shape of ``coef_``
        Posterior standard deviations; infinite where the posterior, a Student-t, has
        no variance.

    coef_covariance_ : ndarray of shape ([n_targets, ]n_features, n_features)
        Posterior covariance of the weights, computed when asked for. Where X had fewer
        rows than columns it is a ``scipy.sparse.linalg.LinearOperator`` (a list of
        them with several targets).

    noise_variance_ : float or ndarray of shape (n_targets,)
        Posterior mean of the noise variance.

    noise_precision_ : float or ndarray of shape (n_targets,)
        Posterior mean of tau.

    weight_precision_ : float or ndarray of shape ([n_targets, ][n_features])
        Posterior mean of lambda, for standardised columns.

    noise_collapse_probability_ : float or ndarray of shape (n_targets,)
        Posterior probability that the noise's standard deviation is below 0.05 s_y. A
        number near one with fewer rows than columns means that the fit interpolates.

    elbo_ : float
        Evidence lower bound in nats, summed over targets; comparable between fits to
        the same y, X and weights. The exact log evidence where `posterior` is exact.

    elbo_terms_ : dict
        ``log_likelihood``, ``log_prior`` and ``entropy``, which sum to ``elbo_``.

    elbo_path_ : ndarray of shape (n_evaluations,)
        The ELBO by iteration, the starting point's first.

    posterior_ : distribution, or a tuple of one a target
        Variables ``coef``, ``level`` (y's level at the mean of X),
        ``noise_precision``, ``weight_precision``; with ``sample``, ``log_density``,
        ``entropy`` and ``covariance``.

    noise_precision_prior_ : tuple (shape, rate) or None
        The prior of tau, in y's units; None where tau was given.

    weight_precision_prior_ : tuple (shape, rate) or None
        The prior of lambda; None where lambda was given.

    X_offset_, X_scale_ : ndarrays of shape (n_features,)
        Weighted means and standard deviations of the columns of X. A constant column
        has the scale of its absolute value, or 1.

    y_offset_, y_scale_ : float or ndarray of shape (n_targets,)
        The same of y: s_y is the absolute value of y's mean, or 1, where y is constant.

    n_iter_ : int
        Iterations run (the most of any target).

    converged_ : bool
        Whether every target's fit converged.

    n_samples_seen_ : int
        Rows fitted, those of earlier ``partial_fit`` calls included.

    n_features_in_ : int
        Number of features seen during fit.

    feature_names_in_ : ndarray of shape (``n_features_in_``,)
        Names of features seen during fit, where X had names.

    Raises
    ------
    ValueError
        If X, y or a parameter is not valid; nothing fitted before is lost.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` iterations were not enough.

    See Also
    --------
    sklearn.linear_model.BayesianRidge : Point estimates of both precisions.
    sklearn.linear_model.ARDRegression : The same with a precision a column.

    Notes
    -----
    The priors are proper and relative to the data, so that the fit is equivariant: y
    and each column of X may be multiplied and shifted at will. Multiplying y by c
    subtracts n log c from ``elbo_`` and changes nothing else.

    lambda ~ Gamma(2, 2 / p) expects signal and noise of the same order whatever the
    number of columns (p / lambda is the signal-to-noise ratio for uncorrelated
    columns), and 2 is the smallest whole shape for which weights have a prior variance.
    tau s_y^2 ~ Gamma(0.25, 0.001) has the quartiles 0.4, 2 and 38 per cent of y's
    variance for the noise and counts as half a row. Its rate matters only where less
    than about a thousandth of y's variance is noise: pass a smaller one for such data.
    Near-improper priors such as BayesianRidge's (1e-6, 1e-6) may be passed; with more
    columns than rows they let the noise collapse.

    The rows are read once, in cache-sized blocks. The exact fit then takes one
    eigendecomposition of a matrix of size min(n, p). The iterations of ARD decompose a
    matrix of that size each, after n^2 p operations to form it where p > n; those of
    mean field sweep over the p x p Gram matrix, or solve for all weights where p > n.

    References
    ----------
    .. [1] C. M. Bishop (2006). Pattern Recognition and Machine Learning, sections
       3.3-3.5 and 10.3.
    .. [2] J. Drugowitsch (2013). Variational Bayesian inference for linear and logistic
       regression. arXiv:1310.5438, sections 2 and 3.
    .. [3] R. Giordano, T. Broderick, M. I. Jordan (2018). Covariances, robustness, and
       variational Bayes. JMLR 19(51), eq. 9.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skvi import VariationalBayesianRegression
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = VariationalBayesianRegression().fit(X, y)
    >>> print(f"{model.elbo_:.1f}")
    -2416.4
    >>> mean, std = model.predict(X[:2], return_std=True)
    >>> mean.round(), std.round()
    (array([203.,  71.]), array([55., 55.]))
    >>> model.predict_interval(X[:2], confidence_level=0.9).round()
    array([[113., 293.],
           [-19., 161.]])
    """

    _parameter_constraints = {
        **VariationalEstimator._parameter_constraints,
        "prior": [StrOptions({"ridge", "ard"})],
        "weight_precision": [None, Real, "array-like"],
        "noise_precision": [None, Interval(Real, 0.0, None, closed="neither")],
        "weight_precision_prior": [None, tuple, list],
        "noise_precision_prior": [None, tuple, list],
        "intercept_precision": [Interval(Real, 0.0, None, closed="neither")],
        "fit_intercept": ["boolean"],
        "posterior_covariance": [StrOptions({"variational", "linear_response"})],
    }

    def __init__(
        self,
        *,
        posterior="structured",
        prior="ridge",
        weight_precision=None,
        noise_precision=None,
        weight_precision_prior=None,
        noise_precision_prior=None,
        intercept_precision=0.01,
        fit_intercept=True,
        posterior_covariance="variational",
        max_iter=500,
        tol=1e-6,
        warm_start=False,
        n_jobs=None,
        verbose=False,
    ):
        self.posterior = posterior
        self.prior = prior
        self.weight_precision = weight_precision
        self.noise_precision = noise_precision
        self.weight_precision_prior = weight_precision_prior
        self.noise_precision_prior = noise_precision_prior
        self.intercept_precision = intercept_precision
        self.fit_intercept = fit_intercept
        self.posterior_covariance = posterior_covariance
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # -- fitting -----------------------------------------------------------------------

    @fit_context(prefer_skip_nested_validation=True)
    @keeps_fit_on_error
    def fit(self, X, y, sample_weight=None):
        """Fit the posterior.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training rows; CSR and CSC stay sparse, float32 stays float32.

        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets. Several are fitted independently, each with a noise of its own.

        sample_weight : array-like of shape (n_samples,), default=None
            How many times each row counts: weight 2 is the row twice.

        Returns
        -------
        self : object
        """
        return self._fit_rows(X, y, sample_weight)

    @fit_context(prefer_skip_nested_validation=True)
    @keeps_fit_on_error
    def partial_fit(self, X, y, sample_weight=None):
        """Add rows to those fitted so far, and refit.

        Exact: any split of the data into blocks, in any order, gives the answer of one
        ``fit`` (priors included, which follow the running totals). A matrix with more
        rows than columns is remembered by its moments, a wider one by its rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            New rows.

        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Their targets.

        sample_weight : array-like of shape (n_samples,), default=None
            How many times each row counts.

        Returns
        -------
        self : object
        """
        return self._fit_rows(X, y, sample_weight, getattr(self, "_fitted_rows", None))

    def _fit_rows(self, X, y, sample_weight, before=None):
        given = {"X": X, "y": y, "sample_weight": sample_weight}
        X, y = validate_data(
            self,
            X,
            y,
            reset=before is None,
            accept_sparse=("csr", "csc"),
            dtype=[np.float64, np.float32],
            multi_output=True,
            y_numeric=True,
        )
        targets = np.asarray(y, dtype=np.float64).reshape(X.shape[0], -1)
        if sample_weight is not None:
            sample_weight = check_sample_weight(
                sample_weight, X, dtype=np.float64, ensure_non_negative=True
            )
            if not sample_weight.all():
                counted = sample_weight > 0.0
                X, targets = X[counted], targets[counted]
                sample_weight = sample_weight[counted]
        moments = Moments.from_rows(X, targets, sample_weight, self.n_jobs)
        if before is not None:
            self._check_n_targets(targets)
            moments = before + moments
        n_seen = (0 if before is None else self.n_samples_seen_) + len(y)
        with fit_task(self, **given) as task:
            self._fit_moments(moments, y.ndim == 1, task)
            self.n_samples_seen_ = n_seen
        return self

    def _fit_moments(self, moments, single, task):
        design = moments.design(self.fit_intercept)
        self._fitted_rows = moments.after(design)
        noise_prior, weight_prior = self._resolve_priors(design)
        level = self.intercept_precision if self.fit_intercept else None
        family = FAMILIES[self.posterior].for_prior(weight_prior)
        models = [
            RegressionModel(noise, weight_prior, level, family) for noise in noise_prior
        ]
        values = [
            {
                "weight": design.weight,
                "gram": design.gram,
                "cross": design.cross[:, t],
                "square": design.square[t],
            }
            for t in range(len(models))
        ]

        frame = LinearAttributes(design, single, models, values)
        # Callbacks hear of one target after another; those to come are at their start.
        watched = bool(getattr(self, "_skl_callbacks", None))
        latest = [None] * len(models)

        def climb_target(t, max_iter, on_iteration=None):
            return climb(
                models[t],
                Batch(models[t], [values[t]]),
                self._start(models[t], values[t], t),
                max_iter=max_iter,
                tol=self.tol,
                distance_tol=DISTANCE_TOL,
                on_iteration=on_iteration,
            )

        def run(t):
            def on_iteration(fit):
                latest[t] = fit
                self._report(len(fit.path) - 1, fit.elbo + frame.log_units[t])
                with task.subtask("iteration") as iteration:
                    iteration.attributes = lambda: frame.attributes(latest)
                return iteration.stop

            return climb_target(t, self.max_iter, on_iteration)

        if watched:
            latest = [climb_target(t, 0) for t in range(len(models))]
        with blas_threads(design.gram.side):
            fits = run_parallel(
                run, range(len(models)), None if watched else self.n_jobs
            )
        self.__dict__.update(self._final_attributes(frame, fits))
        if not all(fit.converged or fit.stopped for fit in fits):
            warnings.warn(
                f"The fit did not converge in max_iter={self.max_iter} iterations. "
                f"Raise max_iter or tol (now {self.tol}), or call fit again with "
                "warm_start=True to go on from here.",
                ConvergenceWarning,
                stacklevel=6,  # the caller of fit, past its decorators
            )

    def _final_attributes(self, frame, fits):
        if self.posterior_covariance == "variational":
            return frame.attributes(fits)
        try:
            return frame.attributes(fits, linear_response=True)
        except ValueError as error:  # a fit that took long is not thrown away
            warnings.warn(
                f"{error} The covariances of this fit are the variational ones.",
                ConvergenceWarning,
                stacklevel=7,
            )
            return frame.attributes(fits)

    def _start(self, model, values, target):
        """The model's own start, or the last fit's posterior moved to these data."""
        before = getattr(self, "_fitted_posteriors", ())
        if self.warm_start and target < len(before):
            return model.restart(values, before[target])
        return model.start(values)

    def _resolve_priors(self, design):
        """(priors of tau, one a target; prior of lambda), in standard units."""
        p = design.x_mean.shape[0]
        if self.noise_precision is not None:
            noise = [PointMass(self.noise_precision * s**2) for s in design.y_scale]
        else:
            prior = gamma_pair(
                self.noise_precision_prior, NOISE_PRIOR, "noise_precision_prior"
            )
            noise = [Gamma(*prior) for _ in design.y_scale]
        if self.weight_precision is not None:
            return noise, PointMass(positive_precisions(self.weight_precision, p))
        shape, rate = gamma_pair(
            self.weight_precision_prior,
            (WEIGHT_SHAPE, WEIGHT_SHAPE / p),
            "weight_precision_prior",
        )
        rate = np.full(p, rate) if self.prior == "ard" else rate
        return noise, Gamma(shape, rate)
