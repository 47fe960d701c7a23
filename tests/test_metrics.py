"""The scorers: right numbers, in the user's units, wherever scikit-learn scores."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import logit
from sklearn import config_context
from sklearn.base import BaseEstimator, DensityMixin, RegressorMixin, clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.linear_model import LinearRegression
from sklearn.metrics import check_scoring, get_scorer
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    PowerTransformer,
    QuantileTransformer,
    StandardScaler,
)

from skvi.metrics import _log_jacobian, elbo_scorer, log_predictive_density_scorer

RNG = np.random.default_rng(0)
N = 60
X = RNG.normal(size=(N, 2))
Y = np.exp(0.5 + X @ [0.4, -0.2] + 0.3 * RNG.normal(size=N))
WEIGHT = RNG.integers(0, 4, size=N).astype(float)
EVERYTHING = [(np.arange(N), np.arange(N))]


class Normal(RegressorMixin, BaseEstimator):
    """Linear regression with known sd; its "ELBO" is the log likelihood of the fit."""

    def __init__(self, sd=1.0):
        self.sd = sd

    def fit(self, X, y, sample_weight=None):
        self.mean_ = LinearRegression().fit(X, y, sample_weight)
        self.n_samples_seen_ = len(X)
        weight = 1.0 if sample_weight is None else sample_weight
        self.elbo_ = np.sum(weight * self.log_predictive_density(X, y))
        return self

    def predict(self, X):
        return self.mean_.predict(X)

    def log_predictive_density(self, X, y):
        density = stats.norm.logpdf(y, self.mean_.predict(X), self.sd)
        return density if density.ndim == 1 else density.sum(axis=1)


class NormalDensity(DensityMixin, BaseEstimator):
    """A density with nothing but score_samples."""

    def fit(self, X, y=None):
        self.mean_ = np.mean(X, axis=0)
        return self

    def score_samples(self, X):
        return stats.norm.logpdf(X, self.mean_).sum(axis=1)


def log_target(regressor):
    return TransformedTargetRegressor(regressor, func=np.log, inverse_func=np.exp)


# Values


def test_density_of_y_is_a_mean_over_rows():
    model = Normal(sd=0.7).fit(X, Y)
    density = stats.norm.logpdf(Y, model.predict(X), 0.7)
    score = log_predictive_density_scorer(model, X, Y)
    assert isinstance(score, float)
    assert_allclose(score, density.mean(), rtol=1e-12)
    weighted = log_predictive_density_scorer(model, X, Y, sample_weight=WEIGHT)
    assert_allclose(weighted, np.repeat(density, WEIGHT.astype(int)).mean(), rtol=1e-12)
    assert abs(weighted - score) > 1e-3


@pytest.mark.parametrize("model", [NormalDensity(), GaussianMixture(random_state=0)])
def test_density_of_X(model):
    model.fit(X)
    expected = model.score_samples(X).mean()
    assert_allclose(log_predictive_density_scorer(model, X), expected, rtol=1e-12)
    assert_allclose(log_predictive_density_scorer(model, X, Y), expected, rtol=1e-12)


def test_scorers_look_through_pipeline_and_search():
    pipeline = make_pipeline(StandardScaler(), Normal())
    bare = Normal().fit(StandardScaler().fit_transform(X), Y)
    search = GridSearchCV(pipeline, {"normal__sd": [1.0]}, cv=3)
    expected = bare.log_predictive_density(StandardScaler().fit_transform(X), Y).mean()
    for fitted in (pipeline.fit(X, Y), search.fit(X, Y)):
        assert_allclose(log_predictive_density_scorer(fitted, X, Y), expected)
        assert_allclose(elbo_scorer(fitted, X, Y), bare.elbo_)


def test_elbo_looks_at_neither_X_nor_y():
    model = Normal().fit(X, Y)
    assert elbo_scorer(model, X, Y) == model.elbo_
    assert elbo_scorer(model, None) == model.elbo_
    assert elbo_scorer(model, X[:3], sample_weight=WEIGHT[:3]) == model.elbo_
    assert isinstance(elbo_scorer(model, None), float)


# Transformed targets


def test_log_target_is_the_lognormal_density():
    model = log_target(make_pipeline(StandardScaler(), Normal(sd=0.3))).fit(X, Y)
    mean = np.log(model.predict(X))
    density = stats.lognorm.logpdf(Y, s=0.3, scale=np.exp(mean))
    score = log_predictive_density_scorer(model, X, Y)
    assert_allclose(score, density.mean(), rtol=1e-9)
    weighted = log_predictive_density_scorer(model, X, Y, sample_weight=WEIGHT)
    assert_allclose(weighted, np.average(density, weights=WEIGHT), rtol=1e-9)
    assert_allclose(elbo_scorer(model, X, Y), density.sum(), rtol=1e-9)


def test_elbo_weighs_the_jacobian_as_the_fit_weighed_rows():
    model = log_target(Normal(sd=0.3)).fit(X, Y, sample_weight=WEIGHT)
    density = stats.lognorm.logpdf(Y, s=0.3, scale=model.predict(X))
    score = elbo_scorer(model, X, Y, sample_weight=WEIGHT)
    assert_allclose(score, np.sum(WEIGHT * density), rtol=1e-9)


@pytest.mark.parametrize("shift", [0.0, 1e9])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e12])
def test_standardised_target_is_the_normal_density(shift, scale):
    y = scale * (Y + shift)
    model = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), Normal(sd=0.5)), transformer=StandardScaler()
    ).fit(X, y)
    sd = model.transformer_.scale_[0]
    z = (y - model.transformer_.mean_[0]) / sd
    z_mean = model.regressor_.predict(X)
    density = stats.norm.logpdf(z, z_mean, 0.5) - np.log(sd)
    score = log_predictive_density_scorer(model, X, y)
    assert_allclose(score, density.mean(), rtol=1e-12)


def test_nested_targets_follow_the_chain_rule():
    y = 1 + 9 * Y
    model = TransformedTargetRegressor(
        log_target(Normal(sd=0.2)),
        func=lambda y: (y - 1) / 9,
        inverse_func=lambda z: 1 + 9 * z,
    ).fit(X, y)
    inner = log_target(Normal(sd=0.2)).fit(X, Y)
    expected = log_predictive_density_scorer(inner, X, Y) - np.log(9)
    assert_allclose(log_predictive_density_scorer(model, X, y), expected, rtol=1e-9)


def test_several_targets():
    two = np.column_stack([Y, 1e5 * X[:, 0]])
    model = TransformedTargetRegressor(Normal(), transformer=StandardScaler()).fit(
        X, two
    )
    sds = model.transformer_.scale_
    z = (two - two.mean(axis=0)) / sds
    expected = model.regressor_.log_predictive_density(X, z).mean() - np.log(sds).sum()
    assert_allclose(log_predictive_density_scorer(model, X, two), expected, rtol=1e-10)


G = RNG.normal(size=200)
COUNTS = np.append(RNG.poisson(2, 200).astype(float), 1e6)
SHARES = np.append(1 / (1 + np.exp(-5 * G)), [1e-12, 1 - 1e-9])


@pytest.mark.parametrize(
    ("func", "y", "derivative"),
    [
        (np.log, np.exp(5 * G), lambda y: 1 / y),
        (np.log, 1e-300 * np.exp(G), lambda y: 1 / y),
        (np.log1p, COUNTS, lambda y: 1 / (1 + y)),
        (logit, SHARES, lambda y: 1 / (y * (1 - y))),
        (np.sqrt, np.exp(G), lambda y: 0.5 / np.sqrt(y)),
        (np.reciprocal, G, lambda y: 1 / y**2),
        (np.arcsinh, np.append(1e6 * G, 0.0), lambda y: 1 / np.hypot(y, 1)),
        (lambda y: 3 - 2 * y, np.append(G, [0.0, 1e-14, 1e15]), lambda y: 2 + 0 * y),
        (np.log, np.array([2.0]), lambda y: 1 / y),
    ],
)
def test_jacobian_of_functions(func, y, derivative):
    transformer = FunctionTransformer(func).fit(y[:, None])
    computed = _log_jacobian(transformer, y[:, None])
    assert_allclose(computed, np.log(derivative(y)), atol=1e-8)


def test_jacobian_of_power_transforms():
    y = np.exp(G)[:, None]
    box_cox = PowerTransformer("box-cox", standardize=False).fit(y)
    expected = (box_cox.lambdas_[0] - 1) * G
    assert_allclose(_log_jacobian(box_cox, y), expected, atol=1e-8)
    y = np.append(G, 0.0)[:, None]
    power = PowerTransformer(standardize=False).fit(y)
    expected = np.sign(y[:, 0]) * (power.lambdas_[0] - 1) * np.log1p(np.abs(y[:, 0]))
    assert_allclose(_log_jacobian(power, y), expected, atol=1e-8)


def test_jacobian_of_targets_that_mix():
    turn = np.array([[1.0, 2.0], [-0.5, 3.0]])
    y = np.column_stack([G, G**2 + 1])
    computed = _log_jacobian(FunctionTransformer(lambda y: y @ turn).fit(y), y)
    assert_allclose(computed, np.log(4.0), atol=1e-9)


@pytest.mark.parametrize("scorer", [log_predictive_density_scorer, elbo_scorer])
def test_targets_without_a_density(scorer):
    clipping = TransformedTargetRegressor(
        Normal(), transformer=QuantileTransformer(n_quantiles=10), check_inverse=False
    ).fit(X, Y)
    beyond = np.append(Y[1:], 100.0)
    with pytest.raises(ValueError, match=r"no finite non-zero derivative at y = \[100"):
        scorer(clipping, X, beyond)
    fewer = TransformedTargetRegressor(
        Normal(),
        transformer=FunctionTransformer(lambda y: y[:, :1], lambda y: y),
        check_inverse=False,
    ).fit(X, np.column_stack([Y, Y]))
    with pytest.raises(ValueError, match=r"as many targets as before"):
        scorer(fewer, X, np.column_stack([Y, Y]))


# Model selection


def test_search_chooses_the_target_transform():
    model = TransformedTargetRegressor(Normal(sd=0.3), check_inverse=False)
    grid = {
        "transformer": [
            FunctionTransformer(),
            FunctionTransformer(np.log, np.exp),
            FunctionTransformer(lambda y: 1e3 * y, lambda y: y / 1e3),
        ]
    }
    by_density = GridSearchCV(model, grid, scoring=log_predictive_density_scorer, cv=3)
    by_elbo = GridSearchCV(model, grid, scoring=elbo_scorer, cv=EVERYTHING)
    for search in (by_density.fit(X, Y), by_elbo.fit(X, Y)):
        assert search.best_params_["transformer"].func is np.log
    # One fit on everything: the two scores are the same but for the mean.
    both = cross_validate(
        log_target(Normal(sd=0.3)),
        X,
        Y,
        scoring={"lpd": log_predictive_density_scorer, "elbo": elbo_scorer, "r2": "r2"},
        cv=EVERYTHING,
        error_score="raise",
    )
    assert_allclose(both["test_elbo"], N * both["test_lpd"], rtol=1e-9)
    assert 0 < both["test_r2"][0] < 1


def test_search_by_elbo_chooses_the_sd():
    residual = Y - LinearRegression().fit(X, Y).predict(X)
    sds = [0.1, float(residual.std()), 5.0]
    search = GridSearchCV(Normal(), {"sd": sds}, scoring=elbo_scorer, cv=EVERYTHING)
    search.fit(X, Y)
    assert search.best_params_["sd"] == sds[1]
    assert_allclose(search.best_score_, search.best_estimator_.elbo_)
    assert_allclose(search.score(X[:5], Y[:5]), search.best_estimator_.elbo_)


def test_cross_validation():
    scores = cross_val_score(
        Normal(), X, Y, scoring=log_predictive_density_scorer, cv=3, error_score="raise"
    )
    parts = np.split(np.arange(N), 3)
    for test, score in zip(parts, scores, strict=True):
        train = np.setdiff1d(np.arange(N), test)
        model = Normal().fit(X[train], Y[train])
        assert_allclose(score, model.log_predictive_density(X[test], Y[test]).mean())
    densities = cross_validate(
        NormalDensity(),
        X,
        scoring={
            "one": log_predictive_density_scorer,
            "two": log_predictive_density_scorer,
        },
        error_score="raise",
    )
    assert_allclose(densities["test_one"], densities["test_two"])


def test_weights_reach_the_scorer_of_a_search():
    search = GridSearchCV(
        Normal(), {"sd": [1.0]}, scoring=log_predictive_density_scorer, cv=EVERYTHING
    ).fit(X, Y, sample_weight=WEIGHT)
    expected = np.average(
        search.best_estimator_.log_predictive_density(X, Y), weights=WEIGHT
    )
    assert_allclose(search.best_score_, expected, rtol=1e-12)


@pytest.mark.parametrize("scorer", [log_predictive_density_scorer, elbo_scorer])
def test_metadata_routing(scorer):
    with config_context(enable_metadata_routing=True):
        model = log_target(Normal().set_fit_request(sample_weight=True))
        fitted = model.fit(X, Y, sample_weight=WEIGHT)
        arguments = {"cv": EVERYTHING, "params": {"sample_weight": WEIGHT}}
        with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
            cross_validate(model, X, Y, scoring=scorer, **arguments)
        for request in (True, False):
            asks = copy.deepcopy(scorer).set_score_request(sample_weight=request)
            asks = pickle.loads(pickle.dumps(asks))
            weight = WEIGHT if request else None
            expected = scorer(fitted, X, Y, sample_weight=weight)
            r2 = get_scorer("r2").set_score_request(sample_weight=False)
            for scoring in (asks, {"score": asks, "r2": r2}):
                scores = cross_validate(model, X, Y, scoring=scoring, **arguments)
                assert_allclose(scores["test_score"], expected)
    # The requests were made on copies.
    assert not hasattr(scorer, "_metadata_request")


# The interface


@pytest.mark.parametrize("scorer", [log_predictive_density_scorer, elbo_scorer])
def test_interface(scorer):
    model = Normal().fit(X, Y)
    name = repr(scorer)
    assert name in ("log_predictive_density_scorer", "elbo_scorer")
    for other in (
        pickle.loads(pickle.dumps(scorer)),
        clone(scorer, safe=False),
        check_scoring(model, scorer),
    ):
        assert repr(other) == name
        assert other(model, X, Y) == scorer(model, X, Y)
    search = GridSearchCV(Normal(), {"sd": [1.0]}, scoring=scorer)
    assert name in repr(search)
    clone(search).fit(X, Y)
    with pytest.raises(
        ValueError, match=f"{name} is only supported if enable_metadata"
    ):
        scorer(model, X, Y, groups=WEIGHT)
    with pytest.raises(RuntimeError, match="only available when metadata routing"):
        scorer.set_score_request(sample_weight=True)


def test_refusals():
    linear = LinearRegression().fit(X, Y)
    with pytest.raises(TypeError, match=r"log_predictive_density\(X, y\) .* LinearReg"):
        log_predictive_density_scorer(linear, X, Y)
    with pytest.raises(TypeError, match="got IsolationForest"):
        log_predictive_density_scorer(IsolationForest(n_estimators=5).fit(X), X)
    with pytest.raises(TypeError, match=r"attribute elbo_, got LinearRegression; use"):
        elbo_scorer(make_pipeline(StandardScaler(), linear).fit(X, Y), X, Y)
    model = Normal().fit(X, Y)
    with pytest.raises(ValueError, match="got y=None, but Normal predicts a target"):
        log_predictive_density_scorer(model, X)
    model = log_target(model).fit(X, Y)
    for scorer in (log_predictive_density_scorer, elbo_scorer):
        with pytest.raises(
            ValueError, match="got y=None, but the target is transformed"
        ):
            scorer(model, X)
    with pytest.raises(
        ValueError, match=r"got 50 rows, but Normal was fitted to 60.*cv="
    ):
        elbo_scorer(model, X[:50], Y[:50])


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (WEIGHT[:5], r"must have shape \(60,\), one weight a row, got shape \(5,\)"),
        (np.zeros(N), "positive sum, got values from 0.0 to 0.0"),
        (WEIGHT - 1, "non-negative .* got values from -1.0"),
        (np.full(N, np.nan), "must be finite"),
    ],
)
def test_bad_weights(weight, message):
    model = Normal().fit(X, Y)
    with pytest.raises(ValueError, match="sample_weight .*" + message):
        log_predictive_density_scorer(model, X, Y, sample_weight=weight)


def test_one_density_a_row():
    class PerTarget(Normal):
        def log_predictive_density(self, X, y):
            return stats.norm.logpdf(y, self.mean_.predict(X), self.sd)

    two = np.column_stack([Y, Y])
    with pytest.raises(
        ValueError, match=r"array of shape \(60, 2\); sum over the targ"
    ):
        log_predictive_density_scorer(PerTarget().fit(X, two), X, two)
