"""VariationalLogisticClassifier and VariationalGLMRegressor against known truths."""

import json
import pickle
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import integrate, sparse, special, stats
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from conftest import data_path
from glm_cases import glm_log_joint
from skvi import (
    VariationalGLMRegressor,
    VariationalLogisticClassifier,
    unwrap,
)
from skvi.callbacks import StopWhen
from skvi.likelihoods import NegativeBinomial, Poisson
from skvi.linalg import DenseRows, SitePrecision
from skvi.metrics import elbo_scorer, log_predictive_density_scorer
from skvi.models.glm import site_response
from skvi.models.glm.predictive import CountLaw, StudentLaw

FAMILIES = ["poisson", "negative_binomial", "gaussian", "student_t"]
COUNTS = FAMILIES[:2]
CONTINUOUS = FAMILIES[2:]
CLASSIFIERS = {
    "logit": ({}, 2),
    "probit": ({"link": "probit"}, 2),
    "softmax": ({}, 3),
}
each_family = pytest.mark.parametrize("family", FAMILIES)
each_counts = pytest.mark.parametrize("family", COUNTS)
each_classifier = pytest.mark.parametrize("kind", CLASSIFIERS)
each_kind = pytest.mark.parametrize("kind", [*CLASSIFIERS, *FAMILIES])
each_posterior = pytest.mark.parametrize("posterior", ["structured", "mean_field"])


def estimator(kind, **params):
    if kind in CLASSIFIERS:
        return VariationalLogisticClassifier(**CLASSIFIERS[kind][0], **params)
    return VariationalGLMRegressor(family=kind, **params)


def simulate(kind, n, p, seed=0, strength=0.7):
    """X with correlated columns in various units, and a response of this kind."""
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((n, p))
    if p > 2:
        Z[:, 1] = 0.7 * Z[:, 0] + 0.7 * Z[:, 1]
    X = Z * np.exp(np.linspace(-1.0, 2.0, p)) + 2.0
    K = CLASSIFIERS[kind][1] if kind in CLASSIFIERS else 1
    W = strength * np.random.default_rng(100).standard_normal((p, K)) * 2 / np.sqrt(p)
    eta = Z @ W
    if kind in CLASSIFIERS:
        if K > 2:
            return X, np.argmax(eta + rng.gumbel(size=eta.shape), axis=1)
        noise = rng.standard_normal(n) if kind == "probit" else rng.logistic(size=n)
        return X, (eta[:, 0] + noise > 0.0).astype(int)
    eta = 0.5 + eta[:, 0]
    if kind == "poisson":
        return X, rng.poisson(np.exp(eta)).astype(float)
    if kind == "negative_binomial":
        return X, rng.poisson(np.exp(eta) * rng.gamma(2.0, 0.5, n)).astype(float)
    noise = rng.standard_t(4.0, n) if kind == "student_t" else rng.standard_normal(n)
    return X, 20.0 + 3.0 * (eta + 0.6 * noise)


def dense(covariance):
    if isinstance(covariance, np.ndarray) or np.ndim(covariance) == 0:
        return np.asarray(covariance)
    return covariance @ np.eye(covariance.shape[0])


def answers(model, X):
    """What a fit says of rows: with uncertainty."""
    if hasattr(model, "classes_"):
        return [model.predict_proba(X), model.decision_function(X)]
    return list(model.predict(X, return_std=True))


def assert_same(a, b, X, Xb=None, tolerance=1e-6):
    """Two fits have the same bound, weights (in sds) and answers."""
    assert a.elbo_ == pytest.approx(b.elbo_, rel=tolerance, abs=tolerance)
    sd = b.coef_std_
    np.testing.assert_allclose(a.coef_ / sd, b.coef_ / sd, atol=tolerance)
    np.testing.assert_allclose(a.coef_std_ / sd, 1.0, atol=tolerance)
    for here, there in zip(answers(a, X), answers(b, X if Xb is None else Xb)):
        np.testing.assert_allclose(here, there, rtol=tolerance, atol=tolerance)


# -- against posteriors that are known -------------------------------------------------


def reference_problem(name):
    """(estimator without its priors, standardised X, y, reference)."""
    reference = json.loads(data_path("reference", f"{name}.json").read_text())
    if name == "wells_probit":
        frame = pd.read_csv(data_path("classification", "wells.csv.gz"))
        X, y = frame[["dist", "arsenic", "assoc", "educ"]], frame["switch"]
        make = VariationalLogisticClassifier(link="probit")
    elif name == "pima_train_logistic":
        data = np.load(data_path("classification", "pima.npz"))
        train = data["train"].astype(bool)
        X, y = data["X"][train], data["y"][train]
        make = VariationalLogisticClassifier()
    else:
        frame = pd.read_csv(data_path("counts", "biochemists.csv.gz"))
        frame["fem"] = frame["fem"] == "Women"
        frame["mar"] = frame["mar"] == "Married"
        X, y = frame[["fem", "mar", "kid5", "phd", "ment"]], frame["art"]
        make = VariationalGLMRegressor(family="poisson", intercept_mean=0.0)
    X = StandardScaler().fit_transform(np.asarray(X, dtype=float))
    known = {"weight_precision": 1 / 2.5**2, "intercept_precision": 1 / 2.5**2}
    return make.set_params(**known), X, np.asarray(y), reference


REFERENCES = ["wells_probit", "pima_train_logistic", "biochemists_poisson"]


def gaps(model, reference):
    """(errors of the means in sds, ratios of sds), intercept first."""
    mean = np.append(model.intercept_, model.coef_)
    sd = np.append(model.intercept_std_, model.coef_std_)
    exact, spread = np.array(reference["mean"]), np.array(reference["sd"])
    return np.abs(mean - exact) / spread, sd / spread


@pytest.mark.parametrize("name", REFERENCES)
def test_structured_agrees_with_nuts(name):
    make, X, y, reference = reference_problem(name)
    model = make.fit(X, y)
    error, ratio = gaps(model, reference)
    assert model.converged_
    assert error.max() <= 0.07
    assert np.median(ratio) >= 0.96 and ratio.min() >= 0.85
    assert ratio.max() <= 1.04
    sds = np.array(reference["sd"])[1:]
    exact = np.array(reference["cov"])[1:, 1:] / np.outer(sds, sds)
    np.testing.assert_allclose(
        model.coef_covariance_ / np.outer(sds, sds), exact, atol=0.08
    )


@pytest.mark.parametrize("name", REFERENCES)
def test_linear_response_restores_the_sds_of_mean_field(name):
    make, X, y, reference = reference_problem(name)
    plain = clone(make).set_params(posterior="mean_field").fit(X, y)
    linear = {"posterior": "mean_field", "posterior_covariance": "linear_response"}
    corrected = clone(make).set_params(**linear).fit(X, y)
    error, narrow = gaps(plain, reference)
    assert error.max() <= 0.07
    if name != "wells_probit":  # whose columns hardly correlate
        assert narrow.min() < 0.9
    _, ratio = gaps(corrected, reference)
    assert 0.95 < ratio.min() and ratio.max() < 1.05
    assert corrected.elbo_ == plain.elbo_
    a, b = (model.sample_posterior(50, 0)["coef"] for model in (corrected, plain))
    np.testing.assert_array_equal(a, b)
    q = {name: plain.posterior_.covariance(name) for name in ("coef", "level")}
    for name, covariance in q.items():
        np.testing.assert_array_equal(
            dense(corrected.posterior_.covariance(name)), dense(covariance)
        )


@each_family
@each_posterior
@pytest.mark.parametrize("prior", ["ridge", "ard"])
def test_linear_response_is_the_derivative_of_the_mean_in_a_tilt(
    family, posterior, prior
):
    """Its definition. A move of the level's prior mean tilts the log joint.

    Sites are held while it is computed, which is exact where the likelihood is
    Gaussian.
    """
    X, y = simulate(family, 40, 3)
    X = (X - X.mean(axis=0)) / X.std(axis=0)  # so that level and intercept are one
    unit = y.std() if family in CONTINUOUS else 1.0
    kappa, centre = 2.0, np.median(y) if family in CONTINUOUS else 0.3
    made = VariationalGLMRegressor(
        family=family,
        posterior=posterior,
        prior=prior,
        posterior_covariance="linear_response",
        intercept_precision=kappa,
        intercept_mean=centre,
        tol=1e-12,
        max_iter=2000,
    )
    model = clone(made).fit(X, y)
    h = 0.05 * unit
    up, down = (
        clone(made).set_params(intercept_mean=centre + s * h).fit(X, y) for s in (1, -1)
    )
    y_scale = getattr(model, "y_scale_", 1.0)
    variance = (up.intercept_ - down.intercept_) / (2.0 * h) * y_scale**2 / kappa
    tolerance = 2e-3 if family == "gaussian" else 0.03
    assert model.intercept_std_**2 == pytest.approx(variance, rel=tolerance)


def gaussian_problem(model, X, y, weight):
    """(design with the level last, prior precision, targets) of the exact posterior."""
    n = weight.astype(int)
    X, y = np.repeat(X, n, axis=0), np.repeat(y, n)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    design = np.column_stack([Z, np.ones(len(Z))])
    lam = np.broadcast_to(model.weight_precision, Z.shape[1])
    precision = np.append(lam / y.std() ** 2, model.intercept_precision_)
    return design, precision, y - y.mean()


@pytest.mark.parametrize("shape", [(40, 5), (12, 30)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("each", [False, True])
def test_gaussian_of_known_noise_is_the_closed_form(shape, weighted, each):
    X, y = simulate("gaussian", *shape)
    weight = np.ones(len(y))
    if weighted:
        weight = np.random.default_rng(1).integers(0, 4, len(y)).astype(float)
    lam = np.linspace(0.5, 4.0, shape[1]) if each else 1.7
    model = VariationalGLMRegressor(
        family="gaussian", dispersion=3.0, weight_precision=lam
    )
    model.fit(X, y, sample_weight=weight if weighted else None)
    assert model.converged_
    design, precision, centred = gaussian_problem(model, X, y, weight)
    covariance = 3.0 * np.eye(len(design)) + (design / precision) @ design.T
    expected = stats.multivariate_normal(np.zeros(len(design)), covariance)
    assert model.elbo_ == pytest.approx(expected.logpdf(centred), rel=1e-8)
    C = np.linalg.inv(design.T @ design / 3.0 + np.diag(precision))
    mean = C @ design.T @ centred / 3.0
    sd = np.sqrt(np.diag(C))[:-1]
    np.testing.assert_allclose(
        model.coef_ * model.X_scale_ / sd, mean[:-1] / sd, atol=1e-8
    )
    np.testing.assert_allclose(model.coef_std_ * model.X_scale_, sd, rtol=1e-8)
    scale = np.outer(model.X_scale_, model.X_scale_)
    found = dense(model.coef_covariance_) * scale / np.outer(sd, sd)
    np.testing.assert_allclose(found, C[:-1, :-1] / np.outer(sd, sd), atol=1e-8)
    m = model.X_offset_ / model.X_scale_
    b = np.append(-m, 1.0)
    assert model.intercept_std_ == pytest.approx(np.sqrt(b @ C @ b), rel=1e-8)


# (kind, parameters): posteriors of few dimensions, corrected by importance weights
CORRECTED = {
    "logit": {"weight_precision": 0.5},
    "softmax": {"weight_precision": 0.5},
    "poisson": {},
    "negative_binomial": {},
    "gaussian": {},
    "student_t": {"weight_precision": 0.5},
}


@pytest.mark.parametrize("kind", CORRECTED)
def test_structured_agrees_with_importance_sampling(kind):
    """Self-normalised weights p(y, z) / q(z) of draws correct what q has wrong."""
    X, y = simulate(kind, 120, 3)
    model = estimator(kind, **CORRECTED[kind]).fit(X, y)
    draws = model.sample_posterior(60_000, 0)
    log_w = glm_log_joint(model, X, y, draws) - model.posterior_.log_density(draws)
    w = special.softmax(log_w)
    assert 1.0 / np.sum(w**2) > 0.05 * len(w)  # effective draws
    names = ["coef", "intercept"]
    names += ["dispersion"] if "dispersion" in draws else []
    for name in names:
        z = np.log(draws[name]) if name == "dispersion" else draws[name]
        z = z.reshape(len(w), -1)
        mean = w @ z
        sd = np.sqrt(w @ (z - mean) ** 2)
        assert np.all(np.abs(z.mean(axis=0) - mean) <= 0.1 * sd)
        ratio = z.std(axis=0) / sd
        assert np.median(ratio) > 0.93 and ratio.min() >= 0.85 and ratio.max() < 1.06


def test_a_tiny_dispersion_of_counts_is_poisson():
    X, y = simulate("poisson", 60, 3)
    known = {"weight_precision": 1.0}
    poisson = VariationalGLMRegressor(**known).fit(X, y)
    near = VariationalGLMRegressor(
        family="negative_binomial", dispersion=1e-8, **known
    ).fit(X, y)
    assert_same(near, poisson, X, tolerance=1e-4)


# -- what the parameters mean ----------------------------------------------------------


@each_posterior
@each_counts
def test_exposure_is_an_offset_of_its_log(family, posterior):
    X, y = simulate(family, 50, 3)
    time = np.random.default_rng(1).uniform(0.2, 5.0, 50)
    params = {"family": family, "posterior": posterior}
    XA, XB = np.c_[time, X], np.c_[X, np.log(time)]
    a = VariationalGLMRegressor(**params, exposure=0, intercept_mean=0.2).fit(XA, y)
    b = VariationalGLMRegressor(**params, offset=-1, intercept_mean=0.2).fit(XB, y)
    assert_same(a, b, XA, XB, 1e-9)
    np.testing.assert_allclose(
        a.log_predictive_density(XA, y), b.log_predictive_density(XB, y), atol=1e-9
    )
    plain = VariationalGLMRegressor(**params).fit(X, y)
    assert abs(plain.elbo_ - a.elbo_) > 1.0
    # both: as many as their sum
    both = VariationalGLMRegressor(**params, offset=3, exposure=4, intercept_mean=0.2)
    split = np.c_[X, 0.3 * np.log(time), time**0.7]
    assert_same(both.fit(split, y), a, split, XA, 1e-9)


@each_posterior
@each_family
def test_an_offset_of_all_rows_is_a_shifted_intercept(family, posterior):
    X, y = simulate(family, 50, 3)
    move = 1.3
    params = {"family": family, "posterior": posterior}
    centre = 20.0 if family in CONTINUOUS else 0.4
    plain = VariationalGLMRegressor(**params, intercept_mean=centre).fit(X, y)
    moved = VariationalGLMRegressor(**params, offset=3, intercept_mean=centre - move)
    moved.fit(np.c_[X, np.full(50, move)], y)
    assert_same(moved, plain, np.c_[X, np.full(50, move)], X)
    assert moved.intercept_ == pytest.approx(plain.intercept_ - move, abs=1e-5)
    # predictions are of the row's own offset
    elsewhere = moved.predict(np.c_[X, np.full(50, move + 0.5)])
    expected = plain.predict(X) + 0.5
    if family in COUNTS:
        expected = plain.predict(X) * np.exp(0.5)
    np.testing.assert_allclose(elsewhere, expected, rtol=1e-5)


def test_resolved_priors_and_scales():
    X, y = simulate("poisson", 50, 3)
    time = np.random.default_rng(1).uniform(0.2, 5.0, 50)
    weight = np.random.default_rng(2).integers(0, 3, 50)
    for family in COUNTS:
        model = VariationalGLMRegressor(family=family, exposure=3)
        model.fit(np.c_[X, time], y, sample_weight=weight)
        rate = np.log((weight @ y + 0.5) / (weight @ time))
        assert model.intercept_mean_ == pytest.approx(rate, rel=1e-12)
        assert model.y_scale_ == 1.0 and model.y_offset_ == 0.0
        assert model.n_features_in_ == 4 and model.coef_.shape == (3,)
        mean = np.average(X, axis=0, weights=weight)
        sd = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weight))
        np.testing.assert_allclose(model.X_offset_, mean)
        np.testing.assert_allclose(model.X_scale_, sd)
    X, y = simulate("gaussian", 51, 3)
    model = VariationalGLMRegressor(family="gaussian", dispersion_prior=(0.3, 0.9))
    model.fit(X, y)
    assert model.intercept_mean_ == pytest.approx(y.mean())
    assert model.y_scale_ == pytest.approx(y.std())
    assert model.dispersion_prior_ == pytest.approx((0.3, 0.9 * y.var()))
    robust = VariationalGLMRegressor(family="student_t").fit(X, y)
    assert robust.intercept_mean_ == pytest.approx(np.median(y))
    binary = VariationalLogisticClassifier().fit(X, y > y.mean())
    assert np.all(binary.intercept_mean_ == 0.0)
    assert np.all(np.array(binary.weight_precision_prior_) > 0.0)
    fixed = VariationalGLMRegressor(family="gaussian", dispersion=2.0).fit(X, y)
    assert fixed.dispersion_ == pytest.approx(2.0)
    each = VariationalGLMRegressor(weight_precision=[1.0, 2.0, 3.0])
    each.fit(*simulate("poisson", 50, 3))
    np.testing.assert_allclose(each.weight_precision_, [1.0, 2.0, 3.0])


def test_shapes_of_fitted_attributes():
    for kind, (_, K) in CLASSIFIERS.items():
        X, y = simulate(kind, 40, 4)
        rows = 1 if K == 2 else K
        for prior, shape in (("ridge", ()), ("ard", (4,))):
            model = estimator(kind, prior=prior).fit(X, y)
            assert model.coef_.shape == model.coef_std_.shape == (rows, 4)
            assert model.intercept_.shape == model.intercept_std_.shape == (rows,)
            assert model.coef_covariance_.shape == (rows * 4, rows * 4)
            assert np.shape(model.weight_precision_) == shape
            draws = model.sample_posterior(7, 0)
            assert draws["coef"].shape == (7, rows, 4)
            assert draws["intercept"].shape == (7, rows)
            assert draws["weight_precision"].shape == (7, *shape)
            assert model.predict_proba(X).shape == (40, K)
            assert model.decision_function(X).shape == ((40,) if K == 2 else (40, K))
    for family in FAMILIES:
        X, y = simulate(family, 40, 4)
        model = VariationalGLMRegressor(family=family).fit(X, y)
        assert model.coef_.shape == (4,) and np.ndim(model.intercept_) == 0
        draws = model.sample_posterior(7, 0)
        assert draws["coef"].shape == (7, 4) and draws["intercept"].shape == (7,)
        assert ("dispersion" in draws) == (family != "poisson")


# -- weights ---------------------------------------------------------------------------


@each_classifier
def test_class_weight_is_sample_weight(kind):
    X, y = simulate(kind, 60, 3)
    y = np.array(["no", "yes", "maybe"])[y]
    by_class = {"no": 2.0, "yes": 0.5, "maybe": 1.5}
    by_class = {label: by_class[label] for label in np.unique(y)}
    each = np.array([by_class[label] for label in y])
    weighted = estimator(kind, class_weight=by_class).fit(X, y)
    assert_same(weighted, estimator(kind).fit(X, y, sample_weight=each), X, None, 1e-9)
    counts = np.random.default_rng(0).integers(1, 4, 60)
    both = estimator(kind, class_weight=by_class).fit(X, y, sample_weight=counts)
    assert_same(
        both, estimator(kind).fit(X, y, sample_weight=counts * each), X, None, 1e-9
    )
    labels, inverse, frequency = np.unique(y, return_inverse=True, return_counts=True)
    even = (60 / (len(labels) * frequency))[inverse]
    balanced = estimator(kind, class_weight="balanced").fit(X, y)
    assert_same(balanced, estimator(kind).fit(X, y, sample_weight=even), X, None, 1e-9)
    assert abs(balanced.elbo_ - weighted.elbo_) > 0.1


@each_kind
@pytest.mark.parametrize("shape", [(40, 3), (10, 12)])
def test_weights_of_zero_are_rows_that_are_not_there(kind, shape):
    X, y = simulate(kind, *shape)
    weight = np.ones(len(y))
    weight[[1, 4]] = 0.0
    kept = weight > 0.0
    X[4] = 1e6  # says nothing, of scales neither
    a = estimator(kind).fit(X, y, sample_weight=weight)
    b = estimator(kind).fit(X[kept], y[kept])
    assert_same(a, b, X[kept], None, 1e-8)


# -- what X may be ---------------------------------------------------------------------


@each_kind
@each_posterior
@pytest.mark.parametrize("shape", [(60, 4), (14, 25)])
def test_sparse_is_dense(kind, posterior, shape):
    X, y = simulate(kind, *shape)
    rng = np.random.default_rng(0)
    X = X * (rng.random(shape) < 0.4)
    X[:, 0] += 1e3  # a column without a zero, far away
    weight = rng.integers(1, 3, shape[0])
    params = {"posterior": posterior, "tol": 1e-10}
    if kind == "student_t":  # learnt, it may collapse where weights repeat few rows
        params["dispersion"] = 3.0
    a = estimator(kind, **params).fit(X, y, sample_weight=weight)
    for container in (sparse.csr_array, sparse.csc_array, sparse.csr_matrix):
        b = estimator(kind, **params)
        b.fit(container(X), y, sample_weight=weight)
        assert_same(b, a, container(X), X)
    X[:, 0] -= 1e3
    if kind in CONTINUOUS:
        y = y - y.mean()
    no_intercept = {"fit_intercept": False, **params}
    a = estimator(kind, **no_intercept).fit(X, y)
    b = estimator(kind, **no_intercept).fit(sparse.csr_array(X), y)
    assert_same(b, a, sparse.csr_array(X), X)


@pytest.mark.parametrize("kind", ["logit", "poisson"])
def test_sparse_x_is_never_made_dense(kind):
    X = sparse.random_array((20_000, 300), density=0.01, rng=0, format="csr")
    rng = np.random.default_rng(0)
    eta = X @ np.ones(300) - 1.5
    y = (
        rng.poisson(np.exp(eta))
        if kind == "poisson"
        else eta > rng.logistic(size=20_000)
    )
    tracemalloc.start()
    model = estimator(kind, weight_precision=1.0, max_iter=20, tol=1e-2).fit(X, y)
    answers(model, X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.8 * 20_000 * 300 * 8  # several sparse copies, no dense one


def test_sparse_x_with_columns_of_a_role():
    X, y = simulate("poisson", 50, 3)
    time = np.random.default_rng(1).uniform(0.2, 5.0, 50)
    rows = np.c_[X, time]
    a = VariationalGLMRegressor(exposure=3).fit(rows, y)
    for container in (sparse.csr_array, sparse.csc_array):
        b = VariationalGLMRegressor(exposure=3).fit(container(rows), y)
        assert_same(b, a, container(rows), rows)


@each_kind
@pytest.mark.parametrize("shape", [(60, 4), (10, 15)])
def test_single_precision(kind, shape):
    X, y = simulate(kind, *shape)
    X = X.astype(np.float32)
    single = estimator(kind).fit(X, y)
    double = estimator(kind).fit(X.astype(np.float64), y)
    assert single.converged_
    assert abs(single.elbo_ - double.elbo_) < 1e-4 * len(y)
    sd = double.coef_std_
    assert np.max(np.abs(single.coef_ - double.coef_) / sd) < 1e-3
    for a, b in zip(answers(single, X), answers(double, X.astype(np.float64))):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@each_kind
@each_posterior
@pytest.mark.parametrize("prior", ["ridge", "ard"])
def test_more_columns_than_rows_are_the_same_model(kind, posterior, prior):
    """Rows that are four times there, a quarter each, make another shape of it."""
    X, y = simulate(kind, 12, 20)
    y = np.sort(np.arange(12) % 3) if kind == "softmax" else y
    params = {"posterior": posterior, "prior": prior, "tol": 1e-9}
    wide = estimator(kind, **params).fit(X, y)
    tall = estimator(kind, **params)
    tall.fit(np.tile(X, (4, 1)), np.tile(y, 4), sample_weight=np.full(48, 0.25))
    assert wide.converged_ and tall.converged_
    assert_same(wide, tall, simulate(kind, 7, 20, seed=5)[0], None, 1e-4)
    if kind not in CLASSIFIERS or kind == "logit":
        sd = np.ravel(tall.coef_std_)
        a, b = (dense(fit.coef_covariance_) for fit in (wide, tall))
        np.testing.assert_allclose(
            a / np.outer(sd, sd), b / np.outer(sd, sd), atol=1e-4
        )
    draws = wide.sample_posterior(4_000, 0)["coef"]
    error = np.abs(draws.mean(axis=0) - wide.coef_) / wide.coef_std_
    assert error.max() < 5.0 / np.sqrt(4_000)


def test_many_columns_take_no_matrix_of_all_of_them():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 4_000))
    y = X[:, 0] > 0.0
    tracemalloc.start()
    model = VariationalLogisticClassifier(prior="ridge").fit(X, y)
    assert model.predict_proba(X).shape == (30, 2)
    assert model.coef_std_.shape == (1, 4_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * 4_000**2 * 8
    assert model.coef_covariance_.shape == (4_000, 4_000)
    e = np.zeros(4_000)
    e[5] = 1.0
    assert (model.coef_covariance_ @ e)[5] == pytest.approx(model.coef_std_[0, 5] ** 2)


# -- probabilities ---------------------------------------------------------------------


@each_classifier
@each_posterior
def test_probabilities_are_averages_over_the_posterior(kind, posterior):
    X, y = simulate(kind, 25, 3)
    model = estimator(kind, posterior=posterior).fit(X, y)
    new = simulate(kind, 9, 3, seed=4)[0]
    new[:2] = 30.0 * new[:2]  # far away, too
    draws = model.sample_posterior(100_000, 0)
    eta = draws["intercept"][:, None] + new @ np.swapaxes(draws["coef"], 1, 2)
    if kind == "softmax":
        p = special.softmax(eta, axis=2)
    else:
        link = special.expit if kind == "logit" else stats.norm.cdf
        p = np.concatenate([link(-eta), link(eta)], axis=2)
    found = model.predict_proba(new)
    error = 4.5 * p.std(axis=0) / np.sqrt(len(p)) + 2e-4
    if kind == "softmax":  # whose cubature is made for rows that are not far away
        error += np.where(np.arange(9) < 2, 0.02, 2e-3)[:, None]
    assert np.all(np.abs(p.mean(axis=0) - found) <= error)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(model.predict_log_proba(new), np.log(found), rtol=1e-9)
    score = np.log(found)
    if kind != "softmax":
        score = special.logit(found[:, 1])
    np.testing.assert_allclose(
        model.decision_function(new), score, rtol=1e-6, atol=1e-9
    )
    np.testing.assert_array_equal(
        model.predict(new), model.classes_[found.argmax(axis=1)]
    )
    labels = model.classes_[np.arange(9) % len(model.classes_)]
    np.testing.assert_allclose(
        model.log_predictive_density(new, labels),
        np.log(found[np.arange(9), np.arange(9) % len(model.classes_)]),
        rtol=1e-9,
    )
    assert model.score(X, y) == np.mean(model.predict(X) == y)


def test_probit_probabilities_have_a_closed_form():
    X, y = simulate("probit", 40, 3)
    model = VariationalLogisticClassifier(link="probit").fit(X, y)
    Z = X - model.X_offset_
    level = model.posterior_.mean["level"]
    assert model.intercept_ == pytest.approx(
        np.ravel(level - model.coef_ @ model.X_offset_)
    )
    draws = model.sample_posterior(50_000, 0)
    joint = np.column_stack([draws["coef"][:, 0], draws["level"].reshape(-1, 1)])
    design = np.column_stack([Z, np.ones(40)])
    variance = np.einsum("ni,ij,nj->n", design, np.cov(joint.T), design)
    mean = Z @ model.coef_[0] + np.ravel(level)
    expected = stats.norm.cdf(mean / np.sqrt(1.0 + variance))
    np.testing.assert_allclose(model.predict_proba(X)[:, 1], expected, atol=2e-3)


@pytest.mark.parametrize("kind", ["logit", "probit"])
def test_far_from_the_data_probabilities_are_those_of_a_sign(kind):
    """A plug-in is sure there; what is known is the sign of a direction, at most."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 2))
    y = X[:, 0] + 0.1 * X[:, 1] + 0.5 * rng.logistic(size=60) > 0.0
    model = estimator(kind).fit(X, y)
    far = 1e4 * np.array([[0.0, 1.0], [0.0, -1.0]])
    plug_in = special.expit(far @ model.coef_[0] + model.intercept_)
    integrated = model.predict_proba(far)[:, 1]
    assert np.all(np.minimum(plug_in, 1.0 - plug_in) < 1e-10)
    expected = stats.norm.cdf(
        (far @ model.coef_[0])
        / np.sqrt(np.einsum("ni,ij,nj->n", far, model.coef_covariance_, far))
    )
    np.testing.assert_allclose(integrated, expected, atol=1e-3)
    assert np.all(np.abs(integrated - 0.5) < 0.45)


# -- predictions of the regressor ------------------------------------------------------


@each_counts
@each_posterior
def test_count_predictions_are_one_law(family, posterior):
    """Density, mean, std, quantiles, intervals and draws; with offset and exposure."""
    X, y = simulate(family, 60, 3)
    rng = np.random.default_rng(1)
    rows = np.c_[X, 0.3 * rng.standard_normal(60), rng.uniform(0.5, 2.0, 60)]
    model = VariationalGLMRegressor(
        family=family, posterior=posterior, offset=3, exposure=4
    ).fit(rows, y)
    new = rows[:5]
    k = np.arange(4_000)
    pmf = np.exp(
        [model.log_predictive_density(np.tile(row, (len(k), 1)), k) for row in new]
    )
    np.testing.assert_allclose(pmf.sum(axis=1), 1.0, atol=1e-6)
    mean, std = model.predict(new, return_std=True)
    np.testing.assert_allclose(mean, model.predict(new), rtol=1e-12)
    np.testing.assert_allclose(pmf @ k, mean, rtol=1e-3)
    if posterior == "mean_field" or family == "poisson":
        variance = pmf @ k**2 - (pmf @ k) ** 2
        np.testing.assert_allclose(np.sqrt(variance), std, rtol=1e-2)
    # quantiles: the least count that has at least this probability below or at it
    q = [0.05, 0.31, 0.5, 0.9]
    expected = np.array([np.searchsorted(np.cumsum(row), q) for row in pmf])
    found = model.predict(new, quantiles=q)
    assert found.shape == (5, 4) and np.all(found == np.round(found))
    np.testing.assert_allclose(found, expected, atol=0.0)
    interval = model.predict_interval(new, confidence_level=0.9)
    inside = [row[int(a) : int(b) + 1].sum() for row, (a, b) in zip(pmf, interval)]
    assert np.all(np.array(inside) >= 0.9 - 1e-6)
    draws = model.sample_y(new, 40_000, random_state=0)
    assert draws.shape == (5, 40_000) and np.all(draws == np.round(draws))
    np.testing.assert_allclose(draws.mean(axis=1), mean, atol=0.03 * std.max())
    seen = np.array([[np.mean(row == v) for v in range(12)] for row in draws])
    np.testing.assert_allclose(seen, pmf[:, :12], atol=0.012)
    np.testing.assert_array_equal(draws, model.sample_y(new, 40_000, random_state=0))


@pytest.mark.parametrize("family", CONTINUOUS)
@each_posterior
def test_continuous_predictions_are_one_law(family, posterior):
    X, y = simulate(family, 30, 3)
    model = VariationalGLMRegressor(family=family, posterior=posterior).fit(X, y)
    new = X[:3]
    mean, std = model.predict(new, return_std=True)
    found = model.predict(new, quantiles=[0.1, 0.5, 0.9])
    interval = model.predict_interval(new, confidence_level=0.8)
    np.testing.assert_allclose(interval, found[:, [0, 2]], rtol=1e-6)
    for i in range(3):

        def density(t, i=i):
            return np.exp(model.log_predictive_density(new[i : i + 1], [t])[0])

        mass = integrate.quad(density, *interval[i], epsabs=1e-8)[0]
        assert mass == pytest.approx(0.8, abs=2e-4)
        far = mean[i] + np.array([-400.0, 400.0]) * std[i]
        mass = integrate.quad(density, *far, points=[mean[i]], limit=500)[0]
        assert mass == pytest.approx(1.0, abs=1e-4)
    draws = model.sample_y(new, 40_000, random_state=0)
    np.testing.assert_allclose(draws.mean(axis=1), mean, atol=0.03 * std.max())
    below = np.mean(draws[:, :, None] < found[:, None], axis=1)
    np.testing.assert_allclose(below, [[0.1, 0.5, 0.9]] * 3, atol=0.012)


@each_family
def test_covariances_of_predictions_are_those_of_draws(family):
    X, y = simulate(family, 25, 3)
    params = {"dof": 12.0} if family == "student_t" else {}
    model = VariationalGLMRegressor(family=family, **params).fit(X, y)
    new = X[:4]
    mean, cov = model.predict(new, return_cov=True)
    std = model.predict(new, return_std=True)[1]
    np.testing.assert_allclose(np.sqrt(np.diag(cov)), std, rtol=1e-6)
    draws = model.sample_y(new, 200_000, random_state=0)
    assert np.all(np.abs(draws.mean(axis=1) - mean) < 5.0 * std / np.sqrt(200_000))
    scale = np.outer(std, std)
    np.testing.assert_allclose(np.cov(draws) / scale, cov / scale, atol=0.05)
    assert np.max(np.abs(cov / scale - np.eye(4))) > 0.02


@each_family
def test_held_out_targets_are_covered_and_uniform_in_their_own_law(family):
    rng = np.random.default_rng(0)
    X, y = simulate(family, 500, 4)
    model = VariationalGLMRegressor(family=family).fit(X[:100], y[:100])
    new, target = X[100:], y[100:]
    low, high = model.predict_interval(new, 0.9).T
    covered = np.mean((low <= target) & (target <= high))
    assert 0.85 < covered < (0.99 if family in COUNTS else 0.95)
    draws = model.sample_y(new, 500, random_state=0)
    below = np.mean(draws < target[:, None], axis=1)
    ties = np.mean(draws == target[:, None], axis=1)
    u = below + rng.random(len(target)) * ties
    assert stats.kstest(u, "uniform").pvalue > 1e-3


def test_outliers_do_not_move_robust_regression():
    X, y = simulate("gaussian", 80, 3)
    bad = y.copy()
    bad[:3] += 1e4
    clean, dirty = (
        VariationalGLMRegressor(family="student_t").fit(X, t) for t in (y, bad)
    )
    assert np.max(np.abs(clean.coef_ - dirty.coef_) / clean.coef_std_) < 1.0
    gaussian = VariationalGLMRegressor(family="gaussian").fit(X, bad)
    assert np.max(np.abs(clean.coef_ - gaussian.coef_) / clean.coef_std_) > 3.0
    assert gaussian.dispersion_ > 1e4 * dirty.dispersion_


# -- symmetries ------------------------------------------------------------------------


@each_classifier
@each_posterior
def test_labels_are_names(kind, posterior):
    X, y = simulate(kind, 45, 3)
    params = {"posterior": posterior, "tol": 1e-9}
    model = estimator(kind, **params).fit(X, y)
    K = len(model.classes_)
    order = np.roll(np.arange(K), 1)  # of the new label of class k
    other = estimator(kind, **params).fit(X, order[y])
    assert other.elbo_ == pytest.approx(model.elbo_, abs=1e-6)
    a, b = other.predict_proba(X)[:, order], model.predict_proba(X)
    np.testing.assert_allclose(a, b, atol=1e-6)
    sd = model.coef_std_
    moved = other.coef_[order] if K > 2 else -other.coef_
    np.testing.assert_allclose(moved / sd, model.coef_ / sd, atol=1e-5)
    for names in (np.array(["x", "a", "b"]), np.array([True, False]), [3.0, 1.0, 2.0]):
        if K <= len(names):
            named = np.asarray(names)[:K][y]
            fit = estimator(kind, **params).fit(X, named)
            assert fit.elbo_ == pytest.approx(model.elbo_, abs=1e-6)
            assert np.array_equal(fit.classes_, np.unique(named))
            assert fit.predict(X).dtype == named.dtype


def test_softmax_weights_of_classes_covary():
    """Blocks off the diagonal of coef_covariance_, and the sum that no data see."""
    X, y = simulate("softmax", 60, 3)
    model = VariationalLogisticClassifier(weight_precision=0.7).fit(X, y)
    draws = model.sample_posterior(100_000, 0)["coef"].reshape(100_000, 9)
    sd = model.coef_std_.ravel()
    expected = model.coef_covariance_ / np.outer(sd, sd)
    observed = np.cov(draws.T) / np.outer(sd, sd)
    np.testing.assert_allclose(observed, expected, atol=0.03)
    assert np.max(np.abs(expected[:3, 3:])) > 0.05
    # only the prior knows the mean over classes
    sums = draws.reshape(-1, 3, 3).sum(axis=1) * model.X_scale_
    np.testing.assert_allclose(sums.std(axis=0), np.sqrt(3 / 0.7), rtol=0.03)
    np.testing.assert_allclose(model.coef_.sum(axis=0) * model.X_scale_, 0.0, atol=1e-4)


def test_a_column_of_zeros_changes_nothing_of_the_predictions():
    for kind in [*CLASSIFIERS, *FAMILIES]:
        X, y = simulate(kind, 40, 3)
        known = {"weight_precision": 1.0}
        bare = estimator(kind, **known).fit(X, y)
        more = estimator(kind, **known).fit(np.c_[X, np.full(40, 0.3)], y)
        assert more.elbo_ == pytest.approx(bare.elbo_, abs=1e-6)
        for a, b in zip(answers(more, np.c_[X, np.full(40, 0.3)]), answers(bare, X)):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


# -- hard data -------------------------------------------------------------------------


@each_classifier
@each_posterior
@pytest.mark.parametrize("shape", [(40, 3), (12, 30)])
def test_separable_data_converge(kind, posterior, shape):
    X, _ = simulate(kind, *shape)
    K = CLASSIFIERS[kind][1]
    y = np.argsort(np.argsort(X[:, 0])) * K // len(X)
    X[:, 0] += 3.0 * y  # gaps between the classes
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = estimator(kind, posterior=posterior).fit(X, y)
    assert model.converged_ and np.all(np.isfinite(model.coef_))
    assert np.all(np.diff(model.elbo_path_) >= -1e-9)
    assert model.score(X, y) == 1.0
    p = model.predict_proba(X)
    assert np.all(p > 0.0) and np.all(p < 1.0)


@each_posterior
@each_counts
def test_huge_counts(family, posterior):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 2))
    rate = np.exp(14.0 + X @ [0.5, -0.3])
    shape = 1e4 if family == "negative_binomial" else np.inf
    noise = 1.0 if shape == np.inf else rng.gamma(shape, 1.0 / shape, 50)
    y = rng.poisson(rate * noise).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = VariationalGLMRegressor(family=family, posterior=posterior).fit(X, y)
    assert model.converged_
    np.testing.assert_allclose(
        model.coef_, [0.5, -0.3], atol=6.0 * model.coef_std_.max()
    )
    np.testing.assert_allclose(model.predict(X), rate, rtol=0.05)
    if family == "poisson":
        information = np.linalg.inv(
            np.c_[np.ones(50), X].T * rate @ np.c_[np.ones(50), X]
        )
        if posterior == "structured":
            sd = np.sqrt(np.diag(information))
            np.testing.assert_allclose(model.coef_std_, sd[1:], rtol=0.02)
            assert model.intercept_std_ == pytest.approx(sd[0], rel=0.02)
    mixed = np.where(np.arange(50) == 7, 1e6, rng.poisson(1.0, 50).astype(float))
    outlier = VariationalGLMRegressor(family=family, posterior=posterior).fit(X, mixed)
    assert np.isfinite(outlier.elbo_) and outlier.converged_


@each_counts
def test_counts_that_are_all_zero(family):
    X = np.random.default_rng(0).standard_normal((50, 3))
    for exposure, role in ((np.ones(50), {}), (np.full(50, 1e3), {"exposure": 3})):
        rows = np.c_[X, exposure] if role else X
        model = VariationalGLMRegressor(family=family, **role).fit(rows, np.zeros(50))
        assert model.converged_ and model.elbo_ < 0.0
        mean = model.predict(rows)
        assert np.all(mean > 0.0) and np.all(mean < 0.2)


def test_huge_and_tiny_exposures():
    X, y = simulate("poisson", 50, 2)
    here = VariationalGLMRegressor(exposure=2).fit(np.c_[X, np.ones(50)], y)
    for c in (1e-150, 1e150):
        rows = np.c_[X, np.full(50, c)]
        there = VariationalGLMRegressor(exposure=2).fit(rows, y)
        assert there.elbo_ == pytest.approx(here.elbo_, abs=1e-6)
        np.testing.assert_allclose(there.coef_, here.coef_, atol=1e-6)
        assert there.intercept_ == pytest.approx(here.intercept_ - np.log(c))


@pytest.mark.parametrize("kind", ["logit", "softmax", "poisson", "student_t"])
def test_the_path_rises_from_far_away(kind):
    """Damped steps: from a warm start that fits quite other data."""
    X, y = simulate(kind, 60, 3, strength=3.0)
    cold = estimator(kind).fit(X, y)
    warm = estimator(kind, warm_start=True).fit(-X, y)
    warm.fit(X, y)
    for model in (cold, warm):
        rises = np.diff(model.elbo_path_)
        assert model.converged_ and np.all(rises >= -1e-10 * abs(model.elbo_))
    assert warm.elbo_ == pytest.approx(cold.elbo_, abs=1e-4)
    assert warm.elbo_path_[0] < cold.elbo_ - 0.5


# -- relevance -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["logit", "probit", "poisson", "student_t"])
def test_ard_finds_the_columns_that_matter(kind):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((600, 40))
    eta = X[:, [3, 17, 30]] @ [1.5, -1.2, 1.0]
    if kind == "poisson":
        y = rng.poisson(np.exp(0.5 * eta))
    elif kind == "student_t":
        y = eta + rng.standard_t(4, 600)
    else:
        y = (eta + rng.logistic(size=600) > 0.0).astype(int)
    ard = estimator(kind, prior="ard").fit(X[:200], y[:200])
    assert set(np.argsort(ard.weight_precision_)[:3]) == {3, 17, 30}
    ridge = estimator(kind).fit(X[:200], y[:200])
    a, b = (
        np.mean(fit.log_predictive_density(X[200:], y[200:])) for fit in (ard, ridge)
    )
    assert a > b
    assert ard.elbo_ > ridge.elbo_


# -- streams ---------------------------------------------------------------------------


@each_kind
def test_a_stream_comes_near_the_fit(kind):
    X, y = simulate(kind, 6_000, 3)
    whole = estimator(kind).fit(X, y)
    stream = estimator(kind)
    blocks = np.array_split(np.arange(6_000), 30)
    for rows in blocks:
        stream.partial_fit(X[rows], y[rows])
    assert stream.n_samples_seen_ == 6_000
    gap = np.abs(stream.coef_ - whole.coef_) / whole.coef_std_
    assert gap.max() < 2.0
    ratio = stream.coef_std_ / whole.coef_std_
    assert 0.7 < ratio.min() and ratio.max() < 1.4
    for a, b in zip(answers(stream, X), answers(whole, X)):
        size = max(np.std(b), 0.5 * np.mean(np.abs(b)))
        assert np.mean(np.abs(a - b)) < 0.06 * size


def test_classes_of_a_stream():
    X, y = simulate("softmax", 90, 3)
    y = np.array(["a", "b", "c"])[y]
    order = np.argsort(y, kind="stable")
    model = VariationalLogisticClassifier()
    for rows in np.array_split(order, 6):
        model.partial_fit(X[rows], y[rows], classes=["a", "b", "c"])
    assert list(model.classes_) == ["a", "b", "c"]
    assert model.predict_proba(X).shape == (90, 3)
    assert model.n_samples_seen_ == 90
    with pytest.raises(ValueError, match=r"(?s)'?d'?.*classes"):
        model.partial_fit(X[:4], ["a", "d", "b", "c"])
    with pytest.raises(ValueError, match="classes"):
        model.partial_fit(X[:4], y[:4], classes=["a", "b"])
    assert model.n_samples_seen_ == 90
    # one class at first, and told of the other
    binary = VariationalLogisticClassifier()
    binary.partial_fit(X[:20], np.zeros(20), classes=[0, 1])
    binary.partial_fit(X[20:40], np.ones(20))
    assert binary.coef_.shape == (1, 3)


def test_partial_fit_does_not_look_at_old_buffers():
    X, y = simulate("poisson", 60, 3)
    a, b = VariationalGLMRegressor(), VariationalGLMRegressor()
    buffer, target = X[:30].copy(), y[:30].copy()
    a.partial_fit(buffer, target)
    buffer[:], target[:] = X[30:], y[30:]
    a.partial_fit(buffer, target)
    b.partial_fit(X[:30], y[:30]).partial_fit(X[30:], y[30:])
    np.testing.assert_array_equal(a.coef_, b.coef_)


@pytest.mark.parametrize("posterior", ["structured", "mean_field"])
@pytest.mark.parametrize("first", ["fit", "partial_fit"])
def test_a_stream_whose_units_drift(posterior, first):
    """Sites of a Gaussian are exact: two blocks with steps 1 and 1/2 are one fit."""
    X, y = simulate("gaussian", 200, 3)
    X[100:] = 4.0 * X[100:] + 30.0  # the second block is elsewhere, and wider
    y[100:] = 5.0 * y[100:] - 60.0
    known = {"dispersion": 9.0, "posterior": posterior}
    model = VariationalGLMRegressor(family="gaussian", learning_decay=1.0, **known)
    # a vague prior: its width is relative to the spread of y, as is learnt so far
    model.set_params(weight_precision=1e-6)
    whole = clone(model).fit(X, y)
    getattr(model, first)(X[:100], y[:100]).partial_fit(X[100:], y[100:])
    assert model.y_scale_ == pytest.approx(whole.y_scale_)
    np.testing.assert_allclose(model.X_scale_, whole.X_scale_)
    gap = np.abs(model.coef_ - whole.coef_) / whole.coef_std_
    assert gap.max() < 1e-4
    np.testing.assert_allclose(model.coef_std_, whole.coef_std_, rtol=1e-5)
    gap = abs(model.intercept_ - whole.intercept_) / whole.intercept_std_
    assert gap < 1e-4
    counts = simulate("poisson", 200, 3)[1]
    late = np.r_[counts[:100], 50.0 * counts[100:]]  # rates move, and their origin
    both = [VariationalGLMRegressor(learning_decay=0.7) for _ in range(2)]
    both[0].fit(X, late)
    for rows in 10 * [slice(0, 200, 2), slice(1, 200, 2)]:
        both[1].partial_fit(X[rows], late[rows])
    np.testing.assert_allclose(both[1].predict(X), both[0].predict(X), rtol=0.5)


def test_the_bound_of_a_stream_is_in_the_units_of_the_data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 2))
    X[100:] *= 8.0  # the same line, over a wider range
    y = 3.0 + X @ [1.0, -2.0] + rng.standard_normal(200)
    known = {"dispersion": 1.0, "weight_precision": 0.5, "learning_decay": 1.0}
    model = VariationalGLMRegressor(family="gaussian", **known)
    whole = clone(model).fit(X, y)
    model.partial_fit(X[:100], y[:100]).partial_fit(X[100:], y[100:])
    assert whole.y_scale_ > 4.0 * y[:100].std()
    # an estimate: what was said of the second block before it was seen is in it
    assert abs(model.elbo_ - whole.elbo_) < 150.0  # with wrong units 270


def test_partial_fit_goes_on_from_a_fit():
    X, y = simulate("logit", 400, 3)
    model = VariationalLogisticClassifier().fit(X[:200], y[:200])
    before = model.coef_.copy()
    model.partial_fit(X[200:], y[200:])
    assert model.n_samples_seen_ == 400
    whole = VariationalLogisticClassifier().fit(X, y)
    assert np.any(model.coef_ != before)
    assert np.max(np.abs(model.coef_ - whole.coef_) / whole.coef_std_) < 2.0


# -- the engine, as users see it -------------------------------------------------------


@each_kind
def test_warm_starts(kind):
    X, y = simulate(kind, 60, 4)
    params = {"prior": "ard"}
    cold = estimator(kind, **params).fit(X, y)
    warm = estimator(kind, **params, warm_start=True).fit(X, y)
    first = warm.n_iter_
    warm.fit(X, y)
    assert warm.n_iter_ <= min(first, 5)
    assert warm.elbo_ == pytest.approx(cold.elbo_, abs=1e-4)
    wider = np.c_[X, X[:, 0] ** 2]
    warm.fit(wider, y)  # another number of columns: from anew
    fresh = estimator(kind, **params).fit(wider, y)
    assert warm.elbo_ == fresh.elbo_
    for other in ({"posterior": "mean_field"}, {"prior": "ridge"}):
        warm.set_params(**other).fit(X, y)
        fresh = estimator(kind, **{**params, **other}).fit(X, y)
        # The relevances of ARD may end at another optimum.
        tolerance = 1e-4 if "prior" in other else 0.3
        assert warm.elbo_ == pytest.approx(fresh.elbo_, abs=tolerance)
        warm.set_params(posterior="structured", prior="ard")


def test_max_iter_warns():
    X, y = simulate("poisson", 60, 4)
    model = VariationalGLMRegressor(prior="ard", max_iter=2)
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        model.fit(X, y)
    assert not model.converged_ and np.isfinite(model.elbo_)
    assert np.all(np.isfinite(model.predict(X)))


@pytest.mark.parametrize("kind", ["logit", "softmax", "negative_binomial"])
def test_callbacks_see_a_fitted_estimator_at_every_iteration(kind):
    X, y = simulate(kind, 40, 5)
    seen = []

    def condition(fitted):
        seen.append((fitted.elbo_, np.ravel(answers(fitted, X[:1])[0])[0]))
        return len(seen) == 3

    model = estimator(kind, prior="ard").set_callbacks(StopWhen(condition))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y)
    np.testing.assert_allclose([elbo for elbo, _ in seen], model.elbo_path_)
    assert seen[-1] == (model.elbo_, np.ravel(answers(model, X[:1])[0])[0])
    assert len(seen) == 3 and not model.converged_


def test_verbose_prints_the_elbo(capsys):
    X, y = simulate("logit", 40, 3)
    model = VariationalLogisticClassifier(verbose=2).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(model.elbo_path_)
    assert float(lines[-1].split()[-1]) == pytest.approx(model.elbo_, abs=1e-5)


# -- summaries -------------------------------------------------------------------------


@each_kind
def test_summary_and_contrasts(kind):
    X, y = simulate(kind, 60, 3)
    X = pd.DataFrame(X, columns=["a", "b", "c"])
    model = estimator(kind).fit(X, y)
    table = model.summary(confidence_level=0.9)
    K = np.atleast_2d(model.coef_).shape[0]
    assert len(table.names) == len(table.mean) == 4 * K
    draws = model.sample_posterior(50_000, 0)
    everything = {
        **{
            f"coef{k}{j}": np.atleast_3d(draws["coef"].reshape(50_000, K, 3))[:, k, j]
            for k in range(K)
            for j in range(3)
        },
        **{
            f"intercept{k}": draws["intercept"].reshape(50_000, K)[:, k]
            for k in range(K)
        },
    }
    means = sorted(z.mean() for z in everything.values())
    sds = sorted(z.std() for z in everything.values())
    np.testing.assert_allclose(sorted(table.mean), means, atol=0.03 * max(sds))
    np.testing.assert_allclose(sorted(table.sd), sds, rtol=0.03)
    assert all(any(name in row for row in table.names) for name in "abc")
    assert table.to_pandas().shape == (4 * K, 5)
    assert "a" in repr(table) and "<table>" in table._repr_html_()
    if K == 1:
        np.testing.assert_allclose(table.mean[:3], np.ravel(model.coef_))
        contrast = model.summary(contrasts={"sum": {"a": 1, "b": 1}, "gap": [1, -1, 0]})
        a, b = (draws["coef"].reshape(-1, 3)[:, j] for j in (0, 1))
        np.testing.assert_allclose(
            contrast.sd, [(a + b).std(), (a - b).std()], rtol=0.03
        )
        probability = [np.mean(a + b > 0), np.mean(a - b > 0)]
        np.testing.assert_allclose(
            contrast.probability_positive, probability, atol=0.01
        )
        with pytest.raises(ValueError, match=r"nope.*a"):
            model.summary(contrasts={"bad": {"nope": 1.0}})
    with pytest.raises(ValueError, match="confidence_level"):
        model.summary(confidence_level=1.5)


# -- frames, pipelines, searches -------------------------------------------------------


def claims(n=80, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "holders": rng.uniform(0.5, 20.0, n),
            "age": rng.normal(40.0, 12.0, n),
            "district": rng.choice(["n", "s", "w"], n),
            "known": 0.2 * rng.standard_normal(n),
        }
    )
    rate = np.exp(-1.0 - 0.03 * (frame["age"] - 40.0) + (frame["district"] == "s"))
    y = rng.poisson(frame["holders"] * np.exp(frame["known"]) * rate)
    return frame, y


def test_columns_by_name_in_pandas_and_polars():
    frame, y = claims()
    numbers = frame.drop(columns="district")
    model = VariationalGLMRegressor(exposure="holders", offset="known")
    a = clone(model).fit(numbers, y)
    assert list(a.feature_names_in_) == ["holders", "age", "known"]
    assert a.coef_.shape == (1,)
    b = clone(model).fit(pl.DataFrame(numbers.to_dict("list")), y)
    assert b.elbo_ == pytest.approx(a.elbo_, rel=1e-12)
    by_number = VariationalGLMRegressor(exposure=0, offset=2).fit(numbers.to_numpy(), y)
    assert by_number.elbo_ == pytest.approx(a.elbo_, rel=1e-12)
    np.testing.assert_allclose(
        b.predict(pl.DataFrame(numbers.to_dict("list"))), a.predict(numbers)
    )
    # predictions are for the row's own exposure
    twice = numbers.assign(holders=2.0 * numbers["holders"])
    np.testing.assert_allclose(a.predict(twice), 2.0 * a.predict(numbers), rtol=1e-9)
    assert "age" in a.summary().names and "holders" not in a.summary().names
    with pytest.raises(ValueError, match=r"exposure='holder'.*holders"):
        VariationalGLMRegressor(exposure="holder").fit(numbers, y)


def test_pipelines_and_searches_see_the_roles():
    frame, y = claims()
    prepare = ColumnTransformer(
        [
            ("scale", StandardScaler(), ["age"]),
            ("code", OneHotEncoder(sparse_output=False), ["district"]),
        ],
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    model = VariationalGLMRegressor(exposure="holders", offset="known")
    pipeline = make_pipeline(prepare, model)
    scores = cross_val_score(pipeline, frame, y, scoring=log_predictive_density_scorer)
    assert np.all(np.isfinite(scores))
    blind = make_pipeline(prepare, VariationalGLMRegressor(offset="known"))
    other = cross_val_score(blind, frame, y, scoring=log_predictive_density_scorer)
    assert scores.mean() > other.mean() + 0.05
    grid = {
        "variationalglmregressor__family": ["poisson", "negative_binomial"],
        "variationalglmregressor__prior": ["ridge", "ard"],
    }
    everything = np.arange(len(y))
    search = GridSearchCV(
        pipeline, grid, scoring=elbo_scorer, cv=[(everything, everything)]
    ).fit(frame, y)
    last, seen = unwrap(search, frame)
    assert last.elbo_ == pytest.approx(search.best_score_)
    assert "holders" in seen.columns
    mean = search.predict(frame)
    assert np.corrcoef(mean, y)[0, 1] > 0.5
    held_out = GridSearchCV(pipeline, grid, scoring=log_predictive_density_scorer, cv=3)
    held_out.fit(frame, y)
    assert np.all(np.isfinite(held_out.cv_results_["mean_test_score"]))


def test_classifiers_in_searches():
    X, y = simulate("softmax", 60, 3)
    y = np.array(["low", "mid", "top"])[y]
    pipeline = make_pipeline(StandardScaler(), VariationalLogisticClassifier())
    key = "variationallogisticclassifier__prior"
    for scoring in (log_predictive_density_scorer, "neg_log_loss", "accuracy"):
        search = GridSearchCV(pipeline, {key: ["ridge", "ard"]}, scoring=scoring, cv=3)
        assert np.isfinite(search.fit(X, y).best_score_)
    a = cross_val_score(pipeline, X, y, scoring=log_predictive_density_scorer, cv=3)
    b = cross_val_score(pipeline, X, y, scoring="neg_log_loss", cv=3)
    np.testing.assert_allclose(a, b, rtol=1e-9)


def test_elbo_tells_the_right_family():
    """With many rows: of counts that are overdispersed, and of errors with tails."""
    X, y = simulate("negative_binomial", 300, 2)
    poisson, binomial = (VariationalGLMRegressor(family=f).fit(X, y) for f in COUNTS)
    assert binomial.elbo_ > poisson.elbo_ + 5.0
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 2))
    y = X @ [1.0, 2.0] + rng.standard_t(2.0, 300)
    gaussian, robust = (VariationalGLMRegressor(family=f).fit(X, y) for f in CONTINUOUS)
    assert robust.elbo_ > gaussian.elbo_ + 5.0


def test_fits_are_saved_while_they_stream():
    X, y = simulate("poisson", 60, 3)
    a = VariationalGLMRegressor().partial_fit(X[:30], y[:30])
    b = pickle.loads(pickle.dumps(a)).partial_fit(X[30:], y[30:])
    a.partial_fit(X[30:], y[30:])
    np.testing.assert_array_equal(a.coef_, b.coef_)


# -- errors ----------------------------------------------------------------------------

GLM, LOGISTIC = VariationalGLMRegressor, VariationalLogisticClassifier
T = {"family": "student_t"}
NB = {"family": "negative_binomial"}


@pytest.mark.parametrize(
    "make, params, parts",
    [
        (GLM, {"family": "gamma"}, ["family", "gamma"]),
        (GLM, {"dof": 4.0}, ["dof=4.0", "poisson", "None"]),
        (GLM, {"family": "gaussian", "dof": 3}, ["dof=3", "gaussian", "None"]),
        (GLM, {**T, "dof": 0.0}, ["dof"]),
        (GLM, {"dispersion": 2.0}, ["dispersion=2.0", "poisson"]),
        (GLM, {"dispersion_prior": (1, 1)}, ["dispersion_prior=(1, 1)", "poisson"]),
        (GLM, {**NB, "dispersion": 0.0}, ["dispersion"]),
        (GLM, {**NB, "dispersion_prior": (1.0,)}, ["dispersion_prior=(1.0,)"]),
        (
            GLM,
            {**NB, "dispersion_prior": (-1.0, 1.0)},
            ["dispersion_prior=(-1.0, 1.0)"],
        ),
        (GLM, {"family": "gaussian", "exposure": 1}, ["exposure=1", "gaussian"]),
        (GLM, {**T, "exposure": 1}, ["exposure=1", "student_t"]),
        (GLM, {"exposure": 9}, ["exposure=9"]),
        (GLM, {"exposure": 1, "offset": 1}, ["offset=1", "exposure=1"]),
        (GLM, {"weight_precision": -1.0}, ["weight_precision=-1.0"]),
        (GLM, {"weight_precision": [1.0, 2.0]}, ["weight_precision", "4"]),
        (GLM, {"weight_precision_prior": (1.0,)}, ["weight_precision_prior=(1.0,)"]),
        (GLM, {"intercept_precision": 0.0}, ["intercept_precision"]),
        (GLM, {"prior": "horseshoe"}, ["prior"]),
        (GLM, {"posterior": "full"}, ["posterior"]),
        (GLM, {"posterior_covariance": "sandwich"}, ["posterior_covariance"]),
        (GLM, {"learning_decay": 0.2}, ["learning_decay"]),
        (GLM, {"tol": -1.0}, ["tol"]),
        (LOGISTIC, {"link": "cloglog"}, ["link"]),
        (LOGISTIC, {"class_weight": "even"}, ["class_weight"]),
        (LOGISTIC, {"weight_precision": 0.0}, ["weight_precision=0.0"]),
        (LOGISTIC, {"intercept_precision": -1.0}, ["intercept_precision"]),
        (LOGISTIC, {"prior": "lasso"}, ["prior"]),
    ],
)
def test_errors_name_the_parameter(make, params, parts):
    X, y = simulate("logit", 20, 4)
    with pytest.raises(ValueError) as caught:
        make(**params).fit(np.abs(X), y)
    for part in parts:
        assert part in str(caught.value)


def test_errors_of_targets():
    X, y = simulate("poisson", 20, 4)
    for family in COUNTS:
        bad = y.copy()
        bad[3] = -2.0
        with pytest.raises(ValueError, match=rf"(?s){family}.*-2.*row 3"):
            VariationalGLMRegressor(family=family).fit(X, bad)
    X, y = simulate("softmax", 30, 3)
    with pytest.raises(ValueError, match=r"(?s)link='probit'.*3.*logit"):
        VariationalLogisticClassifier(link="probit").fit(X, y)
    with pytest.raises(ValueError, match="class"):
        VariationalLogisticClassifier().fit(X, np.zeros(30))
    with pytest.raises(ValueError, match="class_weight"):
        VariationalLogisticClassifier(class_weight={0: -1.0}).fit(X, y)
    X, y = simulate("poisson", 20, 4)
    for bad in (0.0, -1.0, np.nan, np.inf):
        rows = X.copy()
        rows[2, 1] = bad
        with pytest.raises(ValueError, match=r"exposure must name .*row 2"):
            VariationalGLMRegressor(exposure=1).fit(rows, y)
    rows[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"offset must name .*row 2"):
        VariationalGLMRegressor(offset=1).fit(rows, y)


def test_errors_of_predictions():
    X, y = simulate("poisson", 20, 4)
    model = VariationalGLMRegressor(exposure=3).fit(np.abs(X), y)
    with pytest.raises(ValueError, match="exclude each other"):
        model.predict(np.abs(X), return_std=True, return_cov=True)
    with pytest.raises(ValueError, match=r"quantiles=\[0.0, 0.5\]"):
        model.predict(np.abs(X), quantiles=[0.0, 0.5])
    with pytest.raises(ValueError, match=r"confidence_level=1.5"):
        model.predict_interval(np.abs(X), 1.5)
    with pytest.raises(ValueError, match="n_samples=0"):
        model.sample_posterior(0)
    with pytest.raises(ValueError, match="n_samples=0"):
        model.sample_y(np.abs(X), 0)
    with pytest.raises(ValueError, match="exposure must name"):
        model.predict(-np.abs(X))
    with pytest.raises(ValueError, match="4 features"):
        model.predict(X[:, :3])
    X, y = simulate("logit", 20, 4)
    model = VariationalLogisticClassifier().fit(X, y)
    with pytest.raises(ValueError, match="7"):
        model.log_predictive_density(X, np.full(20, 7))


# -- extremes --------------------------------------------------------------------------


@pytest.mark.parametrize("family", COUNTS)
def test_a_fit_of_many_rows_may_start_without_a_rare_column(family):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40_000, 4))
    X[:, 3] = 0.0
    X[1:4, 3] = 1.0
    y = rng.poisson(np.exp(0.3 * X[:, 0]))
    model = estimator(family).fit(X, y)
    assert model.converged_ and np.isfinite(model.elbo_)
    assert abs(model.coef_[0] - 0.3) < 5 * model.coef_std_[0]


@each_posterior
@pytest.mark.parametrize("params", [{}, {"weight_precision": 0.1}])
def test_a_stream_may_meet_a_column_that_was_constant(posterior, params):
    rng = np.random.default_rng(0)
    parts = estimator("poisson", posterior=posterior, **params)
    every = []
    for k in range(7):
        X = rng.standard_normal((500, 3))
        X[:, 1] = 0.0
        X[: 3 * (k > 0), 1] = 1.0
        y = rng.poisson(np.exp(0.3 * X[:, 0] + 0.5 * X[:, 1]))
        parts.partial_fit(X, y)
        every.append((X, y))
    X, y = (np.concatenate(part) for part in zip(*every))
    whole = estimator("poisson", posterior=posterior, **params).fit(X, y)
    gap = np.abs(parts.coef_ - whole.coef_) / whole.coef_std_
    assert np.all(gap < 2.5)
    assert parts.elbo_ == pytest.approx(whole.elbo_, abs=100.0)


def test_a_stream_refuses_other_parameters():
    X, y = simulate("poisson", 40, 2)
    for change in ({"family": "negative_binomial"}, {"fit_intercept": False}):
        model = estimator("poisson").fit(X, y)
        with pytest.raises(ValueError, match=f"{next(iter(change))}.*call fit"):
            model.set_params(**change).partial_fit(X, y)


def log_probability_by_sums(likelihood, y, m, sd, log_phi):
    eta = np.linspace(m - 12.0 * sd, m + 12.0 * sd, 400_001)
    each = likelihood.log_density(float(y), np.minimum(eta, 700.0), log_phi)
    each = each + stats.norm.logpdf(eta, m, sd)
    return special.logsumexp(each) + np.log(eta[1] - eta[0])


@pytest.mark.parametrize(
    "m, sd, y",
    [(1, 0.1, 3), (3, 2, 0), (3, 2, 1), (-2, 3, 5), (1, 10, 0), (5, 30, 0)]
    + [(-150, 50, 2), (150, 150, 1), (10, 1, 0), (12, 0.05, 162_000)],
)
@pytest.mark.parametrize("likelihood", [Poisson(), NegativeBinomial()])
def test_laws_of_counts_are_integrals(likelihood, m, sd, y):
    log_phi = -1.0 if likelihood.dispersed else 0.0
    law = CountLaw(
        likelihood,
        np.array([m, 0.0]),
        np.array([sd, 1.0]) ** 2,
        (log_phi, 0.0) if likelihood.dispersed else None,
    )
    expected = log_probability_by_sums(likelihood, y, m, sd, log_phi)
    assert law.log_density(np.array([y, y]))[0] == pytest.approx(expected, abs=5e-3)
    assert np.all(np.diff(law.quantile([0.1, 0.5, 0.9])[1]) >= 0.0)


def test_rows_far_out_do_not_take_memory_or_time_from_others():
    X, y = simulate("student_t", 60, 2)
    model = estimator("student_t").fit(X, y)
    far = np.tile(X, (40, 1))
    far[7] = 1e6 * far[7]
    tracemalloc.start()
    interval = model.predict_interval(far)
    density = model.log_predictive_density(far, np.tile(y, 40))
    assert tracemalloc.get_traced_memory()[1] < 300e6
    tracemalloc.stop()
    keep = np.arange(len(far)) != 7
    np.testing.assert_allclose(interval[keep], model.predict_interval(far[keep]))
    assert np.all(np.isfinite(interval)) and np.all(np.isfinite(density))


def test_student_t_law_is_the_likelihoods_where_weights_are_known():
    law = StudentLaw(4.0, np.zeros(1), np.full(1, 1e-14), (np.log(0.5), 0.0))
    exact = stats.t(4.0, scale=np.sqrt(0.5))
    for value in (0.3, -2.0, 50.0, 1e4):
        density = law.log_density(np.array([value]))[0]
        assert density == pytest.approx(exact.logpdf(value), abs=1e-6)
    p = np.array([0.001, 0.3, 0.99])
    np.testing.assert_allclose(law.quantile(p)[0], exact.ppf(p), rtol=1e-6)
    assert law.variance()[0] == pytest.approx(exact.var())


def test_draws_of_counts_far_from_the_data_are_counts():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((100, 2))
    y = rng.negative_binomial(0.3, 0.1, 100)
    model = estimator("negative_binomial").fit(X, y)
    draws = model.sample_y(1e4 * X[:5], n_samples=50, random_state=0)
    assert np.all(np.isfinite(draws)) and np.all(draws >= 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.all(np.isfinite(model.predict(1e4 * X[:5])))


def test_class_weight_may_name_classes_that_a_fold_lacks():
    X, y = simulate("logit", 40, 2)
    plain = estimator("logit", class_weight={0: 1.0, 1: 2.0}).fit(X, y)
    more = estimator("logit", class_weight={0: 1.0, 1: 2.0, 5: 3.0}).fit(X, y)
    assert more.elbo_ == plain.elbo_


@each_posterior
@pytest.mark.parametrize(
    "lam, kind", [(0.04, "logit"), (0.5, "logit"), (0.3, "poisson")]
)
def test_linear_response_is_nearly_the_sd_of_a_skewed_posterior(posterior, lam, kind):
    rng = np.random.default_rng(1)
    x = rng.standard_normal(10)
    x /= np.sqrt(np.mean(x**2))
    y = (x > 0.0).astype(int) if kind == "logit" else rng.poisson(np.exp(-2.0), 10)
    grid = np.linspace(-40.0, 40.0, 40_001)
    eta = np.outer(grid, x)
    each = y * eta - (np.logaddexp(0.0, eta) if kind == "logit" else np.exp(eta))
    weights = special.softmax(each.sum(axis=1) - 0.5 * lam * grid**2)
    sd = np.sqrt(weights @ grid**2 - (weights @ grid) ** 2)

    def fitted(posterior_covariance):
        model = estimator(
            kind,
            posterior=posterior,
            weight_precision=lam,
            fit_intercept=False,
            posterior_covariance=posterior_covariance,
        ).fit(x[:, None], y)
        return np.ravel(model.coef_std_)[0]

    assert fitted("variational") < sd
    assert fitted("linear_response") == pytest.approx(sd, rel=0.025)


@each_posterior
@pytest.mark.parametrize("prior", ["ridge", "ard"])
def test_linear_response_is_the_same_without_forming_rows_by_rows(
    posterior, prior, monkeypatch
):
    X, y = simulate("poisson", 120, 3)
    params = {"posterior": posterior, "prior": prior}
    model = estimator("poisson", posterior_covariance="linear_response", **params)
    formed = clone(model).fit(X, y).coef_covariance_
    monkeypatch.setattr(site_response, "FEW_ROWS", 50)
    unformed = clone(model).fit(X, y).coef_covariance_
    np.testing.assert_allclose(unformed, formed, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_sums_of_variances_are_those_of_variances(n_outputs):
    rng = np.random.default_rng(0)
    rows = DenseRows(np.append(rng.standard_normal((6, 50)), np.ones((6, 1)), axis=1))
    weights = rng.random(6)
    if n_outputs > 1:
        root = rng.standard_normal((6, n_outputs, n_outputs))
        weights = root @ root.transpose(0, 2, 1)
    precision = SitePrecision(rows, np.append(np.full(50, 2.0), 0.1), weights)
    at = np.arange(51 * n_outputs).reshape(n_outputs, 51)
    fast = [precision.variance_sum(part.ravel()) for part in (at[:, :50], at[:, 50])]
    variances = precision.variances()
    slow = [variances[part].sum() for part in (at[:, :50].ravel(), at[:, 50])]
    np.testing.assert_allclose(fast, slow, rtol=1e-10)
    P = rows.gram(weights) + np.diag(np.tile(precision.ridge, n_outputs))
    np.testing.assert_allclose(variances, np.diag(np.linalg.inv(P)), rtol=1e-8)
