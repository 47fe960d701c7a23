"""`unwrap` gives the estimator at the end, and X as that estimator sees it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, StandardScaler

from skvi._unwrap import unwrap, unwrap_target

RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, (40, 3))
Y = np.exp(X @ [0.1, 0.2, -0.1] + 0.1 * RNG.normal(size=40))


def scale_and_ridge():
    return make_pipeline(StandardScaler(), PolynomialFeatures(2), Ridge())


def log_target(regressor):
    return TransformedTargetRegressor(regressor, func=np.log, inverse_func=np.exp)


def search(estimator, grid=None, **params):
    return GridSearchCV(estimator, grid or {}, cv=2, **params)


NESTINGS = {
    "bare": lambda: Ridge(),
    "Pipeline": scale_and_ridge,
    "Pipeline in Pipeline": lambda: make_pipeline(MinMaxScaler(), scale_and_ridge()),
    "GridSearchCV": lambda: search(Ridge(), {"alpha": [1.0, 2.0]}),
    "RandomizedSearchCV": lambda: RandomizedSearchCV(
        scale_and_ridge(), {"ridge__alpha": [1.0, 2.0]}, n_iter=2, cv=2, random_state=0
    ),
    "target": lambda: log_target(Ridge()),
    "target in search": lambda: search(log_target(scale_and_ridge())),
    "search in target": lambda: log_target(search(scale_and_ridge())),
    "search in Pipeline": lambda: make_pipeline(StandardScaler(), search(Ridge())),
    "target in Pipeline in search": lambda: search(
        make_pipeline(MinMaxScaler(), None, log_target(scale_and_ridge()))
    ),
    "target in target": lambda: TransformedTargetRegressor(
        log_target(Ridge()), transformer=MinMaxScaler((1, 2))
    ),
}


@pytest.mark.parametrize("make", NESTINGS.values(), ids=NESTINGS)
def test_prediction_from_the_parts_is_prediction_of_the_whole(make):
    fitted = make().fit(X, Y)
    estimator, X_seen, target_transformers = unwrap_target(fitted, X)
    assert type(estimator) is Ridge
    prediction = estimator.predict(X_seen)
    for transformer in reversed(target_transformers):
        prediction = transformer.inverse_transform(prediction.reshape(-1, 1)).ravel()
    assert_allclose(prediction, fitted.predict(X), rtol=1e-12)
    public = unwrap(fitted, X)
    assert public[0] is estimator
    assert_allclose(public[1], X_seen)
    assert unwrap(fitted) == (estimator, None)


def test_target_transformers_come_outermost_first():
    fitted = NESTINGS["target in target"]().fit(X, Y)
    outer, inner = unwrap_target(fitted)[2]
    assert outer is fitted.transformer_
    assert inner is fitted.regressor_.transformer_


def test_bare_estimator_leaves_X_alone():
    estimator = Ridge().fit(X, Y)
    assert unwrap(estimator, X)[1] is X


def test_passthrough_on_the_way():
    fitted = Pipeline([("a", "passthrough"), ("b", None), ("c", Ridge())]).fit(X, Y)
    estimator, X_seen = unwrap(fitted, X)
    assert estimator is fitted[-1]
    assert X_seen is X


def test_pandas_output_flows():
    pytest.importorskip("pandas")
    pipeline = scale_and_ridge().set_output(transform="pandas").fit(X, Y)
    _, X_seen = unwrap(pipeline, X)
    assert list(X_seen.columns) == list(pipeline[-1].feature_names_in_)


@pytest.mark.parametrize("last", ["passthrough", None])
def test_last_step_that_is_no_estimator(last):
    pipeline = Pipeline([("scale", StandardScaler()), ("model", last)])
    with pytest.raises(
        ValueError, match=f"last step of the Pipeline, 'model', is {last!r}"
    ):
        unwrap(pipeline.fit(X, Y), X)


def test_search_without_refit():
    message = r"GridSearchCV was fitted with refit=False.*fit it with refit=True"
    with pytest.raises(ValueError, match=message):
        unwrap(search(Ridge(), refit=False).fit(X, Y))
    with pytest.raises(ValueError, match=message):
        unwrap(make_pipeline(search(Ridge(), refit=False)).fit(X, Y), X)


@pytest.mark.parametrize("make", NESTINGS.values(), ids=NESTINGS)
@pytest.mark.parametrize("rows", [None, X], ids=["without X", "with X"])
def test_not_fitted(make, rows):
    with pytest.raises(NotFittedError):
        unwrap(make(), rows)


def test_not_an_estimator():
    with pytest.raises(TypeError, match="not an estimator"):
        unwrap("ridge")


def test_a_transformer_at_the_end_is_the_estimator():
    fitted = make_pipeline(StandardScaler(), PCA(2)).fit(X)
    estimator, X_seen = unwrap(fitted, X)
    assert estimator is fitted[-1]
    assert_allclose(estimator.transform(X_seen), fitted.transform(X))


class CountingScaler(TransformerMixin, BaseEstimator):
    calls = 0

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        type(self).calls += 1
        self.fitted_  # noqa: B018, an AttributeError if it is not fitted
        return X


def test_an_unfitted_pipeline_is_found_out_before_its_steps_run():
    with pytest.raises(NotFittedError):
        unwrap(make_pipeline(CountingScaler(), LinearRegression()), X)


def test_without_X_nothing_is_transformed():
    pipeline = make_pipeline(CountingScaler(), LinearRegression()).fit(X, Y)
    before = CountingScaler.calls
    unwrap(pipeline)
    assert CountingScaler.calls == before
    unwrap(pipeline, X)
    assert CountingScaler.calls == before + 1
