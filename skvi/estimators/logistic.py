"""Bayesian logistic, probit and multinomial classification for scikit-learn."""

import numpy as np
from scipy import special
from sklearn.base import ClassifierMixin
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from skvi._sklearn import StrOptions, fit_context
from skvi.callbacks import fit_task
from skvi.estimators.base import VariationalEstimator, keeps_fit_on_error
from skvi.estimators.generalized import PARAMETERS, GeneralizedLinearModel
from skvi.estimators.labels import log_probabilities_of
from skvi.likelihoods import BernoulliLogit, BernoulliProbit, Softmax
from skvi.models.glm.units import ClassTotals

CELLS = 1 << 23  # points times rows times classes that an expectation takes, about
POINTS = 1024, 512, 256  # of expectations of four classes and more
LINKS = {"logit": BernoulliLogit, "probit": BernoulliProbit}


class VariationalLogisticClassifier(ClassifierMixin, GeneralizedLinearModel):
    r"""Bayesian logistic, probit and multinomial classification.

    Probabilities are averaged over the posterior of the weights: far from the data they
    go to what the prior says instead of to 0 or 1. The weights come with posterior
    covariances, and the fit with an ELBO that is comparable between models.

    .. math::

        P(y_i = k) = \mathrm{softmax}_k(b_k + z_i^T w_k), \quad
        w_{kj} \sim N(0,\ 1/\lambda_j), \quad b_k \sim N(0,\ 1/\kappa), \quad
        \lambda_j \sim \mathrm{Gamma}

    for standardised columns z. Two classes have one weight vector, that of the second,
    and ``P(y_i = 1) = sigma(b + z_i'w)``.

    Parameters
    ----------
    posterior : {"structured", "mean_field"}, default="structured"
        The posterior family of the weights and the level.

        - "structured": one Gaussian with full covariance. With fewer rows than columns
          it is held in n x n matrices.
        - "mean_field": independent Gaussians. The means are nearly those of
          "structured"; the variances are too small where columns correlate.

    link : {"logit", "probit"}, default="logit"
        "probit", ``P(y_i = 1) = Phi(b + z_i'w)``, is for two classes.

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

    intercept_precision : None or float, default=None
        Prior precision kappa of the level, the linear predictor at the mean of X. None
        is 0.04: a standard deviation of 5.

    fit_intercept : bool, default=True
        Whether there is a level. Without one, nothing is centred and "standard
        deviation" of a column means its root mean square.

    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, which multiply `sample_weight`. "balanced" gives all
        classes the same total. They count rows, in ``elbo_`` too.

    posterior_covariance : {"variational", "linear_response"}, default="variational"
        What ``coef_covariance_``, ``coef_std_``, intervals and predictions are taken
        from: q itself, or its linear-response correction [3]_, which restores the
        correlations that a mean-field q leaves out and adds what lambda's uncertainty
        and the posterior's skewness contribute. ``posterior_``, ``elbo_`` and
        ``sample_posterior`` stay those of q.

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
    classes_ : ndarray of shape (n_classes,)
        The labels.

    coef_ : ndarray of shape (1, n_features) or (n_classes, n_features)
        Posterior mean of the weights: of the second of two classes, or of each.

    intercept_ : ndarray of shape (1,) or (n_classes,)
        Posterior mean of the linear predictor at x = 0.

    coef_std_, intercept_std_ : ndarrays of the shapes of ``coef_``, ``intercept_``
        Posterior standard deviations.

    coef_covariance_ : ndarray of shape (n, n), n = ``coef_.size``
        Posterior covariance of ``coef_.ravel()``, computed when asked for; a
        ``scipy.sparse.linalg.LinearOperator`` where "structured" had fewer rows than
        columns.

    weight_precision_ : float or ndarray of shape (n_features,)
        Posterior mean of lambda.

    elbo_ : float
        Evidence lower bound in nats, every constant kept; comparable between fits to
        the same y, X and weights.

    elbo_terms_ : dict
        ``log_likelihood``, ``log_prior`` and ``entropy``, which sum to ``elbo_``.

    elbo_path_ : ndarray of shape (n_evaluations,)
        The ELBO by iteration, the starting point's first.

    posterior_ : distribution
        Variables ``coef``, ``level`` (the linear predictor at the mean of X),
        ``weight_precision``; with ``sample``, ``log_density``,
        ``entropy`` and ``covariance``.

    weight_precision_prior_ : tuple (shape, rate) or None
        The prior of lambda; None where lambda was given.

    intercept_mean_, intercept_precision_ : float
        Mean and precision of the level's Gaussian prior.

    X_offset_, X_scale_ : ndarrays of shape (n_features,)
        Weighted means and standard deviations of the columns of X. A constant column
        has the scale of its absolute value, or 1.

    n_iter_ : int
        Iterations run.

    converged_ : bool
        Whether the fit converged.

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
    VariationalGLMRegressor : Counts, and real responses with outliers.
    sklearn.linear_model.LogisticRegression : The point estimate.

    Notes
    -----
    Columns are standardised by the estimator, so that scaling them changes nothing but
    units. Perfectly separated classes are no trouble: the prior keeps the posterior
    proper, and its width says how little the data do.

    lambda ~ Gamma(1, 1 / p) expects the p columns together to move the linear predictor
    by about one, with order-one width on the log scale. The rate of "ard" is
    smaller from 20 columns on: then most are expected not to matter. With many more
    columns than rows the bound of "ard" pays some nats a column for holding w and its
    lambda independent: compare it with "ridge" by held-out scores rather than by
    ``elbo_``.

    Natural-gradient steps are Newton's method with the curvature averaged over q: an
    iteration costs n p^2 (K^2 times that for K > 2 classes; n^3, or n^2 p with "ard",
    for n < p; p^3 in ``partial_fit``), and five to ten are usual. Expectations of one
    linear predictor are taken by Gauss-Hermite quadrature to about 1e-12; those of the
    softmax by a product of such rules for three classes and by 1024 quasi-random points
    for more (down to 256 for many rows, whose errors average out): 1e-3 nats a row or
    so where predictors have sds of one and a half.

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
    >>> from sklearn.datasets import load_breast_cancer
    >>> from skvi import VariationalLogisticClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = VariationalLogisticClassifier().fit(X[:300], y[:300])
    >>> print(f"{model.elbo_:.1f} {model.score(X[300:], y[300:]):.3f}")
    -46.5 0.974
    >>> model.predict_proba(X[300:302]).round(3)
    array([[1.   , 0.   ],
           [0.002, 0.998]])

    Twenty standard deviations from the data, where the best weights alone are certain:

    >>> far = X[:300].mean(axis=0)
    >>> far[::5] += 20 * X[:300].std(axis=0)[::5]
    >>> model.predict_proba([far]).round(2)
    array([[0.85, 0.15]])
    >>> print(f"{(far @ model.coef_.T + model.intercept_).item():.0f}")
    -38
    """

    _parameter_constraints = {
        **VariationalEstimator._parameter_constraints,
        **PARAMETERS,
        "link": [StrOptions(set(LINKS))],
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }
    _parts_are_scalar = False

    def __init__(
        self,
        *,
        posterior="structured",
        link="logit",
        prior="ridge",
        weight_precision=None,
        weight_precision_prior=None,
        intercept_precision=None,
        fit_intercept=True,
        class_weight=None,
        posterior_covariance="variational",
        max_iter=500,
        tol=1e-6,
        learning_decay=0.7,
        learning_offset=1.0,
        warm_start=False,
        n_jobs=None,
        verbose=False,
    ):
        self.posterior = posterior
        self.link = link
        self.prior = prior
        self.weight_precision = weight_precision
        self.weight_precision_prior = weight_precision_prior
        self.intercept_precision = intercept_precision
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
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
        tags.classifier_tags.multi_class = self.link == "logit"
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

        y : array-like of shape (n_samples,)
            Class labels.

        sample_weight : array-like of shape (n_samples,), default=None
            How many times each row counts: weight 2 is the row twice.

        Returns
        -------
        self : object
        """
        given = {"X": X, "y": y, "sample_weight": sample_weight}
        rows, y = self._validate(X, y, reset=True)
        labels = self._labels(y)
        weight = self._weights(sample_weight, rows)
        classes = np.unique(labels[weight > 0.0] if np.any(weight > 0.0) else labels)
        numbers, weight = self._numbers(labels, classes, weight)
        self._fitted_kept, self.classes_ = rows.kept, classes
        with fit_task(self, **given) as task:
            self._fit_rows(rows, numbers, weight, task)
            self.n_samples_seen_ = len(labels)
        return self

    @fit_context(prefer_skip_nested_validation=True)
    @keeps_fit_on_error
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Move the posterior by a block of rows that belongs to a larger data set.

        A step of stochastic variational inference: the block's sites, scaled up to all
        rows seen so far, are blended with those before, with the weight
        ``(learning_offset + t) ** -learning_decay`` for the t-th block. The first
        block is fitted to its end, so let it be a random one. Means and scales of the
        columns follow the running totals.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            New rows.

        y : array-like of shape (n_samples,)
            Their labels.

        classes : array-like of shape (n_classes,), default=None
            All labels that there will be; needed in the first call, where some are
            missing in y.

        sample_weight : array-like of shape (n_samples,), default=None
            How many times each row counts.

        Returns
        -------
        self : object
            ``elbo_`` is then an estimate, from the blended statistics.
        """
        given = {"X": X, "y": y, "sample_weight": sample_weight}
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' is not known before all rows are: with "
                "partial_fit pass a dict, such as that of "
                "sklearn.utils.class_weight.compute_class_weight."
            )
        first = self._is_first()
        self._check_stream()
        rows, y = self._validate(X, y, reset=first)
        labels = self._labels(y)
        known = np.unique(labels) if classes is None else np.unique(classes)
        if not first:
            if classes is not None and not np.array_equal(known, self.classes_):
                raise ValueError(
                    f"classes={classes!r} differ from those of the first call, "
                    f"{self.classes_}: leave classes=None, or call fit to start anew."
                )
            known = self.classes_
        unknown = np.setdiff1d(labels, known)
        if unknown.size:
            raise ValueError(
                f"y holds {unknown.tolist()}, which are not among the classes "
                f"{known.tolist()}: pass classes=... with all labels in the first call "
                "of partial_fit."
            )
        weight = self._weights(sample_weight, rows)
        numbers, weight = self._numbers(labels, known, weight)
        self._fitted_kept, self.classes_ = rows.kept, known
        n_seen = len(labels) + (0 if first else self.n_samples_seen_)
        with fit_task(self, **given) as task:
            self._partial_fit_rows(rows, numbers, weight, task)
            self.n_samples_seen_ = n_seen
        return self

    @staticmethod
    def _labels(y):
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        return y

    def _numbers(self, labels, classes, weight):
        """Labels as numbers of classes, and weights with those of the classes."""
        if len(classes) < 2:
            raise ValueError(
                f"y holds one class only, {classes.tolist()}: a classifier needs "
                "samples of at least 2 classes."
            )
        if len(classes) > 2 and self.link != "logit":
            raise ValueError(
                f"link={self.link!r} is for two classes, but y has {len(classes)}: "
                "use link='logit'. Only binary classification is supported."
            )
        numbers = np.searchsorted(classes, labels)
        # Labels of weight zero only are no classes of the fit.
        numbers = np.minimum(numbers, len(classes) - 1)
        weight = np.where(classes[numbers] == labels, weight, 0.0)
        if self.class_weight is not None:
            counted = self.class_weight
            if isinstance(counted, dict):  # a fold may lack a rare class
                counted = {k: v for k, v in counted.items() if k in classes}
            each = compute_class_weight(
                counted,
                classes=classes,
                y=labels[np.isin(labels, classes)],
                sample_weight=weight[np.isin(labels, classes)],
            )
            if not np.all((each >= 0.0) & np.isfinite(each)):
                raise ValueError(
                    f"class_weight={self.class_weight!r} must hold finite numbers that "
                    "are not negative: they count rows."
                )
            weight = weight * each[numbers]
        return numbers.astype(np.float64), weight

    def _likelihood(self, n):
        K = len(self.classes_)
        if K > 2:
            few_enough = [m for m in POINTS if m * n * K <= CELLS]
            return Softmax(K, max(few_enough, default=min(POINTS)))
        return LINKS[self.link]()

    def _dispersion_prior(self, units):
        return None

    @staticmethod
    def _response_totals(y, weight, offset):
        return ClassTotals.of(y, weight, offset)

    # -- predictions -------------------------------------------------------------------

    def predict_log_proba(self, X):
        """Log probabilities of the classes, averaged over the posterior.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        check_is_fitted(self)
        rows, _ = self._validate(X)
        likelihood = self._fitted_model.likelihood
        out = np.empty((rows.shape[0], len(self.classes_)))
        for some, mean, variance in self._predictors(rows):
            if likelihood.n_outputs > 1:
                out[some] = likelihood.log_probabilities(mean, variance)
            else:
                out[some, 0] = likelihood.log_probability(-mean, variance)
                out[some, 1] = likelihood.log_probability(mean, variance)
        return out

    def predict_proba(self, X):
        """Probabilities of the classes, averaged over the posterior.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        return special.softmax(self.predict_log_proba(X), axis=1)

    def decision_function(self, X):
        """Log odds of the second of two classes, or log probabilities of more.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        scores : ndarray of shape (n_samples,) or (n_samples, n_classes)
            Of the probabilities averaged over the posterior.
        """
        logs = self.predict_log_proba(X)
        return logs[:, 1] - logs[:, 0] if logs.shape[1] == 2 else logs

    def predict(self, X):
        """The most probable class of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return self.classes_[(scores > 0.0).astype(np.intp)]
        return self.classes_[np.argmax(scores, axis=1)]

    def log_predictive_density(self, X, y):
        """Log probability of each row's label given the training data.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        y : array-like of shape (n_samples,)
            Labels, each one of ``classes_``.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
        """
        return log_probabilities_of(self.predict_log_proba(X), y, self.classes_)

    def _output_names(self):
        if len(self.classes_) == 2:
            return None
        return [str(label) for label in self.classes_]
