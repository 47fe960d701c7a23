"""VariationalMixedEffectsRegressor and ...Classifier against known truths."""

import datetime
import json
import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
from scipy import optimize, sparse, special, stats
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import mixed_cases
from conftest import data_path
from mixed_cases import closed_bound, factors_of_q, predictors
from skvi import (
    VariationalGLMRegressor,
    VariationalLogisticClassifier,
    VariationalMixedEffectsClassifier,
    VariationalMixedEffectsRegressor,
    unwrap,
)
from skvi.callbacks import StopWhen
from skvi.metrics import elbo_scorer, log_predictive_density_scorer

FAMILIES = ["gaussian", "poisson", "binomial"]
LINKS = ["logit", "probit"]
KINDS = [*FAMILIES, *LINKS]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_family = pytest.mark.parametrize("family", FAMILIES)
each_posterior = pytest.mark.parametrize("posterior", ["structured", "mean_field"])
FLAT = {"weight_precision": 1e-8, "intercept_precision": 1e-8}


def estimator(kind, **params):
    if kind in LINKS:
        return VariationalMixedEffectsClassifier(link=kind, **params)
    return VariationalMixedEffectsRegressor(family=kind, **params)


def simulate(kind, n_levels=12, per_level=5, sd=1.0, slope_sd=0.0, seed=0, noise=1.0):
    """(frame with columns x, z, group and, of "binomial", trials; y), unbalanced."""
    rng = np.random.default_rng(seed)
    n = n_levels * per_level
    code = np.sort(np.append(np.arange(n_levels), rng.integers(0, n_levels, n)))[:n]
    code = rng.permutation(np.append(np.arange(n_levels), code)[:n])
    x, z = rng.standard_normal((2, n))
    u = rng.standard_normal((n_levels, 2)) * [sd, slope_sd]
    eta = 0.3 + 0.7 * x - 0.4 * z + u[code, 0] + u[code, 1] * x
    frame = pd.DataFrame({"x": x, "z": 10.0 + 3.0 * z, "group": code})
    if kind == "binomial":
        frame["trials"] = rng.integers(1, 10, n)
    return frame, answer(kind, eta, frame, rng, noise)


def answer(kind, eta, frame, rng, noise=1.0):
    n = len(eta)
    if kind == "gaussian":
        return 20.0 + 3.0 * (eta + noise * rng.standard_normal(n))
    if kind == "poisson":
        return rng.poisson(np.exp(eta)).astype(float)
    if kind == "binomial":
        return rng.binomial(frame["trials"], special.expit(eta)).astype(float)
    law = rng.logistic if kind == "logit" else rng.standard_normal
    return np.where(eta + law(size=n) > 0.0, "yes", "no")


def roles(kind):
    return {"trials": "trials"} if kind == "binomial" else {}


def fit(kind, frame, y, **params):
    params = {"groups": "group", **roles(kind), **params}
    return estimator(kind, **params).fit(frame, y)


def answers(model, X, **params):
    """What a fit says of rows: with uncertainty."""
    if hasattr(model, "classes_"):
        p = model.predict_proba(X, **params)
        return [p, model.decision_function(X)] if not params else [p]
    return list(model.predict(X, return_std=True, **params))


def assert_same(a, b, X, Xb=None, tolerance=1e-6, effects=True):
    """Two fits have the same bound, weights, effects (in sds) and answers."""
    assert a.elbo_ == pytest.approx(b.elbo_, rel=tolerance, abs=tolerance)
    sd = b.coef_std_
    np.testing.assert_allclose(a.coef_ / sd, b.coef_ / sd, atol=tolerance)
    np.testing.assert_allclose(a.coef_std_ / sd, 1.0, atol=tolerance)
    for here, there in zip(answers(a, X), answers(b, X if Xb is None else Xb)):
        np.testing.assert_allclose(here, there, rtol=tolerance, atol=tolerance)
    for name in a.levels_ if effects else ():
        one, other = a.random_effects_[name], b.random_effects_[name]
        np.testing.assert_allclose(
            one.mean / other.sd, other.mean / other.sd, atol=tolerance
        )
        np.testing.assert_allclose(one.sd, other.sd, rtol=tolerance)


def components(model):
    """{name of a variance component: (mean, sd, log_mean, log_sd)}."""
    table = model.variance_components_
    columns = table.mean, table.sd, table.log_mean, table.log_sd
    return {name: row for name, *row in zip(table.names, *columns)}


def plug_in(q):
    """({factor: E[Sigma^-1]^-1}, E[1 / noise]^-1)."""
    covariances = {name: psi / dof for name, (dof, psi) in q.laws.items()}
    return covariances, None if q.noise is None else q.noise[1] / q.noise[0]


# -- restricted maximum likelihood -----------------------------------------------------


def lme4_data(name):
    frame = pd.read_csv(data_path("mixed", f"{name}.csv.gz"))
    if name == "sleepstudy":
        return frame[["Days", "Subject"]], frame["Reaction"].to_numpy(float)
    return frame[["Batch"]], frame["Yield"].to_numpy(float)


def weak(dof, scale=1e-3):
    wishart = ("inverse_wishart", scale, dof)
    return {"sd_prior": wishart, "noise_sd_prior": ("inverse_wishart", scale, 1e-6)}


def test_dyestuff_is_restricted_maximum_likelihood_as_priors_weaken():
    X, y = lme4_data("dyestuff")
    model = VariationalMixedEffectsRegressor(
        groups="Batch", **weak(1e-6), **FLAT, max_iter=5000, tol=1e-10
    ).fit(X, y)
    assert model.converged_
    (covariance,), noise = [*plug_in(factors_of_q(model))[0].values()], None
    _, noise = plug_in(factors_of_q(model))
    assert model.intercept_ == pytest.approx(1527.5, abs=0.01)
    assert np.sqrt(covariance[0, 0]) == pytest.approx(42.00, abs=0.02)
    assert np.sqrt(noise) == pytest.approx(49.51, abs=0.02)


def test_dyestuff2_has_no_variance_among_batches_as_priors_weaken():
    X, y = lme4_data("dyestuff2")
    sds = []
    for scale in (0.3, 0.1, 0.01):
        params = weak(0.1, scale)
        params["noise_sd_prior"] = ("inverse_wishart", 1.0, 1e-6)
        model = VariationalMixedEffectsRegressor(
            groups="Batch", **params, **FLAT, max_iter=5000
        ).fit(X, y)
        (covariance,), noise = [*plug_in(factors_of_q(model))[0].values()], None
        _, noise = plug_in(factors_of_q(model))
        sds.append(np.sqrt(covariance[0, 0]))
    assert model.intercept_ == pytest.approx(5.6656, abs=1e-3)
    assert np.sqrt(noise) == pytest.approx(3.716, rel=0.01)
    assert sds[0] > 2.0 * sds[1] > 4.0 * sds[2]
    assert sds[2] < 0.05 * np.sqrt(noise)
    assert np.max(np.abs(model.random_effects_["Batch"].mean)) < 0.02


def test_sleepstudy_is_nearly_restricted_maximum_likelihood_as_priors_weaken():
    """Nearly: the least dof of two effects counts as one level more without any."""
    X, y = lme4_data("sleepstudy")
    model = VariationalMixedEffectsRegressor(
        groups="Subject", random_slopes="Days", **weak(1.0 + 1e-6), **FLAT
    ).fit(X, y)
    covariance, noise = plug_in(factors_of_q(model))
    covariance = covariance["Subject"]
    assert model.intercept_ == pytest.approx(251.405, abs=0.01)
    assert model.coef_[0] == pytest.approx(10.467, abs=0.001)
    sds = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(sds, [24.74, 5.92], rtol=0.065)
    assert covariance[0, 1] / np.prod(sds) == pytest.approx(0.07, abs=0.05)
    assert np.sqrt(noise) == pytest.approx(25.59, rel=0.01)


def dense_design(model, X):
    """(columns of level-centred features and level, {factor: its columns}), dense."""
    x, added, _, factors = mixed_cases.taken_apart(model, X)
    common = [x - model.X_offset_]
    if model.fit_intercept:
        common.append(np.ones((len(X), 1)))
    effects = {}
    for name, (codes, slopes) in factors.items():
        block = np.zeros((len(X), codes.max() + 1, slopes.shape[1]))
        block[np.arange(len(X)), codes] = slopes
        effects[name] = block
    return np.hstack(common), added, effects


def prior_of_common(model):
    """(mean, precision) of the fixed effects and the level, in the data's units."""
    lam = np.broadcast_to(model.weight_precision_, np.size(model.coef_))
    precision = lam * (model.X_scale_ / model.y_scale_) ** 2
    mean = np.zeros(len(precision))
    if model.fit_intercept:
        precision = np.append(precision, model.intercept_precision_)
        mean = np.append(mean, model.intercept_mean_)
    return mean, precision


OTHERS = list(mixed_cases.other_cases())
GAUSSIAN_CASES = [
    case
    for case in [*mixed_cases.mixed_cases(), *OTHERS]
    if case.name.startswith("mixed-gaussian")
]
each_gaussian = pytest.mark.parametrize(
    "case", GAUSSIAN_CASES, ids=lambda case: case.name
)


@each_gaussian
def test_gaussian_effects_are_those_of_a_dense_solve(case):
    X, y = case.data(np.random.default_rng(0))
    model = case.estimator().fit(X, y)
    q = factors_of_q(model)
    covariances, noise = plug_in(q)
    common, added, effects = dense_design(model, X)
    A = np.hstack([common, *[e.reshape(len(X), -1) for e in effects.values()]])
    mean, precision = prior_of_common(model)
    prior = np.diag(np.append(precision, np.zeros(A.shape[1] - len(precision))))
    start = len(precision)
    for name, block in effects.items():
        _, J, m = block.shape
        at = slice(start, start + J * m)
        prior[at, at] = np.kron(np.eye(J), np.linalg.inv(covariances[name]))
        start += J * m
    P = A.T @ A / noise + prior
    target = A.T @ (y - added) / noise
    target[: len(mean)] += precision * mean
    expected = np.linalg.inv(P)
    if model.posterior == "mean_field":
        blocks = np.zeros_like(P)
        for block in q.blocks:
            at = np.ix_(block, block)
            blocks[at] = np.linalg.inv(P[at])
        expected = blocks
    sd = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(q.mean / sd, np.linalg.solve(P, target) / sd, atol=1e-4)
    scale = np.outer(sd, sd)
    np.testing.assert_allclose(q.covariance / scale, expected / scale, atol=1e-6)
    # and the attributes are those of this q
    p = np.size(model.coef_)
    np.testing.assert_allclose(model.coef_ / sd[:p], q.mean[:p] / sd[:p], atol=1e-8)
    np.testing.assert_allclose(model.coef_std_, sd[:p], rtol=1e-6)
    np.testing.assert_allclose(
        model.coef_covariance_ / scale[:p, :p], expected[:p, :p] / scale[:p, :p], 1e-6
    )
    start = len(precision)
    for name in effects:
        table = model.random_effects_[name]
        size = table.mean.size
        at = slice(start, start + size)
        np.testing.assert_allclose(table.mean.ravel(), q.mean[at], atol=1e-8 * sd.max())
        np.testing.assert_allclose(table.sd.ravel(), sd[at], rtol=1e-6)
        start += size


def test_effects_are_best_linear_unbiased_predictions():
    """Generalised least squares, and S Z' V^-1 (y - X b) (Henderson 1975)."""
    frame, y = simulate("gaussian", 10, 6, slope_sd=0.6)
    model = fit("gaussian", frame, y, random_slopes="x", **FLAT, **weak(1.5, 0.3))
    by_number = clone(model).set_params(groups=2, random_slopes=0)
    by_number.fit(frame.to_numpy(float), y)
    covariances, noise = plug_in(factors_of_q(by_number))
    X = np.column_stack([frame[["x", "z"]], np.ones(len(y))])
    Z = np.zeros((len(y), 10, 2))
    Z[np.arange(len(y)), frame["group"]] = np.column_stack(
        [np.ones(len(y)), frame["x"]]
    )
    Z, S = Z.reshape(len(y), -1), np.kron(np.eye(10), covariances["x2"])
    V = Z @ S @ Z.T + noise * np.eye(len(y))
    b = np.linalg.solve(X.T @ np.linalg.solve(V, X), X.T @ np.linalg.solve(V, y))
    u = S @ Z.T @ np.linalg.solve(V, y - X @ b)
    np.testing.assert_allclose(model.coef_, b[:2], rtol=1e-4)
    assert model.intercept_ == pytest.approx(b[2], rel=1e-4)
    table = model.random_effects_["group"]
    np.testing.assert_allclose(table.mean, u.reshape(10, 2), atol=1e-3 * table.sd.min())


@pytest.mark.parametrize(
    "name", ["slope-inversewishart", "crossed-inversewishart", "one"]
)
def test_variance_components_are_at_a_maximum_of_the_penalised_likelihood(name):
    """Coordinate ascent with conjugate priors is EM: its plug-in covariances S have

    log p(y | S, s2), effects integrated out, less dof (log|S| + tr(D S^-1)) / 2 for
    each prior, as high as can be.
    """
    (case,) = [
        case
        for case in GAUSSIAN_CASES
        if case.name.startswith(f"mixed-gaussian-{name}")
        and case.name.endswith("structured")
    ]
    X, y = case.data(np.random.default_rng(1))
    noise_prior = ("inverse_wishart", 0.8, 2.0)
    wishart = case.params.get("sd_prior", ("inverse_wishart", 0.5, 2.5))
    model = case.estimator(noise_sd_prior=noise_prior, sd_prior=wishart, tol=1e-10)
    model.fit(X, y)
    q, units = factors_of_q(model), mixed_cases.units_of(model, X)
    common, added, effects = dense_design(model, X)
    mean, precision = prior_of_common(model)
    residual = y - added - common @ mean
    unit = np.sqrt(np.diag(plug_in(q)[0][next(iter(effects))]))

    def penalised(covariances, noise):
        V = noise * np.eye(len(y)) + (common / precision) @ common.T
        _, width, dof = noise_prior
        total = -0.5 * dof * (np.log(noise) + (width * model.y_scale_) ** 2 / noise)
        for name, block in effects.items():
            S = covariances[name]
            V += np.einsum("iga,ab,jgb->ij", block, S, block)
            _, width, dof = wishart
            D = np.diag((np.broadcast_to(width, len(S)) * units[name]) ** 2)
            trace = np.trace(np.linalg.solve(S, D))
            total -= 0.5 * dof * (np.linalg.slogdet(S)[1] + trace)
        return total + stats.multivariate_normal.logpdf(residual, cov=V)

    covariances, noise = plug_in(q)
    best = penalised(covariances, noise)
    rng = np.random.default_rng(0)
    for _ in range(30):
        near = {}
        for name, S in covariances.items():
            root = np.linalg.cholesky(S) @ (
                np.eye(len(S)) + 0.02 * np.tril(rng.standard_normal(S.shape))
            )
            near[name] = root @ root.T
        assert penalised(near, noise * np.exp(0.04 * rng.standard_normal())) < best
    assert np.all(unit > 0.0)


# -- fixed points ----------------------------------------------------------------------


@pytest.mark.parametrize("case", OTHERS, ids=lambda case: case.name)
def test_bounds_are_right_and_at_their_maximum(case):
    """Of the families by structures that are no rows of the contract."""
    X, y = case.data(np.random.default_rng(0))
    model = case.estimator().fit(X, y)
    start, bound = case.kind.bound(model, X, y)
    best = bound(start)
    assert best == pytest.approx(model.elbo_, abs=1e-8 * abs(model.elbo_))
    rng = np.random.default_rng(0)
    for sd in (0.1, 0.5):
        for _ in range(5):
            moved = bound(start + sd * rng.standard_normal(start.shape))
            assert moved <= best + 10 * model.tol
    draws = model.sample_posterior(4_000, 1)
    samples = case.kind.log_joint(model, X, y, draws)
    samples = samples - model.posterior_.log_density(draws)
    error = samples.std() / np.sqrt(len(samples))
    assert abs(samples.mean() - model.elbo_) < 4.5 * error
    if case.larger is not None:
        other = case.estimator(posterior="structured").fit(X, y)
        assert other.elbo_ >= model.elbo_ - model.tol


@pytest.mark.parametrize(
    "prior",
    [
        {"sd_prior": ("half_t", 0.8, 3.0), "correlation_concentration": 2.0},
        {"sd_prior": ("half_normal", (0.8, 1.5, 0.4))},
        {"sd_prior": ("half_cauchy", 1.0), "correlation_concentration": 0.6},
        {"sd_prior": ("inverse_wishart", 0.7, 2.5)},
    ],
)
def test_covariances_of_three_effects_are_at_their_maximum(prior):
    rng = np.random.default_rng(0)
    frame, y = simulate("gaussian", 8, 7, slope_sd=0.5)
    X = frame.to_numpy(float)
    model = VariationalMixedEffectsRegressor(
        groups=2, random_slopes=[0, 1], tol=1e-10, max_iter=2000, **prior
    ).fit(X, y)
    assert np.all(np.diff(model.elbo_path_) > -1e-9)
    q = factors_of_q(model)
    best = closed_bound(model, X, y, q)
    assert best == pytest.approx(model.elbo_, rel=1e-8)
    shapes = mixed_cases.shapes_of_moves(q, joint=True)
    rises = []
    for size in (0.02, 0.1, 0.5):
        for _ in range(20):
            moves = {name: np.zeros(shape) for name, shape in shapes.items()}
            for name in shapes:
                if name.startswith(("dof", "scale")):
                    moves[name] = size * rng.standard_normal(shapes[name])
            there = closed_bound(model, X, y, mixed_cases.moved(q, moves))
            rises.append(there - best)
    assert max(rises) <= 1e-7


@each_kind
@each_posterior
def test_the_path_rises_from_anywhere(kind, posterior):
    frame, y = simulate(kind, 15, 4, sd=2.0)
    other, far = simulate(kind, 15, 4, sd=0.1, seed=3)
    warm = fit(kind, other, far, posterior=posterior, warm_start=True)
    warm.fit(frame, y)
    cold = fit(kind, frame, y, posterior=posterior)
    for model in (cold, warm):
        assert model.converged_
        assert np.all(np.diff(model.elbo_path_) >= -1e-10 * abs(model.elbo_))
    assert warm.elbo_ == pytest.approx(cold.elbo_, abs=1e-3)


@each_kind
def test_without_groups_it_is_the_linear_model(kind):
    """Of the same priors; q(noise) is inverse gamma here, log-normal there."""
    frame, y = simulate(kind, 12, 8, sd=0.0)
    frame = frame.drop(columns="group")
    known = {"weight_precision": 0.5, "intercept_precision": 0.1}
    here = estimator(kind, **known, **roles(kind)).fit(frame, y)
    if kind in LINKS:
        there = VariationalLogisticClassifier(link=kind, **known).fit(frame, y)
    elif kind == "binomial":
        # a row of trials is as many rows of one
        n = np.append(frame["trials"] - y, y).astype(int)
        label = np.repeat(np.repeat([0, 1], len(y)), n)
        known = {"weight_precision": 1e-4, "intercept_precision": 1e-4}
        here.set_params(**known).fit(frame, y)
        there = VariationalLogisticClassifier(**known)
        rows = frame.drop(columns="trials").iloc[
            np.repeat(np.tile(np.arange(len(y)), 2), n)
        ]
        there.fit(rows, label)
        np.testing.assert_allclose(here.coef_, np.ravel(there.coef_), rtol=1e-3)
        np.testing.assert_allclose(here.coef_std_, np.ravel(there.coef_std_), rtol=1e-3)
        return
    else:
        there = VariationalGLMRegressor(
            family=kind, **known, intercept_mean=here.intercept_mean_
        ).fit(frame, y)
    sd = np.ravel(there.coef_std_)
    tolerance = 0.03 if kind == "gaussian" else 1e-5
    gap = np.ravel(here.coef_) - np.ravel(there.coef_)
    np.testing.assert_allclose(gap / sd, 0.0, atol=tolerance)
    np.testing.assert_allclose(np.ravel(here.coef_std_) / sd, 1.0, atol=tolerance)
    if kind != "gaussian":
        assert here.elbo_ == pytest.approx(there.elbo_, abs=1e-5)


# -- predictions -----------------------------------------------------------------------


def drawn_predictors(model, frame, draws, rng, known):
    """eta at draws, of rows whose level is known, or is a new one each."""
    n = len(draws["coef"])
    x = frame[["x", "z"]].to_numpy()
    eta = draws["coef"].reshape(n, -1) @ x.T + draws["intercept"].reshape(n, 1)
    t = np.column_stack([np.ones(len(x)), x[:, 0]])
    if model.random_slopes is None:
        t = t[:, :1]
    if known:
        levels = model.levels_["group"]
        code = np.searchsorted(levels, frame["group"])
        u = draws["effects_group"][:, code]
    else:
        root = np.linalg.cholesky(draws["covariance_group"])
        noise = rng.standard_normal((n, len(x), t.shape[1]))
        u = np.einsum("sab,sib->sia", root, noise)
    return eta + np.einsum("sia,ia->si", u, t)


def drawn_answers(kind, eta, frame, draws, rng):
    """(means, draws of y) at draws of eta."""
    if kind == "gaussian":
        sd = np.sqrt(draws["noise_variance"])[:, None]
        return eta, eta + sd * rng.standard_normal(eta.shape)
    if kind == "poisson":
        return np.exp(eta), rng.poisson(np.exp(np.minimum(eta, 20.0)))
    law = stats.norm if kind == "probit" else stats.logistic
    p = law.cdf(eta)
    n = frame["trials"].to_numpy() if kind == "binomial" else 1
    return n * p, rng.binomial(n, p)


def log_mass(kind, eta, frame, y, draws):
    if kind == "gaussian":
        return stats.norm.logpdf(y, eta, np.sqrt(draws["noise_variance"])[:, None])
    if kind == "poisson":
        return stats.poisson.logpmf(y, np.exp(eta))
    law = stats.norm if kind == "probit" else stats.logistic
    n, y = (frame["trials"].to_numpy(), y) if kind == "binomial" else (1, y == "yes")
    return stats.binom.logpmf(y, n, law.cdf(eta))


@each_kind
@pytest.mark.parametrize("known", [True, False], ids=["known", "unseen"])
@pytest.mark.parametrize("slopes", [None, "x"], ids=["intercepts", "slopes"])
def test_predictions_are_averages_over_the_posterior(kind, known, slopes):
    frame, y = simulate(kind, 20, 6, sd=0.7, slope_sd=0.4)
    model = fit(kind, frame, y, random_slopes=slopes)
    new, target = frame[:12].copy(), y[:12]
    if not known:
        new["group"] += 1000
    rng, n = np.random.default_rng(0), 40_000
    draws = model.sample_posterior(n, 0)
    eta = drawn_predictors(model, new, draws, rng, known)
    mean, each = drawn_answers(kind, eta, new, draws, rng)
    if kind in LINKS:
        p = model.predict_proba(new)
        np.testing.assert_allclose(p[:, 1], mean.mean(axis=0), atol=0.01)
        np.testing.assert_allclose(p.sum(axis=1), 1.0)
        np.testing.assert_allclose(model.decision_function(new), special.logit(p[:, 1]))
        labels = model.classes_[(p[:, 1] > 0.5).astype(int)]
        np.testing.assert_array_equal(model.predict(new), labels)
    else:
        found, std = model.predict(new, return_std=True)
        np.testing.assert_allclose(found, model.predict(new))
        error = mean.std(axis=0) / np.sqrt(n)
        assert np.all(np.abs(found - mean.mean(axis=0)) < 5.0 * error + 0.01 * std)
        if kind != "poisson" or known:  # exp(u) of new groups has tails too heavy
            np.testing.assert_allclose(std, each.std(axis=0), rtol=0.03)
        cov = model.predict(new, return_cov=True)[1]
        np.testing.assert_allclose(np.sqrt(np.diag(cov)), std, rtol=1e-6)
        low, high = model.predict_interval(new, 0.8).T
        if kind == "gaussian":
            expected = np.quantile(each, [0.1, 0.9], axis=0)
            np.testing.assert_allclose(low, expected[0], atol=0.04 * std.max())
            np.testing.assert_allclose(high, expected[1], atol=0.04 * std.max())
        else:
            assert np.all(np.mean(each < low, axis=0) <= 0.11)
            assert np.all(np.mean(each <= high, axis=0) >= 0.89)
            assert np.all(np.mean(each <= low, axis=0) >= 0.09)
            assert np.all(np.mean(each < high, axis=0) <= 0.91)
        quantiles = model.predict(new, quantiles=[0.1, 0.5, 0.9])
        np.testing.assert_allclose(quantiles[:, [0, 2]], np.c_[low, high])
    log_p = special.logsumexp(log_mass(kind, eta, new, target, draws), axis=0)
    found = model.log_predictive_density(new, target)
    np.testing.assert_allclose(found, log_p - np.log(n), atol=0.05)


@each_kind
def test_without_random_effects_every_row_is_of_a_new_level(kind):
    frame, y = simulate(kind, 10, 6)
    model = fit(kind, frame, y)
    new = frame.assign(group=frame["group"] + 1000)
    for here, there in zip(
        answers(model, frame, include_random=False),
        answers(model, new, include_random=True),
    ):
        np.testing.assert_allclose(here, there, rtol=1e-9)
    if kind not in LINKS:
        np.testing.assert_allclose(
            model.predict_interval(frame, include_random=False),
            model.predict_interval(new),
            rtol=1e-9,
        )
        mean = model.predict(frame)
        assert np.max(np.abs(mean - model.predict(frame, include_random=False))) > 0.1


def test_an_unseen_level_adds_the_expected_covariance():
    frame, y = simulate("gaussian", 30, 5, slope_sd=0.8)
    model = fit("gaussian", frame, y, random_slopes="x")
    new = frame[:6].assign(group=[-1, -2, -3, -4, -5, -6])
    mean, std = model.predict(new, return_std=True)
    x = new[["x", "z"]].to_numpy()
    np.testing.assert_allclose(mean, model.intercept_ + x @ model.coef_, rtol=1e-9)
    t = np.column_stack([np.ones(6), x[:, 0]])
    q = factors_of_q(
        clone(model).set_params(groups=2, random_slopes=0).fit(frame.to_numpy(float), y)
    )
    z = np.column_stack([x - model.X_offset_, np.ones(6)])
    fixed = np.einsum("ij,jk,ik->i", z, q.covariance[:3, :3], z)
    levels = np.einsum("ij,jk,ik->i", t, model.covariances_["group"], t)
    np.testing.assert_allclose(
        std**2, fixed + levels + model.noise_variance_, rtol=2e-3
    )


def test_rows_of_draws_agree_with_means_stds_and_covariances():
    frame, y = simulate("gaussian", 10, 6)
    model = fit("gaussian", frame, y)
    new = frame[:5].copy()
    new.loc[new.index[3:], "group"] = 99  # two rows of one new level
    mean, cov = model.predict(new, return_cov=True)
    draws = model.sample_y(new, 100_000, random_state=0)
    assert draws.shape == (5, 100_000)
    std = np.sqrt(np.diag(cov))
    assert np.all(np.abs(draws.mean(axis=1) - mean) < 5.0 * std / np.sqrt(1e5))
    scale = np.outer(std, std)
    np.testing.assert_allclose(np.cov(draws) / scale, cov / scale, atol=0.02)
    low, high = model.predict_interval(new, 0.9).T
    inside = np.mean((draws.T >= low) & (draws.T <= high), axis=0)
    np.testing.assert_allclose(inside, 0.9, atol=0.01)


@pytest.mark.parametrize("kind", ["poisson", "binomial"])
def test_draws_of_counts_agree_with_predictions(kind):
    frame, y = simulate(kind, 15, 6, sd=0.6)
    model = fit(kind, frame, y)
    new = frame[:6].copy()
    new.loc[new.index[3:], "group"] = [101, 102, 103]
    mean, std = model.predict(new, return_std=True)
    draws = model.sample_y(new, 50_000, random_state=0)
    assert np.all(draws >= 0.0) and np.all(draws == np.round(draws))
    if kind == "binomial":
        assert np.all(draws <= new["trials"].to_numpy()[:, None])
    np.testing.assert_allclose(draws.mean(axis=1), mean, rtol=0.03)
    known = slice(3) if kind == "poisson" else slice(6)  # exp(u) has heavy tails
    np.testing.assert_allclose(draws.std(axis=1)[known], std[known], rtol=0.05)
    low, high = model.predict_interval(new, 0.9).T
    inside = np.mean((draws.T >= low) & (draws.T <= high), axis=0)
    assert np.all(inside > 0.89)


def test_predictions_are_for_a_rows_own_exposure_and_trials():
    frame, y = simulate("poisson", 12, 6)
    frame["time"] = np.random.default_rng(1).uniform(0.5, 4.0, len(y))
    model = fit("poisson", frame, y, exposure="time")
    twice = frame.assign(time=2.0 * frame["time"])
    np.testing.assert_allclose(model.predict(twice), 2.0 * model.predict(frame))
    by_offset = fit(
        "poisson",
        frame.assign(time=np.log(frame["time"])),
        y,
        offset="time",
        intercept_mean=model.intercept_mean_,
    )
    assert by_offset.elbo_ == pytest.approx(model.elbo_, abs=1e-6)
    frame, y = simulate("binomial", 12, 6)
    model = fit("binomial", frame, y)
    more = frame.assign(trials=3 * frame["trials"])
    np.testing.assert_allclose(model.predict(more), 3.0 * model.predict(frame))
    assert np.all(model.predict(frame) < frame["trials"])
    one = fit("binomial", frame.drop(columns="trials"), (y > 0) * 1.0, trials=None)
    assert np.all(one.predict(frame.drop(columns="trials")) < 1.0)


def test_trials_are_rows_of_one_trial_each():
    """But for the number of their orders, which the binomial coefficient counts."""
    frame, y = simulate("binomial", 10, 4)
    together = fit("binomial", frame, y)
    n = np.append(frame["trials"] - y, y).astype(int)
    rows = pd.concat([frame, frame]).drop(columns="trials")
    rows = rows.iloc[np.repeat(np.arange(len(rows)), n)]
    label = np.repeat(np.repeat([0.0, 1.0], len(y)), n)
    # columns are standardised by rows: state the prior of raw weights
    ratio = frame[["x", "z"]].std(ddof=0) / rows[["x", "z"]].std(ddof=0)
    lam = 0.3 * ratio.to_numpy() ** 2
    together.set_params(weight_precision=0.3, intercept_precision=1e-6).fit(frame, y)
    apart = fit(
        "binomial",
        rows,
        label,
        trials=None,
        weight_precision=lam,
        intercept_precision=1e-6,
        intercept_mean=together.intercept_mean_,
    )
    sd = together.coef_std_
    np.testing.assert_allclose(apart.coef_ / sd, together.coef_ / sd, atol=1e-4)
    np.testing.assert_allclose(apart.coef_std_, sd, rtol=1e-4)
    orders = special.gammaln(frame["trials"] + 1) - special.gammaln(y + 1)
    orders -= special.gammaln(frame["trials"] - y + 1)
    assert together.elbo_ == pytest.approx(apart.elbo_ + orders.sum(), abs=1e-3)
    classifier = fit(
        "logit",
        rows,
        label,
        weight_precision=lam,
        intercept_precision=1e-6,
    )
    np.testing.assert_allclose(classifier.coef_[0] / sd, apart.coef_ / sd, atol=1e-3)


@each_posterior
def test_intervals_of_new_groups_cover(posterior):
    """Nine tenths of them, over simulations whose groups are all new."""
    covered = []
    for seed in range(10):
        frame, y = simulate("gaussian", 400, 4, sd=0.8, slope_sd=0.3, seed=seed)
        train = frame["group"] < 150
        model = fit(
            "gaussian",
            frame[train],
            y[train],
            random_slopes="x",
            posterior=posterior,
            posterior_covariance="linear_response",
        )
        low, high = model.predict_interval(frame[~train], 0.9).T
        covered.append(np.mean((low <= y[~train]) & (y[~train] <= high)))
    assert 0.88 <= np.mean(covered) <= 0.92


@pytest.mark.parametrize("kind", ["poisson", "binomial"])
def test_intervals_of_counts_of_new_groups_cover(kind):
    covered = []
    for seed in range(3):
        frame, y = simulate(kind, 300, 4, sd=0.8, seed=seed)
        train = frame["group"] < 100
        model = fit(kind, frame[train], y[train])
        low, high = model.predict_interval(frame[~train], 0.9).T
        # an interval of counts covers at least that: half of what ends hold counts
        y_new = y[~train]
        inside = np.mean((low <= y_new) & (y_new <= high))
        within = np.mean((low < y_new) & (y_new < high))
        covered.append([within, inside])
    within, inside = np.mean(covered, axis=0)
    assert within < 0.9 < inside + 0.01


def test_partial_pooling_predicts_better_than_none_and_complete_pooling():
    frame, y = simulate("gaussian", 25, 6, sd=0.7)
    test = np.random.default_rng(0).random(len(y)) < 0.3
    one_hot = pd.get_dummies(frame["group"], prefix="g").astype(float)
    pooled = frame.drop(columns="group")
    separate = pd.concat([pooled, one_hot], axis=1)
    partial = fit("gaussian", frame[~test], y[~test])
    scores = [
        np.mean(partial.log_predictive_density(frame[test], y[test])),
        *[
            np.mean(
                VariationalMixedEffectsRegressor(weight_precision=1e-4)
                .fit(X[~test], y[~test])
                .log_predictive_density(X[test], y[test])
            )
            for X in (pooled, separate)
        ],
    ]
    assert scores[0] > max(scores[1:]) + 0.01


# -- levels ----------------------------------------------------------------------------


def names_of_levels():
    """{dtype: (names of six levels in their sorted order, as a column's values)}."""
    days = pd.to_datetime([f"2024-0{i}-01" for i in range(1, 7)])
    words = ["a", "b", "c d", "é", "ö", "ü"]
    return {
        "int": pd.Series([-5, 0, 3, 7, 100, 2**40]),
        "small int": pd.Series(np.array([0, 1, 2, 3, 4, 250], dtype=np.uint8)),
        "float": pd.Series([-1.5, 0.0, 0.25, 1e-3 + 1, 2.0, 1e9]),
        "float32": pd.Series(np.array([-1.5, 0.1, 0.25, 1, 2, 3], dtype=np.float32)),
        "str": pd.Series(words),
        "object": pd.Series(words, dtype=object),
        "datetime": pd.Series(days),
        "timedelta": pd.Series(days - days[0]),
        "date": pd.Series([day.date() for day in days], dtype=object),
        "categorical": pd.Series(pd.Categorical(words, categories=words[::-1])),
        "categorical of ints": pd.Series(pd.Categorical([1, 2, 3, 5, 8, 13])),
        "nullable int": pd.Series([1, 2, 3, 5, 8, 13], dtype="Int64"),
        "float with NaN": pd.Series([-1.5, 0.0, 0.25, 1.0, 2.0, np.nan]),
        "object with None": pd.Series(["a", "b", "c", "d", "e", None], dtype=object),
        "nullable str": pd.Series(["a", "b", "c", "d", "e", pd.NA], dtype="string"),
        "nullable int with NA": pd.Series([1, 2, 3, 5, 8, pd.NA], dtype="Int64"),
        "datetime with NaT": pd.Series([*days[:5], pd.NaT]),
        "categorical with NaN": pd.Series(
            pd.Categorical(["a", "b", "c", "d", "e", None])
        ),
    }


NAMES = names_of_levels()
MISSING = [name for name in NAMES if " with " in name or name == "nullable str"]


@pytest.fixture(scope="module")
def six_levels():
    frame, y = simulate("gaussian", 6, 6)
    return frame, y, fit("gaussian", frame, y)


@pytest.mark.parametrize("dtype", NAMES)
def test_levels_of_any_dtype(dtype, six_levels):
    frame, y, expected = six_levels
    values = NAMES[dtype].iloc[frame["group"]].reset_index(drop=True)
    named = frame.assign(group=values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fit("gaussian", named, y)
        assert_same(model, expected, named, frame)
    levels = list(model.levels_["group"])
    assert len(levels) == 6
    for level, name in zip(levels, NAMES[dtype]):
        assert level == name or (pd.isna(level) and pd.isna(name))
    assert list(model.random_effects_["group"].levels[:5]) == levels[:5]
    # an unseen level, and a missing one where none was missing
    unseen = model.predict(named, include_random=False)
    other = named.assign(group=None)
    found = model.predict(other)
    if dtype in MISSING:
        gone = pd.isna(named["group"]).to_numpy()
        np.testing.assert_allclose(found[gone], model.predict(named)[gone])
        assert np.max(np.abs(found[gone] - unseen[gone])) > 1e-3
    else:
        np.testing.assert_allclose(found, unseen)
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.predict(named), model.predict(named))


def polars_columns(code):
    words = np.array(["a", "b", "c", "d", "e", "f"])[code]
    holes = [None if c == 5 else w for c, w in zip(code, words)]
    days = [datetime.date(2024, 1 + int(c), 1) for c in code]
    return {
        "int": pl.Series(code),
        "str": pl.Series(words),
        "categorical": pl.Series(words).cast(pl.Categorical),
        "enum": pl.Series(words, dtype=pl.Enum(list("fedcba"))),
        "str with None": pl.Series(holes, dtype=pl.String),
        "int with None": pl.Series([None if c == 5 else int(c) for c in code]),
        "date": pl.Series(days),
        "bool": pl.Series(code > 2),
    }


@pytest.mark.parametrize("dtype", polars_columns(np.arange(6)))
def test_levels_of_polars_frames(dtype, six_levels):
    frame, y, expected = six_levels
    code = frame["group"].to_numpy()
    table = pl.DataFrame({"x": frame["x"].to_numpy(), "z": frame["z"].to_numpy()})
    table = table.with_columns(polars_columns(code)[dtype].alias("group"))
    model = fit("gaussian", table, y)
    if dtype == "bool":
        expected = fit("gaussian", frame.assign(group=(code > 2) * 1), y)
        frame = frame.assign(group=(code > 2) * 1)
    assert_same(model, expected, table, frame)


def test_levels_of_booleans_and_of_arrays_of_objects(six_levels):
    frame, y, expected = six_levels
    code = frame["group"].to_numpy()
    bools, ints = frame.assign(group=code > 2), frame.assign(group=(code > 2) * 7)
    assert_same(fit("gaussian", bools, y), fit("gaussian", ints, y), bools, ints)
    rows = frame.astype(object).to_numpy()
    rows[:, 2] = np.array(["a", "b", "c", "d", "e", "f"], dtype=object)[code]
    model = VariationalMixedEffectsRegressor(groups=2).fit(rows, y)
    assert model.elbo_ == pytest.approx(expected.elbo_, abs=1e-8)
    listed = VariationalMixedEffectsRegressor(groups=2).fit(rows.tolist(), y)
    assert listed.elbo_ == model.elbo_
    rows[:, 2] = np.array(["a", "b", 3, 4.5, (1, 2), None], dtype=object)[code]
    mixed = VariationalMixedEffectsRegressor(groups=2).fit(rows, y)
    assert mixed.elbo_ == pytest.approx(expected.elbo_, abs=1e-6)
    np.testing.assert_allclose(mixed.predict(rows), expected.predict(frame), rtol=1e-6)


def test_categories_without_rows_are_no_levels(six_levels):
    frame, y, expected = six_levels
    words = np.array(list("abcdef"))[frame["group"]]
    named = frame.assign(group=pd.Categorical(words, categories=list("xabcdefyz")))
    model = fit("gaussian", named, y)
    assert_same(model, expected, named, frame)
    assert list(model.levels_["group"]) == list("abcdef")


def test_kinds_of_missing_are_one_level(six_levels):
    frame, y, expected = six_levels
    names = np.array(list("abcde") + [None], dtype=object)
    column = pd.Series(names[frame["group"]], dtype=object)
    gone = np.flatnonzero(frame["group"] == 5)
    column[gone[1:]] = np.nan
    column[gone[2:]] = pd.NA
    model = fit("gaussian", frame.assign(group=column), y)
    assert model.elbo_ == pytest.approx(expected.elbo_, abs=1e-8)


@pytest.mark.parametrize("kind", ["gaussian", "binomial", "logit"])
def test_order_of_rows_and_names_of_levels_do_not_matter(kind):
    frame, y = simulate(kind, 9, 5)
    frame["other"] = np.random.default_rng(3).integers(0, 4, len(y))
    model = fit(kind, frame, y, groups=["group", "other"])
    order = np.random.default_rng(1).permutation(len(y))
    shuffled = frame.iloc[order]
    assert_same(fit(kind, shuffled, y[order], groups=["group", "other"]), model, frame)
    # the factors in another order: the smaller one first
    assert_same(fit(kind, frame, y, groups=["other", "group"]), model, frame)
    renamed = frame.assign(group=(frame["group"] * 5 + 3) % 9, other=-frame["other"])
    other = fit(kind, renamed, y, groups=["group", "other"])
    assert_same(other, model, renamed, frame, effects=False)
    at = np.searchsorted(other.levels_["group"], (model.levels_["group"] * 5 + 3) % 9)
    one, two = other.random_effects_["group"], model.random_effects_["group"]
    np.testing.assert_allclose(one.mean[at] / two.sd, two.mean / two.sd, atol=1e-6)


@each_kind
@each_posterior
def test_weights_are_repetition(kind, posterior):
    frame, y = simulate(kind, 8, 5)
    weight = np.random.default_rng(0).integers(0, 3, len(y))
    weight[frame["group"] == 3] = 0  # a level without any row that counts
    rows = np.repeat(np.arange(len(y)), weight)
    params = {"groups": "group", **roles(kind), "posterior": posterior}
    a = estimator(kind, **params).fit(frame, y, sample_weight=weight)
    b = estimator(kind, **params).fit(frame.iloc[rows], y[rows])
    assert_same(a, b, frame)
    assert 3 not in a.levels_["group"]
    half = estimator(kind, **params).fit(frame, y, sample_weight=0.5 * weight)
    assert np.all(half.coef_std_ > a.coef_std_)


def test_nested_factors_are_combinations():
    rng = np.random.default_rng(0)
    n = 90
    frame = pd.DataFrame(
        {
            "x": rng.standard_normal(n),
            "school": rng.choice(["n", "s", "w", "e"], n),
            "class": rng.integers(1, 4, n),
        }
    )
    pairs = frame["school"] + ":" + frame["class"].astype(str)
    u = dict(zip(np.unique(pairs), rng.standard_normal(12)))
    y = frame["x"] + pairs.map(u) + 0.5 * rng.standard_normal(n)
    nested = VariationalMixedEffectsRegressor(groups=["school", ("school", "class")])
    nested.fit(frame, y)
    assert set(nested.levels_) == {"school", "school:class"}
    assert len(nested.levels_["school:class"]) == len(np.unique(pairs))
    flat = VariationalMixedEffectsRegressor(groups=["school", "pair"])
    with_pair = frame.assign(pair=pairs).drop(columns="class")
    flat.fit(with_pair, y)
    assert nested.elbo_ == pytest.approx(flat.elbo_, abs=1e-8)
    np.testing.assert_allclose(nested.predict(frame), flat.predict(with_pair))
    one, two = nested.random_effects_["school:class"], flat.random_effects_["pair"]
    np.testing.assert_allclose(one.mean, two.mean, atol=1e-8)
    # a new class of a known school has the school's effect
    new = frame[:4].assign(**{"class": 9})
    other = with_pair[:4].assign(pair="new")
    np.testing.assert_allclose(nested.predict(new), flat.predict(other))
    only = VariationalMixedEffectsRegressor(groups=[("school", "class")])
    assert only.fit(frame, y).coef_.shape == (1,)
    # a combination with something missing is a level, too
    holes = frame.assign(**{"class": frame["class"].astype(float)})
    holes.loc[holes["class"] == 3, "class"] = np.nan
    missing = clone(nested).fit(holes, y)
    assert missing.elbo_ == pytest.approx(nested.elbo_, abs=1e-8)


def test_a_constant_group_a_level_a_row_and_a_level_seen_once():
    frame, y = simulate("gaussian", 6, 6)
    constant = fit("gaussian", frame.assign(group="all"), y)
    assert constant.converged_ and constant.random_effects_["group"].mean.shape == (
        1,
        1,
    )
    rows = fit("gaussian", frame.assign(group=np.arange(len(y))), y)
    assert rows.converged_
    total = rows.covariances_["group"][0, 0] + rows.noise_variance_
    residual = y - np.polyval(np.polyfit(frame["x"], y, 1), frame["x"])
    assert 0.5 * residual.var() < total < 2.5 * residual.var()
    once = frame.assign(group=np.where(np.arange(len(y)) == 0, -1, frame["group"]))
    model = fit("gaussian", once, y)
    assert model.random_effects_["group"].mean.shape == (7, 1)
    table = model.random_effects_["group"]
    assert table.sd[0, 0] > table.sd[1:, 0].max()
    assert table.shrinkage[0, 0] > table.shrinkage[1:, 0].max()


def test_random_slopes_by_factor():
    frame, y = simulate("gaussian", 10, 8, slope_sd=1.0)
    frame["other"] = np.random.default_rng(1).integers(0, 5, len(y))
    both = {"groups": ["group", "other"]}
    one = fit("gaussian", frame, y, **both, random_slopes={"group": "x"})
    assert one.random_effects_["group"].mean.shape == (10, 2)
    assert one.random_effects_["other"].mean.shape == (5, 1)
    assert list(one.random_effects_["group"].effects) == ["intercept", "x"]
    every = fit("gaussian", frame, y, **both, random_slopes="x")
    assert every.random_effects_["other"].mean.shape == (5, 2)
    two = fit("gaussian", frame, y, **both, random_slopes={"group": ["x", "z"]})
    assert two.covariances_["group"].shape == (3, 3)
    assert one.coef_.shape == (2,)  # a slope is a feature, too
    named = fit(
        "gaussian",
        frame,
        y,
        groups=[("group", "other")],
        random_slopes={("group", "other"): ["x"]},
    )
    assert named.random_effects_["group:other"].mean.shape[1] == 2


@pytest.mark.parametrize("kind", ["gaussian", "poisson", "logit"])
def test_slopes_are_those_of_the_column_as_given(kind):
    """Scaling a slope's column by c scales its effects by 1 / c."""
    frame, y = simulate(kind, 10, 8, slope_sd=0.8)
    model = fit(kind, frame, y, random_slopes="x")
    other = fit(kind, frame.assign(x=10.0 * frame["x"]), y, random_slopes="x")
    a, b = model.random_effects_["group"], other.random_effects_["group"]
    assert other.elbo_ == pytest.approx(model.elbo_, abs=1e-6)
    np.testing.assert_allclose(b.mean * [1.0, 10.0] / a.sd, a.mean / a.sd, atol=1e-5)
    np.testing.assert_allclose(b.sd * [1.0, 10.0], a.sd, rtol=1e-5)
    np.testing.assert_allclose(
        other.covariances_["group"] * np.outer([1.0, 10.0], [1.0, 10.0]),
        model.covariances_["group"],
        rtol=1e-5,
    )
    # but a shift moves what intercepts mean
    far = fit(kind, frame.assign(x=frame["x"] + 30.0), y, random_slopes="x")
    assert abs(far.elbo_ - model.elbo_) > 0.5


# -- linear response -------------------------------------------------------------------


def exact_by_quadrature(frame, y, model):
    """Posterior sds of (fixed effects, log sd of groups, log sd of noise).

    Of one factor of intercepts: all that is Gaussian is integrated out by hand, the two
    sds on a grid.
    """
    Z = (frame["group"].to_numpy()[:, None] == model.levels_["group"]).astype(float)
    x = frame[["x", "z"]].to_numpy()
    design = np.column_stack([x - model.X_offset_, np.ones(len(y))])
    mean, precision = prior_of_common(model)
    target = y - design @ mean
    s = model.y_scale_
    log_tau = np.log(s) + np.linspace(-5.0, 2.0, 71)
    log_sigma = np.log(s) + np.linspace(-3.0, 1.0, 61)
    of_logs = [
        # of a variance exp(2 a), by a
        mixed_cases.log_prior_of_covariance(
            prior, 1.0, np.array([s]), np.exp(2.0 * a)[:, None, None]
        )
        + np.log(2.0)
        + 2.0 * a
        for prior, a in (
            (model.sd_prior_["group"], log_tau),
            (model.noise_sd_prior_, log_sigma),
        )
    ]
    weight, means, variances = [], [], []
    # V = tau^2 Z Z' + sigma^2 I is diagonal in the basis of Z Z'
    d, U = np.linalg.eigh(Z @ Z.T)
    design, target = U.T @ design, U.T @ target
    for a, log_p_tau in zip(log_tau, of_logs[0]):
        for b, log_p_sigma in zip(log_sigma, of_logs[1]):
            v = np.exp(2 * a) * np.maximum(d, 0.0) + np.exp(2 * b)
            P = design.T @ (design / v[:, None])
            h = design.T @ (target / v)
            Q = P + np.diag(precision)
            m = np.linalg.solve(Q, h)
            log_p = -0.5 * (np.log(v).sum() + target @ (target / v) - h @ m)
            log_p -= 0.5 * np.linalg.slogdet(Q)[1]
            weight.append(log_p + log_p_tau + log_p_sigma)
            means.append(m)
            variances.append(np.diag(np.linalg.inv(Q)))
    w = special.softmax(weight)
    grid = np.array([(a, b) for a in log_tau for b in log_sigma])
    centre = w @ grid
    sds = np.sqrt(w @ (grid - centre) ** 2)
    means = np.array(means)
    fixed = np.sqrt(w @ np.array(variances) + w @ (means - w @ means) ** 2)
    return fixed[:2], w @ means + mean, centre, sds


@pytest.mark.parametrize("posterior", ["structured", "mean_field"])
@pytest.mark.parametrize("n_levels, per_level", [(12, 5), (40, 4), (15, 20)])
def test_linear_response_is_the_sd_of_the_exact_posterior(
    posterior, n_levels, per_level
):
    frame, y = simulate("gaussian", n_levels, per_level, sd=0.8, seed=1)
    params = {"posterior": posterior, "posterior_covariance": "linear_response"}
    model = fit("gaussian", frame, y, **params)
    plain = fit("gaussian", frame, y, posterior=posterior)
    fixed, mean, centre, sds = exact_by_quadrature(frame, y, model)
    np.testing.assert_allclose((model.coef_ - mean[:2]) / fixed, 0.0, atol=0.1)
    ratio = model.coef_std_ / fixed
    assert np.all(ratio > 0.93) and np.all(ratio < 1.05)
    table = components(model)
    group, noise = table["sd(group: intercept)"], table["sd(noise)"]
    assert abs(group[2] - centre[0]) < 0.3 * sds[0]
    assert abs(noise[2] - centre[1]) < 0.3 * sds[1]
    assert 0.8 < group[3] / sds[0] < 1.2
    assert 0.93 < noise[3] / sds[1] < 1.07
    # the posterior and its bound are as they were
    assert model.elbo_ == plain.elbo_
    a, b = (m.sample_posterior(20, 0) for m in (model, plain))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    narrow = components(plain)
    assert narrow["sd(group: intercept)"][3] < group[3]


@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
@each_posterior
def test_linear_response_is_the_derivative_of_the_mean_in_a_tilt(kind, posterior):
    """Its definition. A move of the level's prior mean tilts the log joint."""
    frame, y = simulate(kind, 10, 6, sd=0.6)
    x = frame[["x", "z"]]
    frame[["x", "z"]] = (x - x.mean()) / x.std(ddof=0)  # level and intercept are one
    centre, kappa = (y.mean(), 2.0) if kind == "gaussian" else (0.3, 2.0)
    made = {
        "posterior": posterior,
        "posterior_covariance": "linear_response",
        "intercept_precision": kappa,
        "tol": 1e-12,
        "max_iter": 3000,
    }
    model = fit(kind, frame, y, intercept_mean=centre, **made)
    y_scale = model.y_scale_ if kind == "gaussian" else 1.0
    h = 0.02 * y_scale
    up, down = (
        fit(kind, frame, y, intercept_mean=centre + s * h, **made) for s in (1, -1)
    )
    variance = (up.intercept_ - down.intercept_) / (2.0 * h) * y_scale**2 / kappa
    assert model.intercept_std_**2 == pytest.approx(variance, rel=0.01)
    cross = (up.coef_ - down.coef_) / (2.0 * h) * y_scale**2 / kappa
    assert np.all(np.abs(cross) < model.coef_std_ * model.intercept_std_)


@pytest.mark.parametrize("kind", ["gaussian", "binomial", "probit"])
def test_linear_response_widens_and_never_touches_the_posterior(kind):
    frame, y = simulate(kind, 12, 8, sd=0.8, slope_sd=0.4)
    for posterior in ("structured", "mean_field"):
        params = {"random_slopes": "x", "posterior": posterior}
        plain = fit(kind, frame, y, **params)
        wide = fit(kind, frame, y, **params, posterior_covariance="linear_response")
        assert wide.elbo_ == plain.elbo_
        assert np.all(wide.coef_std_ > 0.98 * plain.coef_std_)
        a, b = (m.variance_components_ for m in (wide, plain))
        sds = np.isfinite(a.log_sd)
        assert np.all(a.log_sd[sds] > b.log_sd[sds])
        table = wide.random_effects_["group"]
        # where sds among levels are smaller than q takes them for, levels are known
        # better (the binomial rows were compared with long runs of NUTS)
        assert np.all(table.sd > 0.85 * plain.random_effects_["group"].sd)
        covariance = wide.coef_covariance_
        np.testing.assert_allclose(np.diag(covariance), np.ravel(wide.coef_std_) ** 2)
        assert np.all(np.linalg.eigvalsh(covariance) > 0.0)
        if posterior == "mean_field":
            structured = fit(
                kind,
                frame,
                y,
                random_slopes="x",
                posterior_covariance="linear_response",
            )
            ratio = np.ravel(wide.coef_std_) / np.ravel(structured.coef_std_)
            assert np.all(ratio > 0.85) and np.all(ratio < 1.15)


# -- against NUTS ----------------------------------------------------------------------


def reference_problem(name):
    """(fit, groups' column, reference as {parameter: statistics}, fixed effects)."""
    reference = json.loads(data_path("reference", f"{name}.json").read_text())
    frame = pd.read_csv(data_path("mixed", f"{name.split('_')[0]}.csv.gz"))
    table = {
        parameter: {key: reference[key][i] for key in ("mean", "sd", "q05", "q95")}
        for i, parameter in enumerate(reference["parameters"])
    }
    params = {"posterior_covariance": "linear_response"}
    if name == "sleepstudy_lmm":
        y, X = frame["Reaction"].to_numpy(float), frame[["Days", "Subject"]]
        s, d = y.std(), frame["Days"].std(ddof=0)
        params |= {"groups": "Subject", "random_slopes": "Days"}
        params["sd_prior"] = ("half_normal", (50.0 / s, 20.0 * d / s))
        params["noise_sd_prior"] = ("half_normal", 50.0 / s)
        params["weight_precision"] = (s / (1000.0 * d)) ** 2
        params["intercept_precision"] = (s / 1000.0) ** 2
        fixed = {"beta[0]": "intercept", "beta[1]": "Days"}
    elif name == "radon_lmm":
        y, X = frame["log_radon"].to_numpy(), frame[["log_uranium", "floor", "county"]]
        s, d = y.std(), X[["log_uranium", "floor"]].std(ddof=0).to_numpy()
        params |= {"groups": "county", "sd_prior": ("half_normal", 1.0 / s)}
        params["noise_sd_prior"] = ("half_normal", 1.0 / s)
        params["weight_precision"] = (s / (10.0 * d)) ** 2
        params["intercept_precision"] = (s / 10.0) ** 2
        fixed = {"mu_alpha": "intercept", "beta[0]": "log_uranium", "beta[1]": "floor"}
    elif name == "dyestuff_lmm":
        y, X = frame["Yield"].to_numpy(float), frame[["Batch"]]
        s = y.std()
        params |= {"groups": "Batch", "sd_prior": ("half_normal", 100.0 / s)}
        params["noise_sd_prior"] = ("half_normal", 100.0 / s)
        params |= {"intercept_mean": 1500.0, "intercept_precision": (s / 1000.0) ** 2}
        fixed = {"mu": "intercept"}
    elif name == "epil_poisson_glmm":
        y = frame["y"].to_numpy(float)
        treated = (frame["trt"] == "progabide").astype(float)
        X = pd.DataFrame(
            {
                "one": 1.0,
                "lbase": frame["lbase"],
                "trt": treated,
                "both": treated * frame["lbase"],
                "lage": frame["lage"],
                "V4": frame["V4"],
                "subject": frame["subject"].astype(str),
            }
        )
        params |= {"family": "poisson", "groups": "subject"}
    else:
        y = frame["incidence"].to_numpy(float)
        X = pd.DataFrame({"one": np.ones(len(y))})
        for period in (2, 3, 4):
            X[f"period{period}"] = (frame["period"] == period) * 1.0
        X["size"], X["herd"] = frame["size"], frame["herd"].astype(str)
        params |= {"family": "binomial", "trials": "size", "groups": "herd"}
    if "family" in params:
        # A prior of raw weights, the intercept's among them, is stated exactly.
        features = X.drop(columns=[params["groups"], *X.columns.intersection(["size"])])
        scale = np.sqrt((features**2).mean()).to_numpy()
        params |= {"fit_intercept": False, "sd_prior": ("half_normal", 1.0)}
        params["weight_precision"] = 1.0 / (2.5 * scale) ** 2
        fixed = {f"beta[{j}]": column for j, column in enumerate(features)}
    model = VariationalMixedEffectsRegressor(**params).fit(X, y)
    return model, params["groups"], table, fixed


REFERENCES = ["sleepstudy_lmm", "radon_lmm", "epil_poisson_glmm", "cbpp_binomial_glmm"]
SDS = {
    "sd_intercept": "intercept",
    "sd_slope": "Days",
    "sd_group": "intercept",
    "sigma_alpha": "intercept",
}


@pytest.mark.parametrize("name", [*REFERENCES, "dyestuff_lmm"])
def test_agrees_with_nuts(name):
    model, group, table, fixed = reference_problem(name)
    assert model.converged_
    few = name == "dyestuff_lmm"  # six batches: what is Gaussian about q shows
    names = list(model.feature_names_in_)
    kept = [n for n in names if n not in (group, model.trials)]
    for parameter, column in fixed.items():
        reference = table[parameter]
        mean, sd = model.intercept_, model.intercept_std_
        if column != "intercept":
            j = kept.index(column)
            mean, sd = model.coef_[j], model.coef_std_[j]
        assert abs(mean - reference["mean"]) < 0.1 * reference["sd"], parameter
        ratio = sd / reference["sd"]
        assert (0.75 if few else 0.93) < ratio < (1.25 if few else 1.05), parameter
    for parameter, effect in SDS.items():
        if parameter not in table:
            continue
        reference = table[parameter]
        log_sd = components(model)[f"sd({group}: {effect})"][3]
        exact = np.log(reference["q95"] / reference["q05"]) / (2.0 * 1.6449)
        assert (0.5 if few else 0.8) < log_sd / exact < (1.5 if few else 1.2), parameter
    u = np.array([table[key]["mean"] for key in table if key.startswith("u[")])
    sd = np.array([table[key]["sd"] for key in table if key.startswith("u[")])
    effects = model.random_effects_[group].mean.ravel()
    gap = np.abs(effects - u) / sd
    assert gap.max() < (0.2 if few else 0.1)
    found = model.random_effects_[group].sd.ravel() / sd
    if not few:
        assert 0.85 < np.median(found) < 1.1


# -- frames, pipelines, searches -------------------------------------------------------


def schools(n=160, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.normal(12.0, 2.0, n),
            "school": rng.choice(["n", "s", "w", "e", "c", "x", "y", "z"], n),
            "kind": rng.choice(["a", "b"], n),
            "class": rng.integers(0, 3, n),
        }
    )
    u = dict(zip("nswecxyz", rng.standard_normal(8)))
    y = 50.0 + 3.0 * frame["school"].map(u) + 2.0 * (frame["age"] - 12.0)
    return frame, (y + 2.0 * rng.standard_normal(n)).to_numpy()


def prepared(output):
    return ColumnTransformer(
        [
            ("scale", StandardScaler(), ["age"]),
            ("code", OneHotEncoder(sparse_output=False, drop="first"), ["kind"]),
        ],
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform=output)


@pytest.mark.parametrize("kind, output", [("gaussian", "pandas"), ("logit", "polars")])
def test_pipelines_and_cross_validation_see_the_groups(kind, output):
    frame, y = schools()
    groups = frame["school"].to_numpy()
    if kind == "logit":
        y = np.where(y > np.median(y), "high", "low")
    if output == "polars":
        frame = pl.DataFrame(frame.to_dict("list"))
    model = estimator(kind, groups=["school", ("school", "class")])
    pipeline = make_pipeline(prepared(output), model)
    rows = KFold(3, shuffle=True, random_state=0)
    for scoring in (log_predictive_density_scorer, None):
        inside = cross_val_score(pipeline, frame, y, cv=rows, scoring=scoring)
        outside = cross_val_score(
            pipeline, frame, y, cv=GroupKFold(3), groups=groups, scoring=scoring
        )
        assert np.all(np.isfinite(inside)) and np.all(np.isfinite(outside))
        if scoring is not None:  # rows of other groups are harder to foretell
            assert inside.mean() > outside.mean() + 0.05
    everything = np.arange(len(y))
    key = f"{pipeline.steps[-1][0]}__"
    search = GridSearchCV(
        pipeline,
        {
            f"{key}posterior": ["mean_field", "structured"],
            f"{key}random_slopes": [None, {"school": "age"}],
        },
        scoring=elbo_scorer,
        cv=[(everything, everything)],
    ).fit(frame, y)
    last, seen = unwrap(search, frame)
    assert last.elbo_ == pytest.approx(search.best_score_)
    assert search.best_params_[f"{key}posterior"] == "structured"
    assert "school" in seen.columns and last.levels_.keys() == {
        "school",
        "school:class",
    }


def test_columns_by_name_and_by_number_are_the_same():
    frame, y = simulate("gaussian", 8, 5)
    by_name = fit("gaussian", frame, y, random_slopes="x")
    by_number = VariationalMixedEffectsRegressor(groups=2, random_slopes=0)
    by_number.fit(frame.to_numpy(float), y)
    assert by_number.elbo_ == pytest.approx(by_name.elbo_, rel=1e-12)
    assert list(by_number.levels_) == ["x2"] and list(by_name.levels_) == ["group"]
    from_end = VariationalMixedEffectsRegressor(groups=-1, random_slopes=-3)
    from_end.fit(frame.to_numpy(float), y)
    assert from_end.elbo_ == by_number.elbo_
    assert list(by_name.feature_names_in_) == ["x", "z", "group"]
    assert by_name.n_features_in_ == 3 and by_name.coef_.shape == (2,)
    moved = frame[["group", "z", "x"]]
    assert fit("gaussian", moved, y, random_slopes="x").elbo_ == pytest.approx(
        by_name.elbo_, rel=1e-10
    )
    with pytest.raises(ValueError, match="feature names"):
        by_name.predict(moved)


@pytest.mark.parametrize("kind", ["gaussian", "logit"])
def test_saves_loads_and_clones(kind):
    frame, y = simulate(kind, 8, 5)
    frame["name"] = np.array(["a", None, "c"], dtype=object)[np.arange(len(y)) % 3]
    groups = ["group", ("group", "name"), "name"]
    model = fit(kind, frame, y, groups=groups, random_slopes={"group": ["x"]})
    again = clone(model).fit(frame, y)
    assert again.elbo_ == model.elbo_
    payload = skops.io.dumps(model)
    trusted = skops.io.get_untrusted_types(data=payload)
    assert all(name.startswith("skvi.") for name in trusted)
    for copy in (
        pickle.loads(pickle.dumps(model)),
        skops.io.loads(payload, trusted=trusted),
    ):
        for a, b in zip(answers(copy, frame), answers(model, frame)):
            np.testing.assert_array_equal(a, b)
        assert repr(copy.random_effects_) == repr(model.random_effects_)
        assert repr(copy.variance_components_) == repr(model.variance_components_)


@pytest.mark.parametrize("kind", ["gaussian", "poisson", "probit"])
def test_warm_starts(kind):
    frame, y = simulate(kind, 12, 5)
    warm = fit(kind, frame, y, warm_start=True)
    first, elbo = warm.n_iter_, warm.elbo_
    warm.fit(frame, y)
    assert warm.n_iter_ <= min(first, 4)
    assert warm.elbo_ == pytest.approx(elbo, abs=1e-4)
    # other levels, other slopes, other families: from anew, or from what is of use
    some = frame["group"] < 7
    warm.fit(frame[some], y[some])
    fresh = fit(kind, frame[some], y[some])
    assert warm.elbo_ == pytest.approx(fresh.elbo_, abs=1e-3)
    assert len(warm.levels_["group"]) == 7
    warm.set_params(random_slopes="x", posterior="mean_field").fit(frame, y)
    fresh = fit(kind, frame, y, random_slopes="x", posterior="mean_field")
    assert warm.elbo_ == pytest.approx(fresh.elbo_, abs=1e-3)
    warm.set_params(groups=None, random_slopes=None).fit(frame, y)
    assert warm.levels_ == {}


# -- the engine, as users see it -------------------------------------------------------


def test_max_iter_warns():
    frame, y = simulate("poisson", 12, 5)
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        model = fit("poisson", frame, y, max_iter=2)
    assert not model.converged_ and np.isfinite(model.elbo_)
    assert np.all(np.isfinite(model.predict(frame)))


@each_kind
def test_callbacks_see_a_fitted_estimator_at_every_iteration(kind):
    frame, y = simulate(kind, 8, 5)
    seen = []

    def condition(fitted):
        seen.append((fitted.elbo_, np.ravel(answers(fitted, frame[:1])[0])[0]))
        return len(seen) == 3

    model = estimator(kind, groups="group", **roles(kind))
    model.set_callbacks(StopWhen(condition))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(frame, y)
    np.testing.assert_allclose([elbo for elbo, _ in seen], model.elbo_path_)
    assert seen[-1] == (model.elbo_, np.ravel(answers(model, frame[:1])[0])[0])
    assert len(seen) == 3 and not model.converged_


def test_verbose_prints_the_elbo(capsys):
    frame, y = simulate("gaussian", 8, 5)
    model = fit("gaussian", frame, y, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(model.elbo_path_)
    assert float(lines[-1].split()[-1]) == pytest.approx(model.elbo_, abs=1e-5)


# -- tables ----------------------------------------------------------------------------


@each_kind
def test_tables_of_effects_and_components(kind):
    frame, y = simulate(kind, 8, 6, slope_sd=0.5)
    frame["other"] = np.where(frame["z"] > 10.0, "up", "down")
    model = fit(kind, frame, y, groups=["group", "other"], random_slopes={"group": "x"})
    table = model.random_effects_.to_pandas()
    columns = ["group", "level", "effect", "mean", "sd", "shrinkage"]
    assert list(table.columns) == columns
    assert len(table) == 8 * 2 + 2
    own = table[table["group"] == "group"]
    effects = model.random_effects_["group"]
    np.testing.assert_allclose(
        own["mean"].to_numpy().reshape(8, 2), effects.mean, rtol=1e-12
    )
    assert set(own["effect"]) == {"intercept", "x"} == set(effects.effects)
    np.testing.assert_array_equal(effects.levels, model.levels_["group"])
    assert np.all(effects.sd > 0.0)
    # between the level's own data and the population alone
    assert np.all(effects.shrinkage > 0.0) and np.all(effects.shrinkage < 1.3)
    for words in (repr(model.random_effects_), model.random_effects_._repr_html_()):
        assert "intercept" in words and "shrinkage" in words
    parts = model.variance_components_
    expected = [
        "sd(group: intercept)",
        "sd(group: x)",
        "corr(group: intercept, x)",
        "sd(other: intercept)",
    ]
    expected += ["sd(noise)"] * (kind == "gaussian")
    assert sorted(parts.names) == sorted(expected)
    frame_of_parts = parts.to_pandas()
    assert list(frame_of_parts["component"]) == list(parts.names)
    np.testing.assert_allclose(frame_of_parts["mean"], parts.mean)
    for words in (repr(parts), parts._repr_html_()):
        assert "sd(group: x)" in words
    draws = model.sample_posterior(60_000, 0)
    S = draws["covariance_group"]
    sds = np.sqrt(np.diagonal(S, axis1=1, axis2=2))
    of_draws = {
        "sd(group: intercept)": sds[:, 0],
        "sd(group: x)": sds[:, 1],
        "corr(group: intercept, x)": S[:, 0, 1] / (sds[:, 0] * sds[:, 1]),
        "sd(other: intercept)": np.sqrt(draws["covariance_other"][:, 0, 0]),
    }
    if kind == "gaussian":
        of_draws["sd(noise)"] = np.sqrt(draws["noise_variance"])
    for name, z in of_draws.items():
        i = list(parts.names).index(name)
        low, high = np.quantile(z, [0.025, 0.975])
        spread = np.subtract(*np.quantile(z, [0.84, 0.16])) / 2.0
        # Intervals are those of a log-normal law with the log's moments; the tails of
        # two levels are heavier.
        if "other" not in name:
            assert parts.lower[i] == pytest.approx(low, abs=0.5 * spread)
            assert parts.upper[i] == pytest.approx(high, rel=0.15)
        if name.startswith("corr"):
            assert parts.mean[i] == pytest.approx(z.mean(), abs=0.05 * spread)
            assert np.isnan(parts.log_mean[i]) and np.isnan(parts.log_sd[i])
            continue
        assert parts.log_mean[i] == pytest.approx(np.log(z).mean(), abs=0.02)
        assert parts.log_sd[i] == pytest.approx(np.log(z).std(), rel=0.03)
        if "other" not in name:  # of two levels: too heavy a tail to tell by draws
            assert parts.mean[i] == pytest.approx(z.mean(), rel=0.03)


def test_shrinkage_is_the_share_of_the_population():
    frame, y = simulate("gaussian", 10, 6)
    model = fit("gaussian", frame, y)
    table = model.random_effects_["group"]
    among = np.sqrt(np.diag(model.covariances_["group"]))
    ratio = table.sd**2 / among**2 / table.shrinkage
    # about some variance among levels, the same for all of them
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-6)
    assert 0.5 < ratio[0, 0] < 2.0
    counts = np.bincount(frame["group"])
    assert stats.spearmanr(table.shrinkage[:, 0], counts).statistic < -0.9


@each_kind
def test_summary_and_contrasts(kind):
    frame, y = simulate(kind, 10, 6)
    model = fit(kind, frame, y)
    table = model.summary(confidence_level=0.9)
    draws = model.sample_posterior(50_000, 0)
    coef = draws["coef"].reshape(-1, 2)
    everything = np.column_stack([coef, draws["intercept"].ravel()])
    np.testing.assert_allclose(table.sd, everything.std(axis=0), rtol=0.03)
    gap = (table.mean - everything.mean(axis=0)) / table.sd
    np.testing.assert_allclose(gap, 0.0, atol=0.03)
    assert any("x" in name for name in table.names)
    assert not any("group" in name for name in table.names)
    assert table.to_pandas().shape == (3, 5)
    contrast = model.summary(contrasts={"sum": {"x": 1, "z": 1}, "gap": [1, -1]})
    a, b = coef.T
    np.testing.assert_allclose(contrast.sd, [(a + b).std(), (a - b).std()], rtol=0.03)
    with pytest.raises(ValueError, match=r"group.*x"):
        model.summary(contrasts={"bad": {"group": 1.0}})


# -- hard data -------------------------------------------------------------------------


@each_posterior
def test_crossed_factors_with_one_row_a_cell(posterior):
    """Penicillin: 24 plates by 6 samples, one row each."""
    rng = np.random.default_rng(0)
    plate, sample = (v.ravel() for v in np.indices((24, 6)))
    y = 23.0 + 0.85 * rng.standard_normal(24)[plate]
    y += 1.9 * rng.standard_normal(6)[sample] + 0.55 * rng.standard_normal(144)
    frame = pd.DataFrame({"plate": plate, "sample": sample})
    model = VariationalMixedEffectsRegressor(
        groups=["plate", "sample"], posterior=posterior
    ).fit(frame, y)
    assert model.converged_ and model.coef_.shape == (0,)
    table = components(model)
    assert table["sd(plate: intercept)"][0] == pytest.approx(0.85, rel=0.35)
    assert table["sd(sample: intercept)"][0] == pytest.approx(1.9, rel=0.6)
    assert table["sd(noise)"][0] == pytest.approx(0.55, rel=0.15)
    if posterior == "mean_field":
        joint = VariationalMixedEffectsRegressor(groups=["plate", "sample"])
        joint.fit(frame, y)
        assert joint.elbo_ > model.elbo_ + 1.0
        assert joint.intercept_std_ > 5.0 * model.intercept_std_


@pytest.mark.parametrize("kind", ["logit", "probit", "binomial", "poisson"])
@each_posterior
def test_levels_that_are_separated_converge(kind, posterior):
    """All successes in some levels, none in others: effects are large and finite."""
    frame, y = simulate(kind, 10, 6, sd=0.0)
    high = frame["group"] < 5
    if kind in LINKS:
        y = np.where(high, "yes", "no")
    elif kind == "binomial":
        y = np.where(high, frame["trials"], 0).astype(float)
    else:
        y = np.where(high, 500.0, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fit(kind, frame, y, posterior=posterior)
    assert np.all(np.diff(model.elbo_path_) >= -1e-9 * abs(model.elbo_))
    effects = model.random_effects_["group"].mean[:, 0]
    assert np.all(np.isfinite(effects))
    assert effects[:5].min() > effects[5:].max() + 1.0
    for values in answers(model, frame):
        assert np.all(np.isfinite(values))


@pytest.mark.parametrize("kind", ["gaussian", "poisson", "logit"])
def test_units_and_shifts_of_columns_do_not_matter(kind):
    frame, y = simulate(kind, 10, 6)
    model = fit(kind, frame, y)
    for other in (frame.assign(z=1e6 * frame["z"]), frame.assign(z=frame["z"] + 1e6)):
        there = fit(kind, other, y)
        assert there.elbo_ == pytest.approx(model.elbo_, abs=1e-5)
        for a, b in zip(answers(there, other), answers(model, frame)):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    if kind == "gaussian":
        there = fit(kind, frame, 1e-3 * y + 7.0)
        assert there.elbo_ == pytest.approx(model.elbo_ - len(y) * np.log(1e-3))
        a, b = components(there), components(model)
        for name in a:
            np.testing.assert_allclose(a[name][0], 1e-3 * b[name][0], rtol=1e-6)


def test_a_known_answer_of_the_optimum():
    """One level variance and one noise: the best q by a general optimiser."""
    frame, y = simulate("gaussian", 6, 5)
    X = frame.to_numpy(float)
    model = VariationalMixedEffectsRegressor(groups=2, tol=1e-10).fit(X, y)
    q = factors_of_q(model)
    shapes = mixed_cases.shapes_of_moves(q, joint=True)
    names = [name for name in shapes if name.startswith(("dof", "scale", "mean"))]
    sizes = [int(np.prod(shapes[name])) for name in names]

    def minus(coordinates):
        moves = {name: np.zeros(shape) for name, shape in shapes.items()}
        parts = np.split(coordinates, np.cumsum(sizes)[:-1])
        for name, part in zip(names, parts):
            moves[name] = part.reshape(shapes[name])
        return -closed_bound(model, X, y, mixed_cases.moved(q, moves))

    rng = np.random.default_rng(0)
    start = 0.2 * rng.standard_normal(sum(sizes))
    found = optimize.minimize(minus, start, method="L-BFGS-B", options={"maxiter": 40})
    assert -found.fun <= model.elbo_ + 1e-6
    assert -found.fun == pytest.approx(model.elbo_, abs=1e-3)


def test_predictors_of_draws_are_those_of_the_attributes():
    frame, y = simulate("gaussian", 6, 5, slope_sd=0.4)
    X = frame.to_numpy(float)
    model = VariationalMixedEffectsRegressor(groups=2, random_slopes=0).fit(X, y)
    draws = model.sample_posterior(20_000, 0)
    eta = predictors(model, X, draws)
    mean, std = model.predict(X, return_std=True)
    np.testing.assert_allclose(eta.mean(axis=0), mean, atol=0.05 * std.min())
    total = eta.var(axis=0) + model.noise_variance_
    np.testing.assert_allclose(np.sqrt(total), std, rtol=0.02)


# -- errors ----------------------------------------------------------------------------

R, C = VariationalMixedEffectsRegressor, VariationalMixedEffectsClassifier
G = {"groups": "group"}
B = {"family": "binomial"}
IW = "inverse_wishart"


@pytest.mark.parametrize(
    "make, params, parts",
    [
        (R, {"family": "gamma"}, ["family", "gamma"]),
        (R, {"posterior": "full"}, ["posterior"]),
        (R, {"posterior_covariance": "sandwich"}, ["posterior_covariance"]),
        (R, {"tol": -1.0}, ["tol"]),
        (R, {"max_iter": 0}, ["max_iter"]),
        (R, {"groups": "grup"}, ["groups", "grup", "group"]),
        (R, {"groups": 9}, ["groups", "9"]),
        (R, {"groups": []}, ["groups"]),
        (R, {"groups": ["group", "group"]}, ["groups", "group"]),
        (R, {"groups": [("group", "group")]}, ["groups", "group"]),
        (R, {"groups": "group", "offset": "group"}, ["offset", "group"]),
        (R, {**G, "random_slopes": "group"}, ["random_slopes", "group"]),
        (R, {**G, "random_slopes": "nope"}, ["random_slopes", "nope"]),
        (R, {**G, "random_slopes": ["x", "x"]}, ["random_slopes", "x"]),
        (R, {**G, "random_slopes": {"nope": "x"}}, ["random_slopes", "nope"]),
        (R, {**G, "random_slopes": {"group": "nope"}}, ["random_slopes", "nope"]),
        (R, {**G, "random_slopes": "same"}, ["random_slopes", "same", "one value"]),
        (R, {"random_slopes": "x"}, ["random_slopes", "groups"]),
        (R, {**G, "offset": "x", "random_slopes": "x"}, ["random_slopes", "x"]),
        (R, {**G, "sd_prior": ("half_what", 1.0)}, ["sd_prior", "half_what"]),
        (R, {**G, "sd_prior": ("half_normal", -1.0)}, ["sd_prior", "-1.0"]),
        (R, {**G, "sd_prior": ("half_normal",)}, ["sd_prior"]),
        (R, {**G, "sd_prior": ("half_t", 1.0)}, ["sd_prior", "half_t"]),
        (R, {**G, "sd_prior": ("half_t", 1.0, 0.0)}, ["sd_prior"]),
        (R, {**G, "sd_prior": ("half_normal", (1.0, 2.0))}, ["sd_prior"]),
        (R, {**G, "sd_prior": (IW, 1.0, 0.0)}, ["sd_prior", "degrees of freedom"]),
        (R, {**G, "sd_prior": 1.0}, ["sd_prior"]),
        (
            R,
            {**G, "random_slopes": "x", "sd_prior": (IW, 1.0, 0.9)},
            ["sd_prior", "0.9"],
        ),
        (R, {**G, "sd_prior": {"nope": ("half_normal", 1.0)}}, ["nope", "group"]),
        (R, {**G, "noise_sd_prior": ("half_normal", (1.0, 2.0))}, ["noise_sd_prior"]),
        (
            R,
            {"family": "poisson", "noise_sd_prior": ("half_normal", 1.0)},
            ["noise_sd_prior", "poisson"],
        ),
        (R, {"exposure": "x"}, ["exposure", "gaussian"]),
        (R, {**B, "exposure": "time"}, ["exposure", "binomial"]),
        (R, {"trials": "time"}, ["trials", "gaussian"]),
        (R, {**G, "correlation_concentration": 0.0}, ["correlation_concentration"]),
        (R, {"weight_precision": -1.0}, ["weight_precision=-1.0"]),
        (R, {"weight_precision": [1.0, 2.0]}, ["weight_precision"]),
        (R, {"intercept_precision": 0.0}, ["intercept_precision"]),
        (R, {"fit_intercept": False, "intercept_precision": 1.0}, ["intercept_pre"]),
        (C, {"link": "cloglog"}, ["link"]),
        (C, {"groups": "nope"}, ["groups", "nope"]),
        (C, {**G, "sd_prior": ("half_t", 1.0)}, ["sd_prior", "half_t"]),
    ],
)
def test_errors_name_the_parameter(make, params, parts):
    frame, y = simulate("logit", 6, 5)
    frame = frame.assign(same=2.0, time=np.arange(len(frame)) + 1.0)
    if make is R:
        y = (y == "yes") * 1.0
    with pytest.raises((ValueError, TypeError)) as caught:
        make(**params).fit(frame, y)
    for part in parts:
        assert part in str(caught.value)


def test_errors_of_targets_and_roles():
    frame, y = simulate("poisson", 6, 5)
    bad = y.copy()
    bad[3] = -2.0
    with pytest.raises(ValueError, match=r"(?s)poisson.*-2.*row 3"):
        fit("poisson", frame, bad)
    frame, y = simulate("binomial", 6, 5)
    bad = y.copy()
    bad[4] = frame["trials"][4] + 1
    with pytest.raises(ValueError, match=r"y\[4\].*trials"):
        fit("binomial", frame, bad)
    with pytest.raises(ValueError, match="trials"):
        fit("binomial", frame, y + 1.0, trials=None)
    for value in (0.5, -1.0):
        bad = y.copy()
        bad[2] = value
        with pytest.raises(ValueError, match=r"(?s)row 2"):
            fit("binomial", frame, bad)
    for value in (-1.0, np.nan, 1.5):
        with pytest.raises(ValueError, match="trials"):
            fit("binomial", frame.assign(trials=value), np.zeros(len(y)))
    three = np.array(["a", "b", "c"])[np.arange(len(y)) % 3]
    with pytest.raises(ValueError, match=r"(?i)(class|multiclass)"):
        VariationalMixedEffectsClassifier(groups="group").fit(frame, three)
    with pytest.raises(ValueError, match="class"):
        VariationalMixedEffectsClassifier(groups="group").fit(frame, np.zeros(len(y)))
    with pytest.raises((TypeError, ValueError), match=r"(?i)sparse"):
        VariationalMixedEffectsRegressor(groups=0).fit(
            sparse.csr_array(np.ones((4, 2))), np.arange(4.0)
        )


def test_errors_of_predictions():
    frame, y = simulate("gaussian", 6, 5)
    model = fit("gaussian", frame, y)
    with pytest.raises(ValueError, match="exclude each other"):
        model.predict(frame, return_std=True, return_cov=True)
    with pytest.raises(ValueError, match=r"quantiles=\[0.0, 0.5\]"):
        model.predict(frame, quantiles=[0.0, 0.5])
    with pytest.raises(ValueError, match=r"confidence_level=1.5"):
        model.predict_interval(frame, 1.5)
    with pytest.raises(ValueError, match="n_samples=0"):
        model.sample_posterior(0)
    with pytest.raises(ValueError, match="n_samples=0"):
        model.sample_y(frame, 0)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.drop(columns="z"))
    with pytest.raises(KeyError, match="nope"):
        model.random_effects_["nope"]
    frame, y = simulate("logit", 6, 5)
    model = fit("logit", frame, y)
    with pytest.raises(ValueError, match="maybe"):
        model.log_predictive_density(frame, np.full(len(y), "maybe"))
    with pytest.raises(AttributeError):
        model.partial_fit(frame, y)


@each_kind
def test_a_failing_fit_loses_nothing_fitted(kind):
    frame, y = simulate(kind, 8, 5)
    model = fit(kind, frame, y)
    before = dict(model.__dict__)
    for bad in (
        {"groups": "nope"},
        {"groups": ["group", "group"]},
        {"random_slopes": "group"},
        {"sd_prior": ("half_normal", -1.0)},
        {"sd_prior": {"nope": ("half_normal", 1.0)}},
        {"tol": -1.0},
    ):
        kept = {name: getattr(model, name) for name in bad}
        with pytest.raises(ValueError):
            model.set_params(**bad).fit(frame, y)
        model.set_params(**kept)
        assert model.__dict__.keys() == before.keys()
        assert all(model.__dict__[name] is before[name] for name in before)
    with pytest.raises(ValueError):
        model.fit(frame.assign(x=np.nan), y)
    for a in answers(model, frame):
        assert np.all(np.isfinite(a))


def test_a_refit_forgets_the_last_one():
    frame, y = simulate("gaussian", 8, 5)
    model = fit("gaussian", frame, y, random_slopes="x")
    model.set_params(groups=None, random_slopes=None).fit(frame, y)
    assert model.levels_ == {} and model.covariances_ == {}
    assert model.coef_.shape == (3,)  # what named the groups is a feature again
    assert len(model.random_effects_.to_pandas()) == 0
    assert list(model.variance_components_.names) == ["sd(noise)"]
    model.set_params(family="poisson").fit(frame, np.round(np.abs(y)))
    assert not hasattr(model, "noise_variance_")
    assert "noise_variance" not in model.sample_posterior(2, 0)
    assert len(model.variance_components_.names) == 0


def test_slopes_far_from_zero_are_told():
    frame, y = simulate("gaussian", 10, 6, sd=0.8, slope_sd=0.4)
    far = frame.assign(x=2000.0 + frame["x"])
    with pytest.warns(UserWarning, match="standard deviations from zero"):
        fit("gaussian", far, y, random_slopes="x")


def test_new_levels_of_counts_have_finite_predictions():
    # E exp(S / 2) is infinite under laws of a variance with long tails
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(3), 6)
    frame = pd.DataFrame({"x": rng.standard_normal(18), "group": group})
    y = rng.poisson(np.exp(0.5 + rng.normal(0.0, 0.7, 3)[group])).astype(float)
    new = pd.DataFrame({"x": [0.0, 1.0], "group": [98, 99]})
    for covariance in ("variational", "linear_response"):
        model = fit("poisson", frame, y, posterior_covariance=covariance)
        mean, std = model.predict(new, return_std=True)
        assert np.all(mean < 50.0) and np.all(np.isfinite(std))
        quantiles = model.predict(new, quantiles=[0.05, 0.5, 0.95])
        assert np.all(np.diff(quantiles, axis=1) > 0.0) and quantiles.max() < 200.0


def test_slopes_do_not_widen_the_law_of_intercepts():
    # where a slope is hardly determined, rows with x = 0 do not feel it
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(15), 6)
    x = rng.standard_normal(90)
    y = 1.0 + x + rng.standard_normal(15)[group] + 0.7 * rng.standard_normal(90)
    frame = pd.DataFrame({"x": x, "group": group})
    new = pd.DataFrame({"x": [0.0], "group": [99]})
    widths = [
        np.diff(
            fit(
                "gaussian",
                frame,
                y,
                random_slopes=slopes,
                posterior_covariance="linear_response",
            ).predict_interval(new, 0.9)
        ).item()
        for slopes in (None, "x")
    ]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_linear_response_of_clusters_of_binary_rows_settles():
    # undamped, the sites go to and fro here
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(30), 50)
    eta = rng.normal(0.0, 4.0, 30)[group] + 0.5 * rng.standard_normal(1500)
    y = eta + rng.logistic(size=1500) > 0.0
    frame = pd.DataFrame({"group": group})
    plain = VariationalMixedEffectsClassifier(groups="group").fit(frame, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wide = VariationalMixedEffectsClassifier(
            groups="group", posterior_covariance="linear_response"
        ).fit(frame, y)
    a, b = (m.variance_components_.log_sd[0] for m in (wide, plain))
    assert b < a < 2.0 * b
    assert np.all(np.isfinite(wide.random_effects_["group"].sd))


@pytest.mark.parametrize("missing", [True, False])
def test_times_are_levels_in_any_unit(missing):
    times = pd.Series(pd.date_range("2020-01-01", periods=3, freq="MS")).repeat(8)
    times = times.reset_index(drop=True)
    y = np.repeat([0.0, 2.0, 4.0], 8) + np.tile(np.linspace(-0.3, 0.3, 8), 3)
    if missing:
        times[5] = pd.NaT
    frame = pd.DataFrame({"t": times})
    model = VariationalMixedEffectsRegressor(groups="t").fit(frame, y)
    assert model.random_effects_["t"].mean[0, 0] < -1.0
    other = pd.DataFrame({"t": times.astype("datetime64[s]")})
    np.testing.assert_array_equal(model.predict(other), model.predict(frame))


def test_factors_of_equal_names_are_refused():
    frame = pd.DataFrame({"a:b": [1, 2] * 9, "a": [1, 2, 3] * 6, "b": [1, 1, 2] * 6})
    y = np.arange(18.0)
    for groups in (["a:b", ("a", "b")], [("a", "b"), ("b", "a")]):
        with pytest.raises(ValueError, match="name"):
            VariationalMixedEffectsRegressor(groups=groups).fit(frame, y)
    # a column may be called what the noise is called
    frame = frame.rename(columns={"a": "noise"})[["noise"]]
    model = VariationalMixedEffectsRegressor(
        groups="noise", posterior_covariance="linear_response"
    ).fit(frame, y)
    table = model.variance_components_
    assert table.names == ["sd(noise: intercept)", "sd(noise)"]
    assert table.mean[0] != table.mean[1]


def test_linear_response_of_levels_of_few_zeros_and_ones():
    # a Gaussian q understates how much such levels differ: beside quadrature over all,
    # the sd's log on a grid, the weights by Laplace's method at each
    rng = np.random.default_rng(3)
    n_levels, n = 120, 480
    group = np.repeat(np.arange(n_levels), 4)
    x = rng.standard_normal(n)
    eta = 0.5 * x + rng.normal(0.0, 2.5, n_levels)[group]
    y = (rng.logistic(size=n) + eta > 0.0).astype(int)
    frame = pd.DataFrame({"x": x, "group": group})
    model = VariationalMixedEffectsClassifier(
        groups="group", posterior_covariance="linear_response"
    ).fit(frame, y)
    z = (x - x.mean()) / x.std()
    design = np.column_stack([z, np.ones(n)])
    nodes, shares = special.roots_hermitenorm(120)
    shares = np.log(shares / shares.sum())
    sign = 2.0 * y - 1.0

    def minus_log_density(w, log_sd):
        eta = (design @ w)[:, None] + np.exp(log_sd) * nodes
        rows = special.log_expit(sign[:, None] * eta)
        levels = rows.reshape(n_levels, 4, -1).sum(axis=1) + shares
        prior = stats.norm.logpdf(w, 0.0, [2.5, 5.0]).sum()
        return -special.logsumexp(levels, axis=1).sum() - prior

    grid = np.linspace(0.2, 1.8, 33)
    logs, tops, covariances, w = [], [], [], np.zeros(2)
    for log_sd in grid:
        found = optimize.minimize(minus_log_density, w, (log_sd,), tol=1e-8)
        w, h = found.x, 1e-3
        H = np.empty((2, 2))
        for a in range(2):
            for b in range(2):
                e = np.eye(2) * h
                values = [
                    minus_log_density(w + s * e[a] + t * e[b], log_sd)
                    for s, t in ((1, 1), (1, -1), (-1, 1), (-1, -1))
                ]
                H[a, b] = (values[0] - values[1] - values[2] + values[3]) / (4 * h * h)
        prior = stats.t.logpdf(np.exp(log_sd), 3.0) + log_sd
        logs.append(-found.fun - 0.5 * np.linalg.slogdet(H)[1] + prior)
        tops.append(w)
        covariances.append(np.linalg.inv(H))
    share = np.exp(np.array(logs) - max(logs))
    share /= share.sum()
    mean = share @ grid
    sd = np.sqrt(share @ (grid - mean) ** 2)
    table = model.variance_components_
    assert table.log_mean[0] == pytest.approx(mean, abs=0.1 * sd)
    assert table.log_sd[0] == pytest.approx(sd, rel=0.05)
    tops, covariances = np.array(tops), np.array(covariances)
    top = share @ tops
    variance = share @ (covariances[:, 0, 0] + (tops[:, 0] - top[0]) ** 2)
    assert model.coef_std_[0, 0] * x.std() == pytest.approx(np.sqrt(variance), rel=0.03)
    gap = model.coef_[0, 0] * x.std() - top[0]
    assert abs(gap) < 0.2 * np.sqrt(variance)
    plain = VariationalMixedEffectsClassifier(groups="group").fit(frame, y)
    assert plain.variance_components_.log_mean[0] < mean - 0.5 * sd


@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
def test_effects_alone(kind):
    # no feature and no intercept: only levels
    frame, y = simulate(kind, 10, 6, sd=0.8)
    only = frame[["group"]]
    for covariance in ("variational", "linear_response"):
        model = fit(kind, only, y, fit_intercept=False, posterior_covariance=covariance)
        assert model.coef_.shape == (0,) and model.intercept_ == 0.0
        assert np.all(np.isfinite(model.random_effects_["group"].sd))
        assert np.all(model.predict(only, return_std=True)[1] > 0.0)


def test_a_prior_of_correlations_that_nothing_reads_is_refused():
    frame, y = simulate("gaussian", 8, 5, slope_sd=0.4)
    wishart = {"sd_prior": ("inverse_wishart", 1.0, 3.0), "random_slopes": "x"}
    for params in ({}, wishart):
        with pytest.raises(ValueError, match="correlation_concentration"):
            fit("gaussian", frame, y, correlation_concentration=2.0, **params)


def test_the_mean_of_the_level_of_successes():
    frame, y = simulate("binomial", 8, 5)
    model = fit("binomial", frame, y, intercept_mean=1.0, intercept_precision=1e6)
    level = model.intercept_ + model.coef_ @ model.X_offset_
    assert level == pytest.approx(1.0, abs=0.01) and model.intercept_mean_ == 1.0
