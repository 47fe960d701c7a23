"""Classification with random effects of groups."""

import numpy as np
from scipy import special
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from skvi._sklearn import StrOptions, fit_context
from skvi.callbacks import fit_task
from skvi.estimators.base import as_generator, check_count, keeps_fit_on_error
from skvi.estimators.labels import log_probabilities_of
from skvi.estimators.mixed_effects import PARAMETERS, MixedEffectsModel
from skvi.likelihoods import BernoulliLogit, BernoulliProbit
from skvi.models.glm.units import ClassTotals
from skvi.models.mixed import variance_nodes

LINKS = {"logit": BernoulliLogit, "probit": BernoulliProbit}


class VariationalMixedEffectsClassifier(ClassifierMixin, MixedEffectsModel):
    r"""Two classes, with random effects of groups.

    Logistic or probit regression whose intercept and slopes vary by the levels of
    grouping factors, which borrow from one another (partial pooling):

    .. math::

        \eta_i = \mathrm{offset}_i + b + z_i^T w
            + \sum_f t_{fi}^T u_{f, g_f(i)}, \qquad
        P(y_i = 1) = \mathrm{link}^{-1}(\eta_i), \qquad
        u_{fg} \sim N(0, S_f)

    where z are the standardised columns and t a one and the slope columns over their
    standard deviations. ``w_j ~ N(0, 1 / weight_precision)``, ``b ~ N(0, 1 /
    intercept_precision)``; the priors of the covariances S_f are those of their
    standard deviations and correlations.

    Parameters
    ----------
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

    link : {"logit", "probit"}, default="logit"
        The inverse of the link is the logistic function, or the Gaussian's
        distribution function.

    offset : str or int, default=None
        Column of X to add to the linear predictor.

    sd_prior : tuple or dict, default=None
        Prior of the standard deviations of random effects among levels, in units
        of the linear predictor:
        ``("half_normal", scale)``, ``("half_t", scale, dof)``, ``("half_cauchy",
        scale)``, or ``("inverse_wishart", scale, dof)`` of the covariance matrix with
        scale matrix ``dof * diag(scale ** 2)``. The scale is a number, or one for each
        effect: the intercept's, then those of the slopes (for an sd of their column).
        A dict has one of these by name of factor. None is ``("half_t", 1.0, 3.0)``.

    correlation_concentration : float, default=1.0
        The concentration of the LKJ prior of correlations of intercepts and slopes:
        1 is uniform, more draws them to zero. An error where nothing reads it: without
        `random_slopes`, or with "inverse_wishart", which has its own.

    weight_precision : float or array-like of shape (n_features,), default=None
        Prior precision of the standardised columns' weights; None is 0.16, a
        standard deviation of 2.5.

    intercept_precision : float, default=None
        Prior precision of the level b, the linear predictor at the mean of X; None is
        0.04, a standard deviation of 5.

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
    coef_ : ndarray of shape (1, n_features)
        Posterior mean of the weights: the effects common to all groups.

    intercept_ : ndarray of shape (1,)
        Posterior mean of the linear predictor, without offset and random effects, at
        x = 0.

    coef_std_, intercept_std_ : ndarrays of shape (1, n_features), (1,)
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
        A table of the standard deviations and correlations among levels:
        ``names``, ``mean``, ``sd``, ``lower``, ``upper`` (95 %), ``log_mean``,
        ``log_sd``, and ``to_pandas()``.

    covariances_ : dict of str to ndarray of shape (n_effects, n_effects)
        Posterior mean of each factor's covariance matrix; infinite where its law has
        none.

    levels_ : dict of str to ndarray
        The levels of each factor, sorted, a missing one last.

    elbo_ : float
        Evidence lower bound in nats, every constant kept; comparable between fits to
        the same y and weights: of other features, groups, slopes, priors.

    elbo_terms_ : dict
        ``log_likelihood``, ``log_prior`` and ``entropy``, which sum to ``elbo_``.

    elbo_path_ : ndarray of shape (n_evaluations,)
        The ELBO by iteration, the starting point's first.

    posterior_ : distribution
        Variables ``coef``, ``level`` (the linear predictor at the mean of X), and for
        each factor ``effects_<name>`` and ``covariance_<name>``; with
        ``sample``, ``log_density``, ``entropy`` and ``covariance``.

    sd_prior_ : dict of str to tuple
        The prior of each factor, resolved.

    weight_precision_ : ndarray of shape (n_features,)
        Prior precisions of the weights.

    intercept_mean_, intercept_precision_ : float
        Mean and precision of the level's Gaussian prior.

    X_offset_, X_scale_ : ndarrays of shape (n_features,)
        Weighted means and standard deviations of the features.

    y_offset_, y_scale_ : float
        0 and 1: classes have no units.

    n_iter_ : int
        Iterations run.

    converged_ : bool
        Whether the fit converged.

    classes_ : ndarray of shape (2,)
        The classes; the second is the one that the linear predictor is for.

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
    VariationalMixedEffectsRegressor : Real responses, counts, successes of trials.
    VariationalLogisticClassifier : Without groups, with learnt shrinkage.

    Notes
    -----
    q is one Gaussian over weights and random effects (structured), times an inverse
    Wishart law for each covariance. With few rows a level and a large standard
    deviation among levels it understates that; linear response, which integrates the
    levels of a single factor with one or two effects by quadrature, corrects it.

    References
    ----------
    .. [1] J. T. Ormerod, M. P. Wand (2012). Gaussian variational approximate inference
       for generalized linear mixed models. Journal of Computational and Graphical
       Statistics 21(1), section 2.
    .. [2] R. Giordano, T. Broderick, M. I. Jordan (2018). Covariances, robustness, and
       variational Bayes. JMLR 19(51), eq. 9.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skvi import VariationalMixedEffectsClassifier
    >>> rng = np.random.default_rng(0)
    >>> clinic = rng.integers(0, 20, 400)
    >>> dose = rng.standard_normal(400)
    >>> eta = rng.normal(0, 1, 20)[clinic] + dose
    >>> y = rng.uniform(size=400) < 1 / (1 + np.exp(-eta))
    >>> X = pd.DataFrame({"dose": dose, "clinic": clinic})
    >>> model = VariationalMixedEffectsClassifier(groups="clinic").fit(X, y)
    >>> model.coef_.round(1)
    array([[1.]])
    >>> new = pd.DataFrame({"dose": [2.0, 2.0], "clinic": [3, 99]})
    >>> model.predict_proba(new).shape
    (2, 2)
    """

    _parameter_constraints = {
        **PARAMETERS,
        "link": [StrOptions(set(LINKS))],
    }

    def __init__(
        self,
        *,
        groups=None,
        random_slopes=None,
        posterior="structured",
        link="logit",
        offset=None,
        sd_prior=None,
        correlation_concentration=1.0,
        weight_precision=None,
        intercept_precision=None,
        fit_intercept=True,
        posterior_covariance="variational",
        max_iter=500,
        tol=1e-6,
        warm_start=False,
        verbose=False,
    ):
        self.groups = groups
        self.random_slopes = random_slopes
        self.posterior = posterior
        self.link = link
        self.offset = offset
        self.sd_prior = sd_prior
        self.correlation_concentration = correlation_concentration
        self.weight_precision = weight_precision
        self.intercept_precision = intercept_precision
        self.fit_intercept = fit_intercept
        self.posterior_covariance = posterior_covariance
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
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
            Labels of two classes.

        sample_weight : array-like of shape (n_samples,), default=None
            How many times each row counts: weight 2 is the row twice, in its group.

        Returns
        -------
        self : object
        """
        given = {"X": X, "y": y, "sample_weight": sample_weight}
        self._check_intercept("intercept_precision")
        rows, labels = self._validate(X, y, reset=True)
        check_classification_targets(labels)
        weight = self._weights(sample_weight, rows)
        classes = np.unique(labels[weight > 0.0])
        if len(classes) < 2 and np.any(weight > 0.0):
            raise ValueError(
                f"y holds one class only, {classes.tolist()}: a classifier needs "
                "samples of at least 2 classes."
            )
        if len(classes) > 2:
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"multiclass: y has {len(classes)} classes. Use "
                "VariationalLogisticClassifier, or make it one class against the rest."
            )
        y = (labels == classes[-1]).astype(np.float64) if len(classes) else labels
        with fit_task(self, **given) as task:
            self.classes_ = classes
            self._fit_rows(rows, y, weight, task)
        return self

    def _likelihood(self):
        return LINKS[self.link]()

    def _units(self, y, weight, offset):
        return ClassTotals.of(y, weight, offset).units(None, self.fit_intercept)

    # -- predictions -------------------------------------------------------------------

    def predict_log_proba(self, X, include_random=True):
        """Log probabilities of the classes, averaged over the posterior.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_columns)
            Rows.

        include_random : bool, default=True
            Whether to use the effects of levels that were seen in fit; effects of other
            levels are integrated over their distribution.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, 2)
            In the order of ``classes_``.
        """
        check_is_fitted(self)
        rows = self._rows(X, include_random)
        likelihood = self._fitted_model.likelihood
        out = np.empty((rows.shape[0], 2))
        for some, mean, variance, new, spread in self._predictors(rows):
            nodes, weights = variance_nodes(new, spread)
            if not new.any():
                nodes, weights = nodes[:, :1], np.ones(1)
            for k, sign in enumerate((-1.0, 1.0)):
                logs = [
                    likelihood.log_probability(sign * mean, variance + node)
                    for node in nodes.T
                ]
                out[some, k] = special.logsumexp(logs, axis=0, b=weights[:, None])
        return out

    def predict_proba(self, X, include_random=True):
        """Probabilities of the classes, averaged over the posterior.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_columns)
            Rows.

        include_random : bool, default=True
            As in ``predict_log_proba``.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, 2)
            In the order of ``classes_``.
        """
        return special.softmax(self.predict_log_proba(X, include_random), axis=1)

    def decision_function(self, X, include_random=True):
        """Log odds of the second class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_columns)
            Rows.

        include_random : bool, default=True
            As in ``predict_log_proba``.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Of the probabilities averaged over the posterior.
        """
        logs = self.predict_log_proba(X, include_random)
        return logs[:, 1] - logs[:, 0]

    def predict(self, X, include_random=True):
        """The more probable class of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_columns)
            Rows.

        include_random : bool, default=True
            As in ``predict_log_proba``.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        scores = self.decision_function(X, include_random)
        return self.classes_[(scores > 0.0).astype(np.intp)]

    def log_predictive_density(self, X, y, include_random=True):
        """Log probability of each row's label given the training data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_columns)
            Rows.

        y : array-like of shape (n_samples,)
            Labels, each one of ``classes_``.

        include_random : bool, default=True
            As in ``predict_log_proba``.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
        """
        logs = self.predict_log_proba(X, include_random)
        return log_probabilities_of(logs, y, self.classes_)

    def sample_y(self, X, n_samples=1, random_state=None, include_random=True):
        """Draw new labels from the posterior predictive law, jointly over rows.

        Parameters
        ----------
        X : array-like of shape (n_samples_X, n_columns)
            Rows.

        n_samples : int, default=1
            Number of draws.

        random_state : int, RandomState instance or None, default=None
            Determines the draws.

        include_random : bool, default=True
            As in ``predict_log_proba``.

        Returns
        -------
        y_samples : ndarray of shape (n_samples_X, n_samples)
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples")
        rows = self._rows(X, include_random)
        rng = as_generator(random_state)
        eta, _ = self._replicated(rows, int(n_samples), rng)
        probability = np.exp(self._fitted_model.likelihood.log_density(1.0, eta))
        return self.classes_[
            (rng.uniform(size=eta.shape) < probability).astype(np.intp)
        ]
