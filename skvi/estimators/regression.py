"""Bayesian linear regression for scikit-learn."""

import warnings
from numbers import Real

import numpy as np
from sklearn.base import MultiOutputMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from skvi._sklearn import Interval, StrOptions, check_sample_weight, fit_context
from skvi.callbacks import fit_task
from skvi.distributions import Gamma, PointMass, Rescaled
from skvi.estimators.base import VariationalEstimator, keeps_fit_on_error
from skvi.estimators.prediction import PredictiveRegressorMixin, dense_blocks
from skvi.estimators.summary import Summary
from skvi.inference.blocks import run_parallel
from skvi.inference.drivers import Batch
from skvi.inference.engine import climb
from skvi.linalg import scaled_covariance
from skvi.models.regression import (
    FactorisedPosterior,
    IntegratedPosterior,
    JointPosterior,
    Moments,
    RegressionModel,
)

COLLAPSED_SD = 0.05  # noise sd, in sds of y, below which a fit interpolates
NOISE_PRIOR = (0.25, 0.01)  # see Notes
WEIGHT_SHAPE = 2.0


class VariationalBayesianRegression(
    PredictiveRegressorMixin, MultiOutputMixin, VariationalEstimator
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
          means are right; the variances are too small where columns of X correlate.

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
        (0.25, 0.01); see Notes.

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
        and the posterior is estimated to be within 0.001 of its standard deviations of
        where it is going.

    warm_start : bool, default=False
        Whether ``fit`` starts at the posterior of the last fit, where that had the same
        family and columns.

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

    elbo_path_ : ndarray of shape (n_iter_ + 1,) or shorter
        The ELBO by iteration.

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

    feature_names_in_ : ndarray of shape (n_features_in_,)
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
    tau s_y^2 ~ Gamma(0.25, 0.01) says that noise between a hundredth of y's variance
    and all of it is unsurprising, and is worth half a row only. Near-improper priors
    such as BayesianRidge's (1e-6, 1e-6) may be passed; with more columns than rows
    they let the noise collapse.

    The rows are read once, in cache-sized blocks. The exact fit then takes one
    eigendecomposition of a matrix of size min(n, p), each further iteration of the
    others at most a Cholesky decomposition of that size.

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
    >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
    >>> model = VariationalBayesianRegression().fit(X, y)
    >>> print(f"{model.elbo_:.1f}")
    -2420.5
    >>> mean, std = model.predict(X[:2], return_std=True)
    >>> mean.round(), std.round()
    (array([204.,  71.]), array([55., 55.]))
    >>> model.predict_interval(X[:2], confidence_level=0.9).round()
    array([[115., 294.],
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
        return self._fit_rows(X, y, sample_weight, None)

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

    def _fit_rows(self, X, y, sample_weight, before):
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
        spectrum = _once(design.gram.spectrum)
        noise_prior, weight_prior = self._resolve_priors(design)
        level = self.intercept_precision if self.fit_intercept else None
        models = [
            RegressionModel(noise, weight_prior, level, self._family(weight_prior))
            for noise in noise_prior
        ]
        values = [
            {
                "weight": design.weight,
                "gram": design.gram,
                "spectrum": spectrum,
                "cross": design.cross[:, t],
                "square": design.square[t],
            }
            for t in range(len(models))
        ]

        latest = [None] * len(models)

        def run(t):
            def on_iteration(fit):
                latest[t] = fit
                self._report(len(fit.path) - 1, fit.elbo + frame.log_units[t])
                with task.subtask("iteration") as iteration:
                    if all(fit is not None for fit in latest):
                        iteration.attributes = lambda: frame.attributes(list(latest))
                return iteration.stop

            return climb(
                models[t],
                Batch(models[t], [values[t]]),
                self._start(models[t], values[t], t),
                max_iter=self.max_iter,
                tol=self.tol,
                on_iteration=on_iteration,
            )

        linear_response = self.posterior_covariance == "linear_response"
        frame = _Frame(design, single, linear_response, models, values)
        # Callbacks hear of one target after another.
        watched = bool(getattr(self, "_skl_callbacks", None))
        fits = run_parallel(run, range(len(models)), None if watched else self.n_jobs)
        self.__dict__.update(frame.attributes(fits), _fitted_rows=moments)
        if not self.converged_:
            warnings.warn(
                f"The fit did not converge in max_iter={self.max_iter} iterations. "
                f"Raise max_iter or tol (now {self.tol}), or call fit again with "
                "warm_start=True to go on from here.",
                ConvergenceWarning,
                stacklevel=2,
            )

    def _start(self, model, values, target):
        """The model's own start, or the last fit's posterior moved to these data."""
        before = getattr(self, "_fitted_posteriors", ())
        if self.warm_start and target < len(before):
            warm = before[target]
            same_columns = warm.coef_mean.shape == values["cross"].shape
            if same_columns and type(warm) is model.family:
                return warm.step(model, values)
        return model.start(values)

    def _family(self, weight_prior):
        """The posterior family: an exact one where the model allows it."""
        if self.posterior == "mean_field":
            return FactorisedPosterior
        shared = isinstance(weight_prior, Gamma) and weight_prior.shape.shape == ()
        return IntegratedPosterior if shared else JointPosterior

    def _resolve_priors(self, design):
        """(priors of tau, one a target; prior of lambda), in standard units."""
        p = design.x_mean.shape[0]
        if self.noise_precision is not None:
            noise = [PointMass(self.noise_precision * s**2) for s in design.y_scale]
        else:
            prior = _check_prior(
                self.noise_precision_prior, NOISE_PRIOR, "noise_precision_prior"
            )
            noise = [Gamma(*prior) for _ in design.y_scale]
        if self.weight_precision is not None:
            return noise, PointMass(_check_precision(self.weight_precision, p))
        shape, rate = _check_prior(
            self.weight_precision_prior,
            (WEIGHT_SHAPE, WEIGHT_SHAPE / p),
            "weight_precision_prior",
        )
        rate = np.full(p, rate) if self.prior == "ard" else rate
        return noise, Gamma(shape, rate)

    # -- what the posterior says -------------------------------------------------------

    @property
    def coef_covariance_(self):
        """Posterior covariance of the weights."""
        check_is_fitted(self)
        scale = np.atleast_2d(self._unit_scale())
        parts = [
            scaled_covariance(law.covariance(), s)
            for law, s in zip(self._fitted_laws, scale)
        ]
        if np.ndim(self.intercept_) == 0:
            return parts[0]
        if all(isinstance(part, np.ndarray) for part in parts):
            return np.stack(parts)
        return parts

    def _unit_scale(self):
        return np.multiply.outer(self.y_scale_, 1.0 / self.X_scale_)

    def _draw(self, n, rng):
        draws = [_by_name(q.sample(n, rng)) for q in np.atleast_1d(self.posterior_)]
        for draw in draws:
            level = draw.get("level", 0.0)
            draw["intercept"] = level - draw["coef"] @ self.X_offset_
        if np.ndim(self.intercept_) == 0:
            return draws[0]
        return {name: np.stack([d[name] for d in draws], axis=1) for name in draws[0]}

    def _standardise(self, rows):
        return (rows - self.X_offset_) / self.X_scale_

    def _laws(self, rows, **parts):
        """Laws of y (or of a part of it) at standardised rows, in y's units."""
        return [
            q.predictive(rows, law, **parts).rescaled(scale, shift)
            for q, law, scale, shift in zip(
                self._fitted_posteriors,
                self._fitted_laws,
                np.atleast_1d(self.y_scale_),
                np.atleast_1d(self.y_offset_),
            )
        ]

    def _predictive_laws(self, X):
        for rows, block in dense_blocks(X):
            yield rows, self._laws(self._standardise(block))

    def _predictive_mean(self, X):
        blocks = [
            self._standardise(block) @ (self.coef_ * self.X_scale_).T
            for _, block in dense_blocks(X)
        ]
        return self.y_offset_ + np.concatenate(blocks)

    def _predictive_covariances(self, X):
        rows = np.concatenate(
            [self._standardise(block) for _, block in dense_blocks(X)]
        )
        return [
            scale**2 * q.predictive_covariance(rows, law)
            for q, law, scale in zip(
                self._fitted_posteriors, self._fitted_laws, np.atleast_1d(self.y_scale_)
            )
        ]

    def _replicate(self, X, n_samples, rng):
        draws = self._draw(n_samples, rng)
        single = np.ndim(self.intercept_) == 0
        coef, level, tau = (
            draws[name][:, None] if single else draws[name]
            for name in ("coef", "level", "noise_precision")
        )
        # (n_samples, t, p) against rows centred first: the shift may be large.
        mean = np.concatenate(
            [
                np.einsum("np,stp->nts", block - self.X_offset_, coef, optimize=True)
                for _, block in dense_blocks(X)
            ]
        )
        noise = rng.standard_normal(mean.shape) / np.sqrt(tau).T
        out = mean + level.T + noise
        return out[:, 0] if single else out

    def summary(self, confidence_level=0.95, contrasts=None):
        """Tabulate the posterior of the weights, or of linear combinations of them.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Probability of the central intervals.

        contrasts : dict of str to (array-like of shape (n_features,) or dict), \
                default=None
            Linear combinations of the weights by name: one coefficient a feature, or
            a dict of feature name to coefficient. None tabulates every weight and the
            intercept.

        Returns
        -------
        summary : Summary
            Prints as text and, in notebooks, as HTML; ``to_pandas()``. With arrays
            ``mean``, ``sd``, ``lower``, ``upper``, ``probability_positive``.

        Examples
        --------
        >>> from sklearn.datasets import load_diabetes
        >>> from skvi import VariationalBayesianRegression
        >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
        >>> model = VariationalBayesianRegression().fit(X[["bmi", "bp"]], y)
        >>> model.summary(contrasts={"bmi - bp": {"bmi": 1, "bp": -1}})
        VariationalBayesianRegression (95% intervals)
                  mean   sd  lower  upper  P(> 0)
        bmi - bp ...
        """
        check_is_fitted(self)
        names = self._feature_names()
        if contrasts is None:
            rows = np.eye(self.n_features_in_)
        else:
            rows = np.stack([_contrast(k, v, names) for k, v in contrasts.items()])
            names = list(contrasts)
        tail = 0.5 * (1.0 - confidence_level)
        # Rows of weights have no level: shift the law back to zero.
        table = self._tabulate(rows / self.X_scale_, tail, level=False)
        if contrasts is None and self.fit_intercept:
            origin = self._standardise(np.zeros((1, self.n_features_in_)))
            names = [*names, "intercept"]
            table = np.concatenate([table, self._tabulate(origin, tail, level=True)])
        n_targets = table.shape[1]
        if np.ndim(self.intercept_) != 0:
            names = [f"y{t}: {name}" for name in names for t in range(n_targets)]
        notes = {"elbo": self.elbo_}
        for name in ("noise_variance_", "noise_collapse_probability_"):
            for t, value in enumerate(np.atleast_1d(getattr(self, name))):
                label = name.strip("_").replace("_", " ")
                notes[label if n_targets == 1 else f"y{t}: {label}"] = float(value)
        return Summary(type(self).__name__, names, table, confidence_level, notes)

    def _tabulate(self, rows, tail, level):
        """(rows, targets, 5): mean, sd, interval and P(> 0) of level + rows @ w."""
        step = max(1, (1 << 20) // max(1, rows.shape[1]))
        parts = []
        for start in range(0, len(rows), step):
            laws = self._laws(rows[start : start + step], level=level, noise=False)
            for t, law in enumerate(laws):
                shift = 0.0 if level else np.atleast_1d(self.y_offset_)[t]
                ends = law.quantile([tail, 1.0 - tail]) - shift
                laws[t] = np.column_stack(
                    [
                        law.mean - shift,
                        np.sqrt(law.variance()),
                        ends,
                        1.0 - law.cdf(np.full(len(ends), shift)),
                    ]
                )
            parts.append(np.stack(laws, axis=1))
        return np.concatenate(parts)

    def _feature_names(self):
        default = [f"x{j}" for j in range(self.n_features_in_)]
        return list(getattr(self, "feature_names_in_", default))


class _Frame:
    """From posteriors in standard units to the estimator's fitted attributes."""

    def __init__(self, design, single, linear_response, models, values):
        self.design = design
        self.single = single
        self.linear_response = linear_response
        self.models = models
        self.values = values
        self.log_units = -design.weight * np.log(design.y_scale)

    def attributes(self, fits):
        design, models = self.design, self.models
        posteriors = [fit.posterior for fit in fits]
        laws = [
            q.coef_law(model, values, self.linear_response)
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


def _once(function):
    """Call ``function`` when first asked, and remember."""
    result = []

    def remembered():
        if not result:
            result.append(function())
        return result[0]

    return remembered


def _by_name(draws):
    """Draws with vectors of one number dropped to numbers."""
    return {k: v[:, 0] if k == "level" and v.ndim > 1 else v for k, v in draws.items()}


def _check_prior(value, default, name):
    if value is None:
        return default
    try:
        shape, rate = (float(v) for v in value)
    except (TypeError, ValueError):
        shape = rate = np.nan
    if not (0.0 < shape < np.inf and 0.0 < rate < np.inf):
        raise ValueError(
            f"{name}={value!r} must be a pair (shape, rate) of positive numbers, such "
            f"as {default}."
        )
    return shape, rate


def _check_precision(value, n_features):
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or array.shape not in {(), (n_features,)}:
        raise ValueError(
            f"weight_precision={value!r} must be a number or one for each of the "
            f"{n_features} features."
        )
    if not np.all((array > 0) & np.isfinite(array)):
        raise ValueError(
            f"weight_precision={value!r} must be positive and finite; a weight that "
            "should not be shrunk has a small precision, such as 1e-6."
        )
    return array.astype(np.float64)


def _contrast(name, weights, feature_names):
    p = len(feature_names)
    if isinstance(weights, dict):
        unknown = [key for key in weights if key not in feature_names]
        if unknown:
            raise ValueError(
                f"contrasts[{name!r}] names {unknown}, which are not features; the "
                f"features are {feature_names}."
            )
        row = np.zeros(p)
        for key, value in weights.items():
            row[feature_names.index(key)] = value
        return row
    row = np.asarray(weights, dtype=np.float64)
    if row.shape != (p,):
        raise ValueError(
            f"contrasts[{name!r}] has shape {row.shape}; give one coefficient for each "
            f"of the {p} features, or a dict by feature name."
        )
    return row
