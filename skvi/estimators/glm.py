"""Bayesian regression of counts, and of real responses with outliers."""

from numbers import Integral, Real

import numpy as np

from skvi._sklearn import Interval, StrOptions, fit_context
from skvi.callbacks import fit_task
from skvi.distributions import InverseGamma, PointMass
from skvi.estimators.base import VariationalEstimator, keeps_fit_on_error
from skvi.estimators.generalized import PARAMETERS, GeneralizedLinearModel
from skvi.estimators.prediction import PredictiveRegressorMixin
from skvi.estimators.priors import gamma_pair
from skvi.likelihoods import Gaussian, NegativeBinomial, Poisson, StudentT
from skvi.models.glm.predictive import MOST as MOST_OF_MEANS
from skvi.models.glm.predictive import CountLaw, StudentLaw, gaussian_law
from skvi.models.glm.units import CountTotals, LocationTotals, RobustTotals

DOF = 4.0
MOST = 43.0  # of logs of rates that counts are drawn for
# (shape, rate) of the inverse dispersion; of real responses relative to y_scale_**2.
DISPERSION_PRIORS = {
    "negative_binomial": (0.5, 0.02),
    "gaussian": (0.25, 0.001),
    "student_t": (0.25, 0.001),
}
WIDTH_OF_STUDENT_LAW = 1 << 14  # numbers a row, about, when quantiles are sought
TOTALS = {
    "poisson": CountTotals,
    "negative_binomial": CountTotals,
    "gaussian": LocationTotals,
    "student_t": RobustTotals,
}


class VariationalGLMRegressor(PredictiveRegressorMixin, GeneralizedLinearModel):
    r"""Bayesian regression of counts, and of real responses with outliers.

    .. math::

        \eta_i = o_i + b + z_i^T w, \qquad y_i \sim p(y_i \mid \eta_i, \phi), \quad
        w_j \sim N(0,\ s^2/\lambda_j), \quad b \sim N(\mu,\ s^2/\kappa)

    for standardised columns z and known offsets o. The prior precision lambda and the
    dispersion phi are learnt, with posteriors of their own. s is 1 for counts, and y's
    scale otherwise.

    Parameters
    ----------
    family : str, default="poisson"
        Law of y given the linear predictor eta.

        - "poisson": counts with mean ``exp(eta)``.
        - "negative_binomial": counts with mean ``mu = exp(eta)`` and variance
          ``mu + dispersion mu^2``: more spread than Poisson's.
        - "gaussian": ``N(eta, dispersion)``.
        - "student_t": ``eta + sqrt(dispersion) t``, t a Student-t with `dof` degrees
          of freedom: outliers are let go instead of pulling the fit.

    posterior : {"structured", "mean_field"}, default="structured"
        The posterior family of the weights and the level.

        - "structured": one Gaussian with full covariance. With fewer rows than columns
          it is held in n x n matrices.
        - "mean_field": independent Gaussians. The means are nearly those of
          "structured"; the variances are too small where columns correlate.

    prior : {"ridge", "ard"}, default="ridge"
        "ridge" shares one prior precision lambda between all columns; "ard" (automatic
        relevance determination) learns one a column and so finds those that matter:
        a large ``weight_precision_`` says that a column does not.

    weight_precision : None, float or array-like of shape (n_features,), default=None
        The prior precision lambda of the weights of standardised columns. None learns
        it; a positive number, or one a column, fixes it.

    weight_precision_prior : None or tuple (shape, rate), default=None
        Gamma prior of lambda. None is (1, 1 / p) for p columns with "ridge" and
        (1, min(1 / p, 20 / p**2)) with "ard"; see Notes.

    offset : None, str or int, default=None
        Column of X (name or position) that is added to eta with weight one; it is not
        a feature.

    exposure : None, str or int, default=None
        Column of X whose logarithm is added to eta, of counts: the time, area or
        number of policies that the counts of a row come from. Predictions are for the
        exposure of their own row.

    dof : None or float, default=None
        Degrees of freedom of "student_t"; None is 4. Compare fits by ``elbo_`` to
        choose.

    dispersion : None or float, default=None
        phi, in y's units squared for "gaussian" and "student_t". None learns it; a
        positive number fixes it. "poisson" has none.

    dispersion_prior : None or tuple (shape, rate), default=None
        Gamma prior of 1 / phi; for "gaussian" and "student_t" of ``y_scale_**2 / phi``.
        None is (0.5, 0.02) for "negative_binomial", that is sizes 1 / phi of one to
        sixty, and (0.25, 0.001) for the others, as in VariationalBayesianRegression.

    intercept_mean : None or float, default=None
        Prior mean mu of the level, which is eta less the offset at the mean of X. None
        is the log of the mean rate of counts, the mean of y for "gaussian" and its
        median for "student_t".

    intercept_precision : None or float, default=None
        Prior precision kappa of the level, relative to ``1 / y_scale_**2``. None is
        0.04: a standard deviation of 5.

    fit_intercept : bool, default=True
        Whether there is a level. Without one, nothing is centred and "standard
        deviation" of a column means its root mean square.

    posterior_covariance : {"variational", "linear_response"}, default="variational"
        What ``coef_covariance_``, ``coef_std_``, intervals and predictions are taken
        from: q itself, or its linear-response correction [3]_, which restores the
        correlations that a mean-field q leaves out and adds what lambda's uncertainty
        and the posterior's skewness contribute. ``posterior_``, ``elbo_``,
        ``sample_posterior`` and ``sample_y`` stay those of q.

    max_iter : int, default=500
        Largest number of iterations, each a pass over the rows.

    tol : float, default=1e-6
        The fit has converged when an iteration raises the ELBO by less than `tol` nats
        and the posterior is estimated to be within 1e-7 of its standard deviations of
        where it is going (1e-4 for many rows).

    learning_decay : float, default=0.7
        Of the steps of ``partial_fit``; see there. Between 0.5 (exclusive) and 1.

    learning_offset : float, default=1.0
        Of the steps of ``partial_fit``: larger values make early ones shorter.

    warm_start : bool, default=False
        Whether iterations start at the posterior of the last fit, where that was of
        the same kind and is the better start.

    n_jobs : int or None, default=None
        Number of threads over blocks of rows. None is 1 unless in a
        ``joblib.parallel_config`` context.

    verbose : int or bool, default=False
        True prints the ELBO at iterations 1, 2, 4, 8, ...; 2 prints every one.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,)
        Posterior mean of the weights.

    intercept_ : float
        Posterior mean of eta, without offset, at x = 0.

    coef_std_, intercept_std_ : ndarray of shape (n_features,), float
        Posterior standard deviations.

    coef_covariance_ : ndarray of shape (n_features, n_features)
        Posterior covariance of the weights, computed when asked for; a
        ``scipy.sparse.linalg.LinearOperator`` where "structured" had fewer rows than
        columns.

    weight_precision_ : float or ndarray of shape (n_features,)
        Posterior mean of lambda.

    dispersion_ : float
        Posterior mean of phi; not there for "poisson".

    elbo_ : float
        Evidence lower bound in nats, every constant kept; comparable between fits to
        the same y, X and weights, across families of counts or of real
        responses.

    elbo_terms_ : dict
        ``log_likelihood``, ``log_prior`` and ``entropy``, which sum to ``elbo_``.

    elbo_path_ : ndarray of shape (n_evaluations,)
        The ELBO by iteration, the starting point's first.

    posterior_ : distribution
        Variables ``coef``, ``level`` (the linear predictor at the mean of X),
        ``weight_precision``, ``dispersion``; with ``sample``, ``log_density``,
        ``entropy`` and ``covariance``.

    weight_precision_prior_ : tuple (shape, rate) or None
        The prior of lambda; None where lambda was given.

    dispersion_prior_ : tuple (shape, rate) or None
        The prior of 1 / phi, in y's units; None where phi was given.

    intercept_mean_, intercept_precision_ : float
        Mean and precision of the level's Gaussian prior.

    X_offset_, X_scale_ : ndarrays of shape (n_features,)
        Weighted means and standard deviations of the columns of X. A constant column
        has the scale of its absolute value, or 1.

    y_offset_, y_scale_ : float
        What was taken for y's location and scale: mean and standard deviation for
        "gaussian", median and 1.48 times the median absolute deviation for
        "student_t"; 0 and 1 for counts.

    n_iter_ : int
        Iterations run.

    converged_ : bool
        Whether the fit converged.

    n_samples_seen_ : int
        Rows fitted, those of earlier ``partial_fit`` calls included.

    n_features_in_ : int
        Number of columns seen during fit.

    feature_names_in_ : ndarray of shape (``n_features_in_``,)
        Names of columns seen during fit, where X had names.

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
    VariationalLogisticClassifier : Classes.
    VariationalBayesianRegression : Gaussian noise, with an exact posterior.
    sklearn.linear_model.PoissonRegressor, sklearn.linear_model.HuberRegressor

    Notes
    -----
    Columns are standardised by the estimator, so that scaling them changes nothing but
    units. The weights of roles are not features: ``coef_`` has one entry for each
    other column, in their order.

    lambda ~ Gamma(1, 1 / p) expects the p columns together to move the linear predictor
    by about one (one ``y_scale_``), with order-one width on the log scale. The rate of
    "ard" is smaller from 20 columns on: then most are expected not to matter. With many
    more columns than rows the bound of "ard" pays some nats a column for holding w and
    its lambda independent: compare it with "ridge" by held-out scores rather than by
    ``elbo_``.

    "gaussian" is here for its offset, its known dispersion and for comparison;
    VariationalBayesianRegression has the exact posterior of nearly the same model.

    Natural-gradient steps are Newton's method with the curvature averaged over q: an
    iteration costs n p^2 (n^3, or n^2 p with "ard", for n < p; but p^3 for "student_t"
    as soon as there are outliers, and in ``partial_fit``). Expectations are known
    in closed form for "poisson" and "gaussian"; those of the others are taken by
    Gauss-Hermite quadrature to about 1e-12. q holds weights and dispersion independent
    of each other; they nearly are.

    References
    ----------
    .. [1] M. E. Khan, W. Lin (2017). Conjugate-computation variational inference:
       converting variational inference in non-conjugate models to inferences in
       conjugate models. AISTATS, eqs. 14-15.
    .. [2] M. Opper, C. Archambeau (2009). The variational Gaussian approximation
       revisited. Neural Computation 21, eqs. 9-11.
    .. [3] R. Giordano, T. Broderick, M. I. Jordan (2018). Covariances, robustness, and
       variational Bayes. JMLR 19(51), eq. 9.

    Examples
    --------
    Counts of a process that was watched for different times:

    >>> import numpy as np
    >>> from skvi import VariationalGLMRegressor
    >>> rng = np.random.default_rng(0)
    >>> hours, x = rng.uniform(1, 9, 200), rng.standard_normal(200)
    >>> y = rng.poisson(hours * np.exp(0.5 + 0.3 * x))
    >>> X = np.column_stack([x, hours])
    >>> model = VariationalGLMRegressor(exposure=1).fit(X, y)
    >>> model.coef_.round(2), model.coef_std_.round(2)
    (array([0.3]), array([0.02]))
    >>> model.predict([[0.0, 1.0], [0.0, 8.0]]).round(1)
    array([ 1.7, 13.3])
    >>> model.predict_interval([[0.0, 1.0], [0.0, 8.0]])
    array([[ 0.,  5.],
           [ 7., 21.]])
    """

    _parameter_constraints = {
        **VariationalEstimator._parameter_constraints,
        **PARAMETERS,
        "family": [StrOptions(set(TOTALS))],
        "offset": [None, str, Integral],
        "exposure": [None, str, Integral],
        "dof": [None, Interval(Real, 0.0, None, closed="neither")],
        "dispersion": [None, Interval(Real, 0.0, None, closed="neither")],
        "dispersion_prior": [None, tuple, list],
        "intercept_mean": [None, Interval(Real, None, None, closed="neither")],
    }
    _roles = ("offset", "exposure")

    def __init__(
        self,
        *,
        family="poisson",
        posterior="structured",
        prior="ridge",
        offset=None,
        exposure=None,
        dof=None,
        dispersion=None,
        dispersion_prior=None,
        weight_precision=None,
        weight_precision_prior=None,
        intercept_mean=None,
        intercept_precision=None,
        fit_intercept=True,
        posterior_covariance="variational",
        max_iter=500,
        tol=1e-6,
        learning_decay=0.7,
        learning_offset=1.0,
        warm_start=False,
        n_jobs=None,
        verbose=False,
    ):
        self.family = family
        self.posterior = posterior
        self.prior = prior
        self.offset = offset
        self.exposure = exposure
        self.dof = dof
        self.dispersion = dispersion
        self.dispersion_prior = dispersion_prior
        self.weight_precision = weight_precision
        self.weight_precision_prior = weight_precision_prior
        self.intercept_mean = intercept_mean
        self.intercept_precision = intercept_precision
        self.fit_intercept = fit_intercept
        self.posterior_covariance = posterior_covariance
        self.max_iter = max_iter
        self.tol = tol
        self.learning_decay = learning_decay
        self.learning_offset = learning_offset
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = self._counts
        return tags

    # -- fitting -----------------------------------------------------------------------

    @fit_context(prefer_skip_nested_validation=True)
    @keeps_fit_on_error
    def fit(self, X, y, sample_weight=None):
        """Fit the posterior.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_columns)
            Training rows, with the columns that have a role; CSR and CSC stay sparse,
            float32 stays float32.

        y : array-like of shape (n_samples,)
            Responses; counts of the count families.

        sample_weight : array-like of shape (n_samples,), default=None
            How many times each row counts: weight 2 is the row twice.

        Returns
        -------
        self : object
        """
        given = {"X": X, "y": y, "sample_weight": sample_weight}
        rows, y, weight = self._validate_training(X, y, sample_weight, True)
        with fit_task(self, **given) as task:
            self._fit_rows(rows, y, weight, task)
            self.n_samples_seen_ = len(y)
        return self

    @fit_context(prefer_skip_nested_validation=True)
    @keeps_fit_on_error
    def partial_fit(self, X, y, sample_weight=None):
        """Move the posterior by a block of rows that belongs to a larger data set.

        A step of stochastic variational inference: the block's sites, scaled up to all
        rows seen so far, are blended with those before, with the weight
        ``(learning_offset + t) ** -learning_decay`` for the t-th block. The first
        block is fitted to its end, so let it be a random one. Means and scales of
        columns and response follow the running totals (those of ``"student_t"``, which
        are robust, stay those of the first block).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_columns)
            New rows.

        y : array-like of shape (n_samples,)
            Their responses.

        sample_weight : array-like of shape (n_samples,), default=None
            How many times each row counts.

        Returns
        -------
        self : object
            ``elbo_`` is then an estimate, from the blended statistics.
        """
        given = {"X": X, "y": y, "sample_weight": sample_weight}
        first = self._is_first()
        self._check_stream()
        rows, y, weight = self._validate_training(X, y, sample_weight, first)
        n_seen = len(y) + (0 if first else self.n_samples_seen_)
        with fit_task(self, **given) as task:
            self._partial_fit_rows(rows, y, weight, task)
            self.n_samples_seen_ = n_seen
        return self

    @property
    def _counts(self):
        return self.family in ("poisson", "negative_binomial")

    @property
    def _intercept_mean(self):
        return self.intercept_mean

    def _validate_training(self, X, y, sample_weight, reset):
        self._check_combination()
        rows, y = self._validate_pairs(X, y, reset)
        weight = self._weights(sample_weight, rows)
        self._fitted_kept = rows.kept
        return rows, y, weight

    def _validate_pairs(self, X, y, reset=False):
        rows, y = self._validate(X, y, reset=reset, y_numeric=True)
        y = np.asarray(y, dtype=np.float64)
        if self._counts and y.size and y.min() < 0.0:
            row = int(np.argmin(y))
            raise ValueError(
                f"y must hold counts for family={self.family!r}, got {y[row]} at row "
                f"{row}: negative values are none. Use family='gaussian' or "
                "'student_t' for them."
            )
        return rows, y

    def _validate_rows(self, X):
        return self._validate(X)[0]

    def _check_combination(self):
        def refuse(name, remedy):
            value = getattr(self, name)
            if value is not None:
                raise ValueError(
                    f"{name}={value!r} means nothing {remedy}: leave it None."
                )

        family = f"with family={self.family!r}"
        if self.family != "student_t":
            refuse("dof", family)
        if self.family == "poisson":
            refuse("dispersion", f"{family}, which has none")
            refuse("dispersion_prior", f"{family}, which has no dispersion")
        elif self.dispersion is not None:
            refuse("dispersion_prior", "with dispersion, which is then known")
        if not self._counts:
            refuse("exposure", f"{family}, which is not of counts")
        if not self.fit_intercept:
            refuse("intercept_mean", "with fit_intercept=False")
            refuse("intercept_precision", "with fit_intercept=False")

    def _likelihood(self, n):
        if self.family == "student_t":
            return StudentT(DOF if self.dof is None else self.dof)
        if self.family == "gaussian":
            return Gaussian()
        return Poisson() if self.family == "poisson" else NegativeBinomial()

    def _dispersion_prior(self, units):
        if self.family == "poisson":
            return None
        if self.dispersion is not None:
            unit = units.scale**2 if units.location else 1.0
            return PointMass(self.dispersion / unit)
        default = DISPERSION_PRIORS[self.family]
        return InverseGamma(
            *gamma_pair(self.dispersion_prior, default, "dispersion_prior")
        )

    def _response_totals(self, y, weight, offset):
        return TOTALS[self.family].of(y, weight, offset)

    # -- predictions -------------------------------------------------------------------

    @property
    def _dispersion_law(self):
        """(mean, variance) of the log dispersion in the data's units."""
        law, units = self._fitted_q.dispersion_law, self._fitted_units
        if law is None or not units.location:
            return law
        return law[0] + 2.0 * np.log(units.scale), law[1]

    def _predictive_laws(self, rows):
        likelihood = self._fitted_model.likelihood
        width = 1 if likelihood.concave else WIDTH_OF_STUDENT_LAW
        for some, mean, variance in self._predictors(rows, width):
            if not self._fitted_units.location:
                law = CountLaw(likelihood, mean, variance, self._dispersion_law)
            elif likelihood.concave:
                law = gaussian_law(mean, variance, self._dispersion_law)
            else:
                law = StudentLaw(likelihood.dof, mean, variance, self._dispersion_law)
            yield some, [law]

    def _predictive_mean(self, rows):
        out = np.empty(rows.shape[0])
        for some, mean, variance in self._predictors(rows):
            if not self._fitted_units.location:
                mean = np.exp(np.minimum(mean + 0.5 * variance, MOST_OF_MEANS))
            out[some] = mean
        return out

    def _predictive_covariances(self, rows):
        units, law = self._fitted_units, self._fitted_law
        Z = [
            self._fitted_frame.rows(rows.features[some]).dense()
            for some in rows.slices()
        ]
        covariance = units.scale**2 * law.inner(np.concatenate(Z))
        laws = [laws[0] for _, laws in self._predictive_laws(rows)]
        variance = np.concatenate([each.variance() for each in laws])
        if not units.location:
            mean = np.concatenate([each.mean for each in laws])
            covariance = np.outer(mean, mean) * np.expm1(covariance)
        covariance[np.diag_indices(len(variance))] = variance
        return [covariance]

    def _replicate(self, rows, n_samples, rng):
        draws = self._draw(n_samples, rng)
        weights = draws["coef"].T * self.X_scale_[:, None]
        level = draws["intercept"] + draws["coef"] @ self.X_offset_
        if self._fitted_frame.level:
            weights, level = np.append(weights, [level], axis=0), 0.0
        out = np.empty((rows.shape[0], n_samples))
        for some in rows.slices():
            Z = self._fitted_frame.rows(rows.features[some])
            out[some] = Z.dot(weights) + level + rows.offset[some, None]
        return self._noise(out, draws.get("dispersion"), rng)

    def _noise(self, eta, dispersion, rng):
        if self.family == "gaussian":
            return eta + np.sqrt(dispersion) * rng.standard_normal(eta.shape)
        if self.family == "student_t":
            t = rng.standard_t(self._fitted_model.likelihood.dof, eta.shape)
            return eta + np.sqrt(dispersion) * t
        rate = np.exp(np.minimum(eta, MOST))
        if dispersion is not None:
            rate = rate * rng.gamma(1.0 / dispersion, dispersion, rate.shape)
        return rng.poisson(np.minimum(rate, np.exp(MOST))).astype(np.float64)

    def _output_names(self):
        return None
