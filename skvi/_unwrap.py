"""From what a user fitted (Pipeline, search, target transform) to the estimator."""

from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skvi._sklearn import BaseSearchCV


def unwrap(fitted, X=None):
    """Return the last estimator in `fitted`, and X as that estimator sees it.

    Opens any nesting of :class:`~sklearn.pipeline.Pipeline`, a search such as
    :class:`~sklearn.model_selection.GridSearchCV` (its ``best_estimator_``) and
    :class:`~sklearn.compose.TransformedTargetRegressor` (its ``regressor_``). Any
    other estimator is returned as it is, with X untouched.

    Parameters
    ----------
    fitted : estimator
        A fitted estimator, bare or wrapped.

    X : array-like, sparse matrix, DataFrame or None, default=None
        Rows as `fitted` takes them. They pass through the transformers of every
        Pipeline on the way; an output set by ``set_output`` stays what it is.

    Returns
    -------
    estimator : estimator
        The fitted estimator at the end.

    X : array-like, sparse matrix, DataFrame or None
        The rows that `estimator` sees; None if X is None.

    Notes
    -----
    Behind a TransformedTargetRegressor the estimator knows only the transformed
    target: its predictions and densities are in those units.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.linear_model import BayesianRidge
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import PolynomialFeatures
    >>> from skvi import unwrap
    >>> X, y = load_diabetes(return_X_y=True)
    >>> pipeline = make_pipeline(PolynomialFeatures(), BayesianRidge())
    >>> grid = {"polynomialfeatures__degree": [1, 2]}
    >>> search = GridSearchCV(pipeline, grid, cv=3).fit(X, y)
    >>> estimator, X_seen = unwrap(search, X)
    >>> estimator
    BayesianRidge()
    >>> X_seen.shape
    (442, 66)
    """
    estimator, X, _ = unwrap_target(fitted, X)
    return estimator, X


def unwrap_target(fitted, X=None):
    """`unwrap`, and the target transformers met on the way.

    Parameters
    ----------
    fitted : estimator
        A fitted estimator, bare or wrapped.

    X : array-like, sparse matrix, DataFrame or None, default=None
        Rows as `fitted` takes them.

    Returns
    -------
    estimator : estimator
        The fitted estimator at the end.

    X : array-like, sparse matrix, DataFrame or None
        The rows that `estimator` sees; None if X is None.

    target_transformers : list of fitted transformers
        In the order in which they turn the user's y into the estimator's y.
    """
    target_transformers = []
    while True:
        if isinstance(fitted, Pipeline):
            fitted, X = _open_pipeline(fitted, X)
        elif isinstance(fitted, BaseSearchCV):
            fitted = _open_search(fitted)
        elif isinstance(fitted, TransformedTargetRegressor):
            check_is_fitted(fitted)
            target_transformers.append(fitted.transformer_)
            fitted = fitted.regressor_
        else:
            check_is_fitted(fitted)
            return fitted, X, target_transformers


def _open_pipeline(pipeline, X):
    *transformers, (name, last) = pipeline.steps
    if _passes_through(last):
        raise ValueError(
            f"The last step of the Pipeline, {name!r}, is {last!r}, so there is no "
            "estimator to unwrap; end the Pipeline with an estimator."
        )
    check_is_fitted(pipeline)
    if X is not None:
        for _, transformer in transformers:
            if not _passes_through(transformer):
                X = transformer.transform(X)
    return last, X


def _open_search(search):
    check_is_fitted(search)
    if not hasattr(search, "best_estimator_"):
        raise ValueError(
            f"{type(search).__name__} was fitted with refit={search.refit!r}, so it "
            "kept no estimator (best_estimator_) to unwrap; fit it with refit=True, "
            "or with refit='<name of a score>' where it has several."
        )
    return search.best_estimator_


def _passes_through(step):
    return step is None or (isinstance(step, str) and step == "passthrough")
