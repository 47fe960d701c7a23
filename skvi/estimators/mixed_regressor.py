"""Regression with random effects of groups."""

from numbers import Integral, Real

import numpy as np
from scipy import special
from sklearn.utils.validation import check_is_fitted

from skvi._sklearn import Interval, StrOptions, fit_context
from skvi.callbacks import fit_task
from skvi.distributions import LocationScaleMixture
from skvi.estimators.base import as_generator, check_count, keeps_fit_on_error
from skvi.estimators.mixed_effects import PARAMETERS, MixedEffectsModel, Rows
from skvi.estimators.prediction import PredictiveRegressorMixin
from skvi.likelihoods import Binomial, Gaussian, Poisson
from skvi.models.glm.predictive import AveragedLaw, BinomialLaw, CountLaw
from skvi.models.glm.units import ClassTotals, CountTotals, LocationTotals
from skvi.models.mixed import variance_nodes

LIKELIHOODS = {"gaussian": Gaussian, "poisson": Poisson, "binomial": Binomial}
TOTALS = {"gaussian": LocationTotals, "poisson": CountTotals, "binomial": ClassTotals}


class VariationalMixedEffectsRegressor(PredictiveRegressorMixin, MixedEffectsModel):
    r"""Linear, Poisson or binomial regression with random effects of groups.

    Levels of a grouping factor (subjects, schools, batches) have effects of their own,
    which are drawn from a common distribution whose spread is learnt, so that a level
    with few rows borrows from the others (partial pooling):

    .. math::

        \eta_i = \mathrm{offset}_i + b + z_i^T w
            + \sum_f t_{fi}^T u_{f, g_f(i)}, \qquad
        y_i \sim p(y \mid \eta_i), \qquad
        u_{fg} \sim N(0, S_f)

    where z are the standardised columns and t a one and the slope columns over their
    standard deviations. ``w_j ~ N(0, 1 / weight_precision)``, ``b ~ N(intercept_mean, 1
    / intercept_precision)``; the priors of the covariances S_f are those of their
    standard deviations and correlations.

    Parameters
    ----------
    family : {"gaussian", "poisson", "binomial"}, default="gaussian"
        "gaussian": noise of a learnt variance about eta, y in units of its standard
        deviation. "poisson": counts with log mean eta. "binomial": successes out of
        `trials`, with log odds eta.

    groups : str, int, tuple or list of these, default=None
        The grouping factors: columns of X, by name or position, that hold a level for
        each row, of any dtype. Several factors may be crossed or nested; a tuple of
        columns is a factor whose levels are their combinations, for codes that repeat,
        such as ``["school", ("school", "class")]``. A missing level counts as a level
        of its own. None: no random effects.

    random_slopes : str, int, list of these, or dict, default=None
        Features whose effect varies by group, beside the intercept and correlated with
        it; they stay features, too. A dict has them by entry of `groups`; otherwise
        they vary by every factor. Slopes are scaled but not centred: random
        intercepts are those where the column is zero.

    posterior : {"structured", "mean_field"}, default="structured"
        "structured" is one Gaussian over weights and all random effects; "mean_field"
        holds the weights, and the effects of each level, independent of one another,
        which understates their uncertainty.

    offset : str or int, default=None
        Column of X to add to the linear predictor.

    exposure : str or int, default=None
        Column of X whose logarithm is added; positive. For counts.

    trials : str or int, default=None
        Column of X with the number of trials of each row, for "binomial"; None is one.

    sd_prior : tuple or dict, default=None
        Prior of the standard deviations of random effects among levels, in units of
        ``y_scale_`` (of the linear predictor for counts):
        ``("half_normal", scale)``, ``("half_t", scale, dof)``, ``("half_cauchy",
        scale)``, or ``("inverse_wishart", scale, dof)`` of the covariance matrix with
        scale matrix ``dof * diag(scale ** 2)``. The scale is a number, or one for each
        effect: the intercept's, then those of the slopes (for an sd of their column).
        A dict has one of these by name of factor. None is ``("half_t", 1.0, 3.0)``.

    correlation_concentration : float, default=1.0
        The concentration of the LKJ prior of correlations of intercepts and slopes:
        1 is uniform, more draws them to zero. An error where nothing reads it: without
        `random_slopes`, or with "inverse_wishart", which has its own.

    noise_sd_prior : tuple, default=None
        The same for the standard deviation of Gaussian noise, with one scale. None is
        ``("inverse_wishart", 0.1, 1.0)``, which keeps it from zero where rows are
        fitted exactly.

    weight_precision : float or array-like of shape (n_features,), default=None
        Prior precision of the standardised columns' weights, in ``y_scale_``; None
        is 0.16, a standard deviation of 2.5.

    intercept_mean : float, default=None
        Prior mean of the level b, the linear predictor at the mean of X; None is the
        mean of y, the log of the mean rate, or 0 for "binomial".

    intercept_precision : float, default=None
        Prior precision of the level, in ``y_scale_``; None is 0.04, a standard
        deviation of 5.

    fit_intercept : bool, default=True
        Whether there is an intercept. If not, columns are not centred, either.

    posterior_covariance : {"variational", "linear_response"}, default="variational"
        "linear_response" corrects for what q holds independent, effects and variance
        components: the posterior of these is explored around what linear response
        says, and effects are averaged over it. This changes ``coef_covariance_``,
        standard deviations, intervals, ``variance_components_`` and, by a fraction of
        a standard deviation, means; never ``posterior_``, its draws, ``covariances_``
        or ``elbo_``. Needed where groups are few. It costs some ten solves for each
        variance component.

    max_iter : int, default=500
        Largest number of iterations.

    tol : float, default=1e-6
        Rise of the ELBO, in nats, below which it counts as having stopped. The fit must
        also have come to rest in posterior standard deviations.

    warm_start : bool, default=False
        Start from the variance components of the fit before.

    verbose : int or bool, default=False
        Print the ELBO, at more iterations if above 1.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,)
        Posterior mean of the weights: the effects common to all groups.

    intercept_ : float
        Posterior mean of the linear predictor, without offset and random effects, at
        x = 0.

    coef_std_, intercept_std_ : ndarray of shape (n_features,), float
        Posterior standard deviations.

    coef_covariance_ : ndarray of shape (n_features, n_features)
        Posterior covariance of the weights.

    random_effects_ : RandomEffects
        A table of the random effects (text, HTML, ``to_pandas()``) with columns group,
        level, effect, mean, sd and shrinkage. By name of a factor the arrays: ``mean``,
        ``sd`` and ``shrinkage`` of shape (n_levels, n_effects), ``levels``,
        ``effects``. Shrinkage is the posterior variance over that among levels: 0 where
        the level's own rows decide, 1 where it is as if it had none.

    variance_components_ : VarianceComponents
        A table of the standard deviations and correlations among levels and of the
        noise: ``names``, ``mean``, ``sd``, ``lower``, ``upper`` (95 %), ``log_mean``,
        ``log_sd``, and ``to_pandas()``.

    covariances_ : dict of str to ndarray of shape (n_effects, n_effects)
        Posterior mean of each factor's covariance matrix; infinite where its law has
        none.

    levels_ : dict of str to ndarray
        The levels of each factor, sorted, a missing one last.

    noise_variance_ : float
        Posterior mean of the variance of Gaussian noise.

    elbo_ : float
        Evidence lower bound in nats, every constant kept; comparable between fits to
        the same y and weights: of other features, groups, slopes, priors, families.

    elbo_terms_ : dict
        ``log_likelihood``, ``log_prior`` and ``entropy``, which sum to ``elbo_``.

    elbo_path_ : ndarray of shape (n_evaluations,)
        The ELBO by iteration, the starting point's first.

    posterior_ : distribution
        Variables ``coef``, ``level`` (the linear predictor at the mean of X), and for
        each factor ``effects_<name>`` and ``covariance_<name>``, and
        ``noise_variance``; with
        ``sample``, ``log_density``, ``entropy`` and ``covariance``.

    sd_prior_ : dict of str to tuple
        The prior of each factor, resolved.

    noise_sd_prior_ : tuple
        The prior of the noise, resolved; not there for counts.

    weight_precision_ : ndarray of shape (n_features,)
        Prior precisions of the weights.

    intercept_mean_, intercept_precision_ : float
        Mean and precision of the level's Gaussian prior.

    X_offset_, X_scale_ : ndarrays of shape (n_features,)
        Weighted means and standard deviations of the features.

    y_offset_, y_scale_ : float
        Mean and standard deviation of y (less its offset); 0 and 1 for counts.

    n_iter_ : int
        Iterations run.

    converged_ : bool
        Whether the fit converged.

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
        If `max_iter` iterations were not enough, or linear response is not defined.

    See Also
    --------
    VariationalMixedEffectsClassifier : Classes.
    VariationalGLMRegressor : Without groups, with learnt shrinkage.
    VariationalBayesianRegression : Without groups, with an exact posterior.

    Notes
    -----
    q is one Gaussian over weights and random effects (structured), times an inverse
    Wishart law for each covariance and for the noise variance. The precision of the
    Gaussian is an arrow: the factor with most effects is eliminated level by level, in
    time linear in its levels and rows; what is left, the weights and the further
    factors, is one dense matrix, so that a second factor with many thousand levels is
    slow (cubic) and large. With flat inverse Wishart priors the updates for Gaussian
    rows are the EM steps of restricted maximum likelihood.

    Binary or nearly binary rows with few rows a level and a large standard deviation
    among levels are where Gaussian approximations do worst: they understate it. Linear
    response, which integrates the levels of a single factor with one or two effects by
    quadrature, corrects that.

    References
    ----------
    .. [1] J. T. Ormerod, M. P. Wand (2012). Gaussian variational approximate inference
       for generalized linear mixed models. Journal of Computational and Graphical
       Statistics 21(1), section 2.
    .. [2] A. Gelman (2006). Prior distributions for variance parameters in hierarchical
       models. Bayesian Analysis 1(3), section 3.
    .. [3] R. Giordano, T. Broderick, M. I. Jordan (2018). Covariances, robustness, and
       variational Bayes. JMLR 19(51), eq. 9.

    Examples
    --------
    Five measurements of each of 30 subjects, who differ in level and slope:

    >>> import numpy as np
    >>> import pandas as pd
    >>> from skvi import VariationalMixedEffectsRegressor
    >>> rng = np.random.default_rng(0)
    >>> subject = np.repeat(np.arange(30), 5)
    >>> day = np.tile(np.arange(5.0), 30)
    >>> level, slope = rng.normal(10, 2, 30), rng.normal(1, 0.5, 30)
    >>> y = level[subject] + slope[subject] * day + rng.normal(0, 0.5, 150)
    >>> X = pd.DataFrame({"day": day, "subject": subject})
    >>> model = VariationalMixedEffectsRegressor(
    ...     groups="subject", random_slopes="day").fit(X, y)
    >>> model.coef_.round(1), model.coef_std_.round(2)
    (array([1.]), array([0.08]))
    >>> model.variance_components_
    Variance components (95% intervals)
    component ...
    >>> new = pd.DataFrame({"day": [2.0, 2.0], "subject": [3, 99]})
    >>> mean, std = model.predict(new, return_std=True)
    >>> std.round(1)  # a subject that was seen, and one that was not
    array([0.5, 1.8])
    """

    _parameter_constraints = {
        **PARAMETERS,
        "family": [StrOptions(set(LIKELIHOODS))],
        "exposure": [None, str, Integral],
        "trials": [None, str, Integral],
        "noise_sd_prior": [None, tuple, list],
        "intercept_mean": [None, Interval(Real, None, None, closed="neither")],
    }
    _roles = ("groups", "offset", "exposure", "trials")

    def __init__(
        self,
        *,
        family="gaussian",
        groups=None,
        random_slopes=None,
        posterior="structured",
        offset=None,
        exposure=None,
        trials=None,
        sd_prior=None,
        correlation_concentration=1.0,
        noise_sd_prior=None,
        weight_precision=None,
        intercept_mean=None,
        intercept_precision=None,
        fit_intercept=True,
        posterior_covariance="variational",
        max_iter=500,
        tol=1e-6,
        warm_start=False,
        verbose=False,
    ):
        self.family = family
        self.groups = groups
        self.random_slopes = random_slopes
        self.posterior = posterior
        self.offset = offset
        self.exposure = exposure
        self.trials = trials
        self.sd_prior = sd_prior
        self.correlation_concentration = correlation_concentration
        self.noise_sd_prior = noise_sd_prior
        self.weight_precision = weight_precision
        self.intercept_mean = intercept_mean
        self.intercept_precision = intercept_precision
        self.fit_intercept = fit_intercept
        self.posterior_covariance = posterior_covariance
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = self.family != "gaussian"
        return tags

    # -- fitting -----------------------------------------------------------------------

    @fit_context(prefer_skip_nested_validation=True)
    @keeps_fit_on_error
    def fit(self, X, y, sample_weight=None):
        """Fit the posterior.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_columns)
            Training rows, with the columns that have a role: pandas or polars frames,
            arrays.

        y : array-like of shape (n_samples,)
            Responses; counts, or successes, of those families.

        sample_weight : array-like of shape (n_samples,), default=None
            How many times each row counts: weight 2 is the row twice, in its group.

        Returns
        -------
        self : object
        """
        given = {"X": X, "y": y, "sample_weight": sample_weight}
        self._check_combination()
        rows, y = self._validate_pairs(X, y, True)
        weight = self._weights(sample_weight, rows)
        with fit_task(self, **given) as task:
            self._fit_rows(rows, y, weight, task)
        return self

    def _check_combination(self):
        def refuse(name, families):
            value = getattr(self, name)
            if value is not None and self.family not in families:
                raise ValueError(
                    f"{name}={value!r} means nothing with family={self.family!r}: "
                    "leave it None."
                )

        refuse("exposure", ["poisson"])
        refuse("trials", ["binomial"])
        refuse("noise_sd_prior", ["gaussian"])
        self._check_intercept("intercept_mean", "intercept_precision")

    def _validate_pairs(self, X, y, reset=False):
        rows, y = self._validate(X, y, reset=reset, y_numeric=True)
        y = np.asarray(y, dtype=np.float64)
        if self.family == "gaussian":
            return rows, y
        if y.size and y.min() < 0.0:
            row = int(np.argmin(y))
            raise ValueError(
                f"y must hold counts for family={self.family!r}, got {y[row]} at row "
                f"{row}: negative values are none. Use family='gaussian' for them."
            )
        if self.family == "binomial":
            self._check_trials(y, rows)
        return rows, y

    def _check_trials(self, y, rows):
        trials = self._trials(rows)
        for name, values in (("trials", trials), ("y", y)):
            broken = values != np.floor(values)
            if broken.any():
                row = int(np.argmax(broken))
                raise ValueError(
                    f"{name} must hold whole numbers for family='binomial', got "
                    f"{values[row]} at row {row}: y counts successes, and trials names "
                    "the column with the number of trials."
                )
        if np.any(y > trials):
            row = int(np.argmax(y > trials))
            raise ValueError(
                f"y[{row}]={y[row]} is more than its {trials[row]:g} trial(s): y "
                f"counts successes out of trials={self.trials!r}; name the column that "
                "holds the number of trials."
            )

    @staticmethod
    def _trials(rows):
        return np.ones(rows.shape[0]) if rows.trials is None else rows.trials

    @property
    def _has_noise(self):
        return self.family == "gaussian"

    def _likelihood(self):
        return LIKELIHOODS[self.family]()

    def _units(self, y, weight, offset):
        totals = TOTALS[self.family].of(y, weight, offset)
        return totals.units(self.intercept_mean, self.fit_intercept)

    def _response(self, y, rows):
        if self.family != "binomial":
            return y
        return np.column_stack([y, self._trials(rows)])

    # -- predictions -------------------------------------------------------------------

    def predict(
        self,
        X,
        return_std=False,
        return_cov=False,
        quantiles=None,
        include_random=True,
    ):
        """Predict y with its uncertainty, noise included.

        Rows of levels that were seen in fit use their effects; effects of other levels
        are integrated over their distribution.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_columns)
            Rows to predict, with the columns that have a role.

        return_std : bool, default=False
            Also return the standard deviation of a new y.

        return_cov : bool, default=False
            Also return the joint covariance of the new y of all rows.

        quantiles : array-like of shape (n_quantiles,) or float, default=None
            Return these quantiles of a new y in place of its mean.

        include_random : bool, default=True
            Whether to use the effects of levels that were seen. If not, every level
            counts as a new one: predictions for the population of groups.

        Returns
        -------
        y_mean : ndarray of shape (n_samples,)
            Predictive mean; not returned with `quantiles`.

        y_std : ndarray of shape (n_samples,)
            With ``return_std=True``.

        y_cov : ndarray of shape (n_samples, n_samples)
            With ``return_cov=True``.

        y_quantiles : ndarray of shape (n_samples, n_quantiles)
            With `quantiles`.
        """
        check_is_fitted(self)
        rows = self._rows(X, include_random)
        return super().predict(rows, return_std, return_cov, quantiles)

    def predict_interval(self, X, confidence_level=0.95, include_random=True):
        """Central interval that holds a new y with the given probability.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_columns)
            Rows to predict.

        confidence_level : float, default=0.95
            Probability of the interval, strictly between 0 and 1.

        include_random : bool, default=True
            As in ``predict``.

        Returns
        -------
        interval : ndarray of shape (n_samples, 2)
            Lower and upper end.
        """
        check_is_fitted(self)
        rows = self._rows(X, include_random)
        return super().predict_interval(rows, confidence_level)

    def sample_y(self, X, n_samples=1, random_state=None, include_random=True):
        """Draw new responses from the posterior predictive law, jointly over rows.

        Draws are those of ``posterior_``, whatever `posterior_covariance`.

        Parameters
        ----------
        X : array-like of shape (n_samples_X, n_columns)
            Rows.

        n_samples : int, default=1
            Number of draws.

        random_state : int, RandomState instance or None, default=None
            Determines the draws.

        include_random : bool, default=True
            As in ``predict``.

        Returns
        -------
        y_samples : ndarray of shape (n_samples_X, n_samples)
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples")
        rows = self._rows(X, include_random)
        return self._replicate(rows, int(n_samples), as_generator(random_state))

    def _validate_rows(self, X):
        return X if isinstance(X, Rows) else self._validate(X)[0]

    def _predictive_laws(self, rows):
        for some, mean, variance, new, spread in self._predictors(rows):
            yield some, [self._law(rows[some], mean, variance, new, spread)]

    def _law(self, rows, mean, variance, new, spread):
        if self.family == "gaussian":
            unit, fitted = self._fitted_units.scale, self._fitted_law
            noise, noise_spread = fitted.of_noise()
            nodes, weights = variance_nodes(new + noise, spread + noise_spread)
            scale = unit * np.sqrt(variance[:, None] + nodes)
            loc = np.broadcast_to(mean[:, None], scale.shape)
            normal = np.full(len(weights), np.inf)
            return LocationScaleMixture(weights, normal, loc, scale)
        if not new.any():
            return self._count_law(rows, mean, variance)
        nodes, weights = variance_nodes(new, spread)
        return AveragedLaw(
            weights, [self._count_law(rows, mean, variance + node) for node in nodes.T]
        )

    def _count_law(self, rows, mean, variance):
        if self.family == "binomial":
            return BinomialLaw(self._trials(rows), mean, variance)
        return CountLaw(self._fitted_model.likelihood, mean, variance)

    def _predictive_mean(self, rows):
        out = np.empty(rows.shape[0])
        for some, laws in self._predictive_laws(rows):
            out[some] = laws[0].mean
        return out

    def _predictive_covariances(self, rows):
        square = self._fitted_units.scale**2
        grouped, _ = self._predictor(rows)
        law = self._fitted_law
        covariance = square * (law.inner(grouped) + law.shared(grouped))
        laws = [laws[0] for _, laws in self._predictive_laws(rows)]
        variance = np.concatenate([each.variance() for each in laws])
        if self.family == "poisson":
            rate = np.concatenate([each.mean for each in laws])
            covariance = np.outer(rate, rate) * np.expm1(covariance)
        elif self.family == "binomial":
            # To first order in the log odds.
            share = np.concatenate([each.mean for each in laws]) / self._trials(rows)
            slope = self._trials(rows) * share * (1.0 - share)
            covariance = covariance * np.outer(slope, slope)
        covariance[np.diag_indices(len(variance))] = variance
        return [covariance]

    def log_predictive_density(self, X, y, include_random=True):
        """Log density of each y given its row and the training data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_columns)
            Rows.

        y : array-like of shape (n_samples,)
            Observed responses.

        include_random : bool, default=True
            As in ``predict``.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats.
        """
        check_is_fitted(self)
        rows, y = self._validate_pairs(X, y)
        rows.include_random = bool(include_random)
        y = self._response(y, rows)
        parts = [laws[0].log_density(y[s]) for s, laws in self._predictive_laws(rows)]
        return np.concatenate(parts)

    def _replicate(self, rows, n_samples, rng):
        eta, noise = self._replicated(rows, n_samples, rng)
        if self.family == "gaussian":
            return eta + np.sqrt(noise) * rng.standard_normal(eta.shape)
        if self.family == "poisson":
            return rng.poisson(np.exp(np.minimum(eta, 40.0))).astype(np.float64)
        trials = self._trials(rows).astype(np.int64)[:, None]
        return rng.binomial(trials, special.expit(eta)).astype(np.float64)
