"""Scorers for model selection: predictive density, and the ELBO.

Both have scikit-learn's scorer interface, so they go wherever `scoring` goes, and both
look through Pipelines, searches and target transforms (:func:`skvi.unwrap`).
"""

import numpy as np
from sklearn.base import is_outlier_detector
from sklearn.utils import check_array

from skvi._sklearn import BaseScorer, raise_for_params
from skvi._unwrap import unwrap_target

__all__ = ["elbo_scorer", "log_predictive_density_scorer"]


class _Scorer(BaseScorer):
    """scikit-learn's scorer interface around a score of the fitted estimator."""

    def __init__(self, name, score_func):
        # Metadata routing reads the request for sample_weight off `score_func`. Every
        # estimator has the response method "fit"; neither score is a function of
        # predictions, and scikit-learn only asks whether the method is there.
        super().__init__(score_func, sign=1, kwargs={}, response_method="fit")
        self._name = name

    def __repr__(self):
        return self._name

    def __call__(self, estimator, X, y=None, *, sample_weight=None, **kwargs):
        """Score a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator, bare or wrapped.

        X : array-like of shape (n_samples, n_features)
            Rows as `estimator` takes them.

        y : array-like, default=None
            Targets in the user's units.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights that count rows.

        **kwargs : dict
            Metadata requested by ``set_score_request``.

        Returns
        -------
        score : float
            In nats; higher is better.
        """
        raise_for_params(kwargs, self, None)
        if sample_weight is not None:
            kwargs["sample_weight"] = sample_weight
        return self._score(None, estimator, X, y, **kwargs)


class _LogPredictiveDensityScorer(_Scorer):
    """Mean log density of held-out rows, in nats a row.

    The score is the mean over rows, weighted by `sample_weight`, of

    - ``estimator.log_predictive_density(X, y)`` where the estimator has that method:
      the log density (or log probability) of each y given its X;
    - ``estimator.score_samples(X)`` otherwise: the log density of each row of X.

    `estimator` is the last one in a Pipeline or search. The density of y is that of y
    in the user's units: where a TransformedTargetRegressor is on the way, the log of
    the derivative of its transformer at y is added. The transformer has to be smooth
    and strictly monotone (for several targets: smooth and invertible) at each y. The
    density of X, on the other hand, is that of the rows that the estimator sees, as in
    ``Pipeline.score_samples``; compare it between models of equally transformed X.

    ``set_score_request`` changes this object, as it does for every scorer; use a
    ``copy.deepcopy`` of it for requests that hold in one place only.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skvi.metrics import log_predictive_density_scorer
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(-4, 1, (100, 1)), rng.normal(4, 1, (100, 1))])
    >>> search = GridSearchCV(
    ...     GaussianMixture(random_state=0),
    ...     {"n_components": [1, 2]},
    ...     scoring=log_predictive_density_scorer,
    ... )
    >>> search.fit(rng.permutation(X)).best_params_
    {'n_components': 2}
    """

    def _score(self, method_caller, estimator, X, y_true=None, **kwargs):
        estimator, X, target_transformers = unwrap_target(estimator, X)
        y, log_jacobian = y_true, 0.0
        if target_transformers:
            y, log_jacobian = _transform_target(target_transformers, y_true, self)
        log_density = np.asarray(_log_density(estimator, X, y, self), dtype=float)
        if log_density.ndim != 1:
            raise ValueError(
                f"{self!r} needs one log density a row, but "
                f"{type(estimator).__name__} gave an array of shape "
                f"{log_density.shape}; sum over the targets of a row."
            )
        return float(self._score_func(log_density + log_jacobian, **kwargs))


class _ElboScorer(_Scorer):
    """The ELBO of the fit, on the data it was fitted to, in nats.

    The score is the fitted attribute ``elbo_`` of the last estimator in a Pipeline or
    search. It takes the place of a held-out score, so let the search fit and "test" on
    all rows, as in the example. X and y are not looked at, with one exception: where a
    TransformedTargetRegressor is on the way, ``elbo_`` is the ELBO of the transformed
    y, and the log of the transformer's derivative is added, summed over the rows, so
    that models with different target transforms compare. That sum must run over the
    training rows: y must be the y of the fit, and `sample_weight` its weights. An error
    is raised where the estimator knows its number of rows (``n_samples_seen_``) and y
    has another; otherwise it is for the user to see to.

    ELBOs compare between fits to the same rows and weights, and, in a Pipeline, for an
    estimator that models X itself, to equally transformed X.

    ``set_score_request`` changes this object, as it does for every scorer; use a
    ``copy.deepcopy`` of it for requests that hold in one place only.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skvi import VariationalBayesianRegression
    >>> from skvi.metrics import elbo_scorer
    >>> X, y = load_diabetes(return_X_y=True)
    >>> everything = np.arange(len(X))
    >>> search = GridSearchCV(
    ...     VariationalBayesianRegression(),
    ...     {"posterior": ["mean_field", "structured"]},
    ...     scoring=elbo_scorer,
    ...     cv=[(everything, everything)],
    ... )
    >>> search.fit(X, y).best_params_
    {'posterior': 'structured'}
    """

    def _score(self, method_caller, estimator, X, y_true=None, **kwargs):
        estimator, _, target_transformers = unwrap_target(estimator)
        if not hasattr(estimator, "elbo_"):
            raise TypeError(
                f"{self!r} needs an estimator with the fitted attribute elbo_, got "
                f"{type(estimator).__name__}; use a variational estimator of skvi, or "
                "log_predictive_density_scorer."
            )
        if not target_transformers:
            return float(estimator.elbo_)
        _, log_jacobian = _transform_target(target_transformers, y_true, self)
        n_fitted = getattr(estimator, "n_samples_seen_", len(log_jacobian))
        if n_fitted != len(log_jacobian):
            raise ValueError(
                f"{self!r} got {len(log_jacobian)} rows, but "
                f"{type(estimator).__name__} was fitted to {n_fitted}. With a "
                "transformed target the ELBO can only be scored on the rows of the "
                "fit; search with cv=[(everything, everything)], where "
                "everything=np.arange(n_samples)."
            )
        return float(estimator.elbo_ + self._score_func(log_jacobian, **kwargs))


def _mean(values, sample_weight=None):
    return np.average(values, weights=_check_weight(sample_weight, len(values)))


def _sum(values, sample_weight=None):
    return np.sum(values * _check_weight(sample_weight, len(values)))


log_predictive_density_scorer = _LogPredictiveDensityScorer(
    "log_predictive_density_scorer", _mean
)
elbo_scorer = _ElboScorer("elbo_scorer", _sum)


def _check_weight(sample_weight, n_samples):
    if sample_weight is None:
        return np.ones(n_samples)
    weight = np.asarray(sample_weight, dtype=float)
    if weight.shape != (n_samples,):
        raise ValueError(
            f"sample_weight must have shape ({n_samples},), one weight a row, got "
            f"shape {weight.shape}."
        )
    if not (np.all(weight >= 0) and 0 < weight.sum() < np.inf):
        raise ValueError(
            "sample_weight must be finite and non-negative with a positive sum, got "
            f"values from {weight.min()} to {weight.max()}."
        )
    return weight


def _log_density(estimator, X, y, scorer):
    """Log density of each row: of y given X, or of X."""
    name = type(estimator).__name__
    if hasattr(estimator, "log_predictive_density"):
        if y is None:
            raise ValueError(
                f"{scorer!r} got y=None, but {name} predicts a target; pass y."
            )
        return estimator.log_predictive_density(X, y)
    # The score_samples of an outlier detector is a score on a scale of its own.
    if hasattr(estimator, "score_samples") and not is_outlier_detector(estimator):
        return estimator.score_samples(X)
    raise TypeError(
        f"{scorer!r} needs an estimator with the method log_predictive_density(X, y) "
        f"or score_samples(X) giving log densities, got {name}."
    )


# Densities under a transformed target:
# log p(y) = log p(transform(y)) + log |det d transform(y) / d y|


def _transform_target(transformers, y, scorer):
    """The estimator's y for the user's y, and the log Jacobian of each row."""
    if y is None:
        raise ValueError(
            f"{scorer!r} got y=None, but the target is transformed on the way to the "
            "estimator; pass y."
        )
    y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
    one_target = y.ndim == 1
    y = y.reshape(len(y), -1)
    log_jacobian = np.zeros(len(y))
    for transformer in transformers:
        transformed = _apply(transformer, y)
        if transformed.shape != y.shape:
            raise ValueError(
                f"The target transformer {transformer} turns y of shape {y.shape} into "
                f"shape {transformed.shape}; a density needs as many targets as before."
            )
        log_jacobian += _log_jacobian(transformer, y)
        y = transformed
    return (y.ravel() if one_target else y), log_jacobian


def _apply(transformer, y):
    return np.asarray(transformer.transform(y), dtype=float).reshape(len(y), -1)


def _log_jacobian(transformer, y):
    """Log |det| of each row's derivative of the transformed targets by the targets."""
    jacobian = np.stack(
        [_derivative(transformer, y, j) for j in range(y.shape[1])], axis=2
    )
    log_jacobian = np.linalg.slogdet(jacobian)[1]
    singular = ~np.isfinite(log_jacobian)
    if singular.any():
        row = int(np.argmax(singular))
        raise ValueError(
            f"The target transformer {transformer} has no finite non-zero derivative "
            f"at y = {y[row]} (row {row}), so this y has no density; use a "
            "transformer that is smooth and strictly monotone over all of y."
        )
    return log_jacobian


def _derivative(transformer, y, j):
    """d transformed / d y[:, j] of each row, by central differences.

    A step has to be small beside the scale on which the transform bends and large
    beside rounding. Neither is known, and both differ from row to row: think of log
    near 0, or of a scaler far from it. So a ladder of steps is climbed down, from a
    fraction of |y| (which never changes y's sign, so log and Box-Cox stay defined) and
    from one of y's spread (for y at 0), and each entry keeps the extrapolated estimate
    with the smallest estimated error.
    """
    size = np.abs(y[:, j])
    spread = np.ptp(y[:, j]) or 1.0
    best = np.full(y.shape, np.nan)
    best_error = np.full(y.shape, np.inf)
    for scale in (size, np.full_like(size, spread)):
        coarse = np.full(y.shape, np.nan)
        for power in range(1, 21):
            fine, rounding = _central_difference(transformer, y, j, scale * 4.0**-power)
            with np.errstate(invalid="ignore"):
                # Steps shrink by 4, so the h^2 term of `coarse` is 16 times as large.
                correction = (fine - coarse) / 15
                error = np.abs(correction) + rounding
            better = error < best_error
            best = np.where(better, fine + correction, best)
            best_error = np.where(better, error, best_error)
            coarse = fine
    return best


def _central_difference(transformer, y, j, step):
    """Slope of the transform along target j, and its rounding error."""
    above, below = y.copy(), y.copy()
    above[:, j] += step
    below[:, j] -= step
    # The step that was really taken, after rounding.
    width = (above - below)[:, [j]]
    with np.errstate(all="ignore"):
        try:
            high, low = _apply(transformer, above), _apply(transformer, below)
        except ValueError:  # some row has left the transformer's domain
            return np.full(y.shape, np.nan), np.full(y.shape, np.nan)
        slope = (high - low) / width
        rounding = np.finfo(float).eps * (np.abs(high) + np.abs(low)) / width
    return slope, rounding
