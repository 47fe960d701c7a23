"""VariationalBayesianRegression against truths that are known independently."""

import json
import tracemalloc
import warnings

import numpy as np
import pytest
from scipy import integrate, linalg, sparse, special, stats
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.linear_model import BayesianRidge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from conftest import data_path
from skvi import VariationalBayesianRegression
from skvi.callbacks import StopWhen
from skvi.distributions import Gamma
from skvi.inference.acceleration import Anderson
from skvi.inference.drivers import Batch
from skvi.inference.engine import climb
from skvi.models.regression import FactorisedPosterior, Moments, RegressionModel

FLAT = (1e-6, 1e-6)  # BayesianRidge's priors


def simulate(n, p, seed=0, noise=1.0, rank=None):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) * np.exp(rng.standard_normal(p)) + 2.0
    if p > 2:
        X[:, 1] = 0.9 * X[:, 0] + 0.1 * X[:, 1]
    y = 3.0 + X @ rng.standard_normal(p) + noise * rng.standard_normal(n)
    return X, y


def standardise(X, y, weight):
    mean = np.average(X, axis=0, weights=weight)
    sd = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weight))
    return (X - mean) / sd, y - np.average(y, weights=weight)


def closed_form_evidence(X, y, lam, tau_prior, kappa, weight):
    """log p(y) with lambda known, by the covariance of y: a multivariate Student-t.

    y - mean(y) = 1 b + Z w + noise, every row repeated as its weight says.
    """
    Z, centred = standardise(X, y, weight)
    repeats = weight.astype(int)
    Z, centred = np.repeat(Z, repeats, 0), np.repeat(centred, repeats)
    shape, rate = tau_prior
    covariance = np.eye(len(Z)) + 1.0 / kappa + (Z / lam) @ Z.T
    return stats.multivariate_t.logpdf(
        centred, np.zeros(len(Z)), covariance * rate / shape, df=2.0 * shape
    )


@pytest.mark.parametrize("shape", [(40, 5), (12, 30)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("each", [False, True])
def test_elbo_is_the_closed_form_evidence_with_lambda_fixed(shape, weighted, each):
    X, y = simulate(*shape)
    weight = np.ones(len(y))
    if weighted:
        weight = np.random.default_rng(1).integers(1, 4, len(y)).astype(float)
    lam = np.linspace(0.5, 4.0, shape[1]) if each else 1.7
    model = VariationalBayesianRegression(weight_precision=lam)
    model.fit(X, y, sample_weight=weight if weighted else None)
    expected = closed_form_evidence(
        X, y, lam, model.noise_precision_prior_, model.intercept_precision, weight
    )
    assert model.elbo_ == pytest.approx(expected, rel=1e-10)


class Quadrature:
    """The exact posterior of ridge regression by a two-dimensional rule.

    Trapezoid over (log lambda, log tau), given which everything is Gaussian; the rows
    are first reduced by the eigenbasis of their Gram matrix, by scipy alone.
    """

    def __init__(self, X, y, weight_prior, noise_prior, kappa=0.01):
        n, _ = X.shape
        Z, centred = standardise(X, y, np.ones(n))
        self.sd_x, sd_y = X.std(axis=0), y.std()
        d, V = linalg.eigh(Z.T @ Z)
        keep = d > 1e-9 * d[-1]
        d, V = d[keep], V[:, keep]
        c = V.T @ Z.T @ centred
        rest = centred @ centred - np.sum(c**2 / d)
        null = X.shape[1] - len(d)

        def log_joint(u, v):
            """Over grids of log lambda and log tau: shape (len(u), len(v))."""
            lam, tau = np.exp(u)[:, None], np.exp(v)
            shrink = lam / (d[:, None, None] + lam[None])
            quadratic = rest + np.sum((c**2 / d)[:, None, None] * shrink, axis=0)
            out = 0.5 * np.log(shrink).sum(axis=0) - 0.5 * tau * quadratic
            out = out + 0.5 * n * (v - np.log(2 * np.pi))
            out += 0.5 * np.log(kappa / (n + kappa))
            out += stats.loggamma.logpdf(u + np.log(weight_prior[1]), weight_prior[0])[
                :, None
            ]
            rate = noise_prior[1] * sd_y**2
            return out + stats.loggamma.logpdf(v + np.log(rate), noise_prior[0])

        # Scan widely for where the mass is, then integrate finely there.
        u, v = np.linspace(-35, 25, 301), np.linspace(-40, 40, 401) - 2 * np.log(sd_y)
        for _ in range(3):
            grid = log_joint(u, v)
            inside = grid > grid.max() - 40.0
            rows, cols = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            du, dv = u[1] - u[0], v[1] - v[0]
            last = u, v, grid
            u = np.linspace(u[rows[0]] - du, u[rows[-1]] + du, 301)
            v = np.linspace(v[cols[0]] - dv, v[cols[-1]] + dv, 301)
        u, v, grid = last
        self.log_evidence = special.logsumexp(grid) + np.log(du * dv)
        weights = np.exp(grid - special.logsumexp(grid))
        lam, tau = np.exp(u), np.exp(v)
        given_u = weights.sum(axis=1)
        means = V @ (c[:, None] / (d[:, None] + lam))
        self.mean = means @ given_u / self.sd_x
        scale = (weights / tau).sum(axis=1)  # E[1 / tau; u]
        within = (V**2) @ (1.0 / (d[:, None] + lam)) @ scale
        if null:
            within += (1.0 - (V**2).sum(axis=1)) * (scale @ (1.0 / lam))
        between = (means - (means @ given_u)[:, None]) ** 2 @ given_u
        self.sd = np.sqrt(within + between) / self.sd_x
        self.noise_variance = scale.sum()


@pytest.mark.parametrize("shape", [(40, 5), (12, 30)])
@pytest.mark.parametrize("priors", [((2.0, 0.1), (0.25, 0.01)), ((0.5, 0.5),) * 2])
def test_elbo_is_the_evidence_with_everything_learnt(shape, priors):
    X, y = simulate(*shape)
    model = VariationalBayesianRegression(
        weight_precision_prior=priors[0], noise_precision_prior=priors[1]
    ).fit(X, y)
    exact = Quadrature(X, y, *priors)
    assert model.elbo_ == pytest.approx(exact.log_evidence, abs=1e-6)
    np.testing.assert_allclose(model.coef_ / exact.sd, exact.mean / exact.sd, atol=1e-6)
    np.testing.assert_allclose(model.coef_std_, exact.sd, rtol=1e-6)
    assert model.noise_variance_ == pytest.approx(exact.noise_variance, rel=1e-6)


def ridge_problem(name):
    if name == "diabetes":
        return load_diabetes(return_X_y=True)
    data = np.load(data_path("regression", f"{name}.npz"))
    return data["X"].astype(float), data["y"].astype(float)


@pytest.mark.parametrize(
    "name",
    [
        "diabetes",
        "longley",
        "hitters",
        "prostate",
        "uci_concrete",
        "uci_boston",
        "uscrime",
        "cement",
        "uci_energy",
        "uci_wine_red",
    ],
)
def test_structured_is_exact_on_real_data_under_bayesian_ridges_priors(name):
    X, y = ridge_problem(name)
    exact = Quadrature(X, y, FLAT, FLAT)
    model = VariationalBayesianRegression(
        weight_precision_prior=FLAT, noise_precision_prior=FLAT
    ).fit(X, y)
    assert np.max(np.abs(model.coef_ - exact.mean) / exact.sd) <= 0.02
    ratio = model.coef_std_ / exact.sd
    assert 0.98 <= ratio.min() and ratio.max() <= 1.02
    assert model.elbo_ == pytest.approx(exact.log_evidence, abs=1e-4)


def test_bayesian_ridge_is_not_exact_on_longley():
    """What the exact posterior is for: sds of point estimates are too small."""
    X, y = ridge_problem("longley")
    exact = Quadrature(X, y, FLAT, FLAT)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    peer = BayesianRidge().fit(Z, y)
    ratio = np.sqrt(np.diag(peer.sigma_)) / (exact.sd * X.std(axis=0))
    assert ratio.min() < 0.9


@pytest.mark.parametrize("name", ["kidiq-kidscore_momhsiq", "earnings-logearn_height"])
def test_agrees_with_nuts_where_the_priors_do_not_matter(name):
    """Reference posteriors under flat priors, with many rows and weak priors here."""
    reference = json.loads(data_path("posteriordb", f"ref_{name}.json").read_text())
    data = np.load(data_path("posteriordb", f"data_{name.split('-')[0]}.npz"))
    if name.startswith("kidiq"):
        X = np.column_stack([data["mom_hs"], data["mom_iq"]])
        y = data["kid_score"]
    else:
        X, y = data["height"][:, None], np.log(data["earn"])
    model = VariationalBayesianRegression(
        weight_precision=1e-6, intercept_precision=1e-6
    ).fit(X.astype(float), y.astype(float))
    mean, sd = np.array(reference["mean"]), np.array(reference["sd"])
    p = X.shape[1]
    assert np.all(np.abs(model.coef_ - mean[1 : p + 1]) < 0.05 * sd[1 : p + 1])
    np.testing.assert_allclose(model.coef_std_, sd[1 : p + 1], rtol=0.03)


# -- mean field and linear response ----------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 5), (12, 30)])
def test_linear_response_is_exact_with_both_precisions_fixed(shape):
    X, y = simulate(*shape)
    known = {"weight_precision": 0.8, "noise_precision": 1.3}
    exact = VariationalBayesianRegression(**known).fit(X, y)
    corrected = VariationalBayesianRegression(
        posterior="mean_field", posterior_covariance="linear_response", **known
    ).fit(X, y)
    scale = np.outer(exact.coef_std_, exact.coef_std_)
    a, b = dense(corrected.coef_covariance_), dense(exact.coef_covariance_)
    np.testing.assert_allclose(a / scale, b / scale, atol=1e-6)
    np.testing.assert_allclose(corrected.coef_std_, exact.coef_std_, rtol=1e-6)
    for kind in ({"return_std": True}, {"return_cov": True}):
        np.testing.assert_allclose(
            corrected.predict(X, **kind)[1], exact.predict(X, **kind)[1], rtol=1e-6
        )


def test_linear_response_with_learnt_noise_is_that_of_the_theory():
    X, y = simulate(40, 5)
    exact = VariationalBayesianRegression(weight_precision=0.8).fit(X, y)
    corrected = VariationalBayesianRegression(
        weight_precision=0.8,
        posterior="mean_field",
        posterior_covariance="linear_response",
    ).fit(X, y)
    a = exact.noise_precision_prior_[0] + 0.5 * len(y)
    np.testing.assert_allclose(
        corrected.coef_covariance_, exact.coef_covariance_ * (a - 1) / a, rtol=1e-6
    )


def dense(covariance):
    if isinstance(covariance, np.ndarray):
        return covariance
    return covariance @ np.eye(covariance.shape[0])


@pytest.mark.parametrize("shape", [(40, 5), (12, 30)])
@pytest.mark.parametrize("prior", ["ridge", "ard"])
def test_linear_response_is_the_derivative_of_the_mean_in_a_tilt(shape, prior):
    """Its definition: tilt the log joint by t'w, refit, difference the means."""
    X, y = simulate(*shape)
    p = shape[1]
    design = Moments.from_rows(X, y[:, None]).design()
    rate = np.full(p, 0.3) if prior == "ard" else 0.3
    model = RegressionModel(
        Gamma(0.25, 0.01), Gamma(2.0, rate), 0.01, FactorisedPosterior
    )
    values = {
        "weight": design.weight,
        "gram": design.gram,
        "cross": design.cross[:, 0],
        "square": design.square[0],
    }
    best = climb(
        model, Batch(model, [values]), model.start(values), max_iter=2000, tol=1e-12
    ).posterior
    covariance = dense(best.coef_law(model, values, linear_response=True).covariance())

    def tilted_mean(tilt):
        # t'w enters the update of the means as t / E[tau] beside Z'y, and nothing else.
        q = best
        for _ in range(3000):
            moved = {**values, "cross": values["cross"] + tilt / q.noise.mean}
            lam = model.absorb_weights(
                q.noise.mean * (q.coef.mean**2 + q.coef.variance())
            )
            noise = q.step(model, values).noise
            mean = (
                values["gram"]
                .precision(np.broadcast_to(lam.mean, p))
                .solve(moved["cross"] - tilt / q.noise.mean + tilt / noise.mean)
            )
            q = FactorisedPosterior._absorb(model, values, mean, noise, lam)
        return q.coef.mean

    j, step = 1, 1e-3 * np.sqrt(covariance[1, 1])
    tilt = np.zeros(p)
    tilt[j] = step / covariance[1, 1]
    slope = (tilted_mean(tilt) - tilted_mean(-tilt)) / (2 * tilt[j])
    np.testing.assert_allclose(
        slope, covariance[:, j], atol=1e-4 * np.abs(covariance[:, j]).max()
    )


def test_linear_response_of_ard_widens_the_structured_posterior():
    X, y = simulate(30, 6)
    plain = VariationalBayesianRegression(prior="ard").fit(X, y)
    corrected = VariationalBayesianRegression(
        prior="ard", posterior_covariance="linear_response"
    ).fit(X, y)
    assert corrected.elbo_ == plain.elbo_
    assert np.all(corrected.coef_std_ >= plain.coef_std_)
    assert np.any(corrected.coef_std_ > 1.001 * plain.coef_std_)


def test_mean_field_gap_is_the_theory_for_two_correlated_weights():
    rng = np.random.default_rng(0)
    for rho in (0.0, 0.5, 0.95):
        Z = rng.standard_normal((50, 2))
        Z = np.linalg.qr(Z - Z.mean(axis=0))[0] * np.sqrt(50)
        X = Z @ np.linalg.cholesky([[1.0, rho], [rho, 1.0]]).T
        y = X @ [1.0, -1.0] + rng.standard_normal(50)
        known = {"weight_precision": 3.0, "noise_precision": 1.0}
        exact = VariationalBayesianRegression(**known).fit(X, y)
        mean_field = VariationalBayesianRegression(posterior="mean_field", **known).fit(
            X, y
        )
        C = exact.coef_covariance_
        posterior_rho = C[0, 1] / np.sqrt(C[0, 0] * C[1, 1])
        gap = exact.elbo_ - mean_field.elbo_
        assert gap == pytest.approx(-0.5 * np.log1p(-(posterior_rho**2)), abs=1e-7)


def test_acceleration_pays_on_collinear_columns():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 1)) + 0.05 * rng.standard_normal((200, 8))
    y = X @ rng.standard_normal(8) + 0.1 * rng.standard_normal(200)
    estimator = VariationalBayesianRegression(posterior="mean_field")
    design = Moments.from_rows(X, y[:, None]).design()
    noise, weight = estimator._resolve_priors(design)
    model = RegressionModel(noise[0], weight, 0.01, FactorisedPosterior)
    values = {
        "weight": design.weight,
        "gram": design.gram,
        "cross": design.cross[:, 0],
        "square": design.square[0],
    }
    runs = [
        climb(
            model,
            Batch(model, [values]),
            model.start(values),
            max_iter=20_000,
            tol=1e-9,
            accelerator=accelerator,
        )
        for accelerator in (Anderson, None)
    ]
    assert all(run.converged for run in runs)
    assert runs[0].n_iter * 5 < runs[1].n_iter
    assert runs[0].elbo == pytest.approx(runs[1].elbo, abs=1e-5)
    assert runs[0].posterior.distance(runs[1].posterior) < 0.01


# -- predictions -----------------------------------------------------------------------


MODELS = [
    {},
    {"posterior": "mean_field"},
    {"prior": "ard"},
    {"noise_precision": 1.2},
    {"fit_intercept": False},
    {"weight_precision": 2.0},
    {"weight_precision": 2.0, "noise_precision": 1.2},
    {"posterior": "mean_field", "posterior_covariance": "linear_response"},
    {"prior": "ard", "posterior_covariance": "linear_response"},
]


@pytest.mark.parametrize("params", MODELS, ids=str)
@pytest.mark.parametrize("shape", [(25, 4), (10, 15)])
def test_predictive_laws_agree_with_each_other(params, shape):
    X, y = simulate(*shape)
    model = VariationalBayesianRegression(**params).fit(X, y)
    new, _ = simulate(7, shape[1], seed=5)
    mean, std = model.predict(new, return_std=True)
    np.testing.assert_allclose(mean, model.predict(new), rtol=1e-10)
    _, cov = model.predict(new, return_cov=True)
    np.testing.assert_allclose(np.sqrt(np.diag(cov)), std, rtol=1e-6)
    median = model.predict(new, quantiles=[0.1, 0.5, 0.9])
    assert median.shape == (7, 3)
    assert np.all(np.diff(median, axis=1) > 0)
    interval = model.predict_interval(new, confidence_level=0.8)
    np.testing.assert_allclose(interval, median[:, [0, 2]], rtol=1e-9)
    # the density integrates to the probability between the quantiles
    row = new[:1]
    mass, _ = integrate.quad(
        lambda t: np.exp(model.log_predictive_density(row, [t])[0]), *interval[0]
    )
    assert mass == pytest.approx(0.8, abs=1e-7)
    moment, _ = integrate.quad(
        lambda t: t * np.exp(model.log_predictive_density(row, [mean[0] + t])[0]),
        -60 * std[0],
        60 * std[0],
        points=[0.0],
        limit=400,
    )
    assert abs(moment) < 1e-3 * std[0]


@pytest.mark.parametrize("params", MODELS[:7], ids=str)
def test_sample_y_follows_the_predictive_law_jointly(params):
    X, y = simulate(25, 4)
    model = VariationalBayesianRegression(**params).fit(X, y)
    new, _ = simulate(3, 4, seed=5)
    samples = model.sample_y(new, 40_000, random_state=0)
    assert samples.shape == (3, 40_000)
    mean, cov = model.predict(new, return_cov=True)
    std = np.sqrt(np.diag(cov))
    assert np.all(np.abs(samples.mean(axis=1) - mean) < 5 * std / 200)
    np.testing.assert_allclose(
        np.cov(samples) / np.outer(std, std), cov / np.outer(std, std), atol=0.05
    )
    low, high = model.predict_interval(new, 0.9).T
    inside = np.mean((samples > low[:, None]) & (samples < high[:, None]), axis=1)
    np.testing.assert_allclose(inside, 0.9, atol=0.01)
    np.testing.assert_array_equal(samples, model.sample_y(new, 40_000, random_state=0))


def test_posterior_predictive_check_sees_a_misfit():
    """A statistic that the model cannot make stands out against its replicates."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 2))
    good = X @ [1.0, 2.0] + rng.standard_normal(200)
    bad = X @ [1.0, 2.0] + rng.standard_t(1.5, 200)
    for y, fits in ((good, True), (bad, False)):
        model = VariationalBayesianRegression().fit(X, y)
        residual = np.abs(model.sample_y(X, 400, 0) - model.predict(X)[:, None])
        observed = np.abs(y - model.predict(X)).max()
        assert (0.01 < np.mean(residual.max(axis=0) > observed)) == fits


@pytest.mark.parametrize("n, p, low", [(15, 5, 0.86), (30, 20, 0.87), (30, 60, 0.86)])
def test_intervals_cover_new_targets_in_small_samples(n, p, low):
    """A small version of the 2,000 repeats in examples/benchmark_regression.py."""
    covered = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((n + 12, p))
        y = X @ rng.standard_normal(p)
        y += 0.7 * np.sqrt(p) * rng.standard_normal(n + 12)
        model = VariationalBayesianRegression().fit(X[:n], y[:n])
        low_end, high_end = model.predict_interval(X[n:], 0.9).T
        covered.append(np.mean((low_end <= y[n:]) & (y[n:] <= high_end)))
    error = np.std(covered) / np.sqrt(len(covered))
    assert low - 2 * error < np.mean(covered) < 0.925 + 2 * error


# -- what X, y and the parameters may be -----------------------------------------------


@pytest.mark.parametrize("shape", [(60, 5), (20, 40)])
@pytest.mark.parametrize("params", [{}, {"posterior": "mean_field"}, {"prior": "ard"}])
@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_array])
def test_sparse_is_dense(shape, params, container):
    rng = np.random.default_rng(0)
    X = sparse.random_array(shape, density=0.3, rng=rng).toarray()
    X[:, 0] = 1e6 + rng.standard_normal(shape[0])  # a column without a zero, far away
    y = X @ rng.standard_normal(shape[1]) + 0.1 * rng.standard_normal(shape[0])
    weight = rng.integers(1, 3, shape[0])
    dense_fit = VariationalBayesianRegression(**params).fit(X, y, weight)
    fit = VariationalBayesianRegression(**params).fit(container(X), y, weight)
    assert fit.elbo_ == pytest.approx(dense_fit.elbo_, rel=1e-7)
    scale = dense_fit.coef_std_
    np.testing.assert_allclose(fit.coef_ / scale, dense_fit.coef_ / scale, atol=1e-6)
    np.testing.assert_allclose(fit.coef_std_, scale, rtol=1e-6)
    for a, b in zip(
        fit.predict(container(X), return_std=True),
        dense_fit.predict(X, return_std=True),
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_sparse_x_is_never_made_dense():
    X = sparse.random_array((40_000, 200), density=0.01, rng=0, format="csr")
    y = X @ np.ones(200) + np.random.default_rng(0).standard_normal(40_000)
    tracemalloc.start()
    VariationalBayesianRegression().fit(X, y).predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * 40_000 * 200 * 8


def test_several_targets_are_fitted_one_by_one():
    X, y = simulate(40, 4)
    Y = np.column_stack([y, np.cos(y), 1e2 * y**2])
    for params in MODELS:
        several = VariationalBayesianRegression(**params).fit(X, Y)
        each = [VariationalBayesianRegression(**params).fit(X, t) for t in Y.T]
        assert several.elbo_ == pytest.approx(sum(m.elbo_ for m in each), rel=1e-10)
        assert several.coef_.shape == (3, 4) and several.intercept_.shape == (3,)
        for t, model in enumerate(each):
            np.testing.assert_allclose(several.coef_[t], model.coef_, rtol=1e-10)
            np.testing.assert_allclose(several.coef_std_[t], model.coef_std_)
            np.testing.assert_allclose(
                several.coef_covariance_[t], model.coef_covariance_
            )
            mean, std = several.predict(X, return_std=True)
            np.testing.assert_allclose(std[:, t], model.predict(X, return_std=True)[1])
            np.testing.assert_allclose(mean[:, t], model.predict(X))
            np.testing.assert_allclose(
                several.predict_interval(X)[..., t], model.predict_interval(X)
            )
            np.testing.assert_allclose(
                several.predict(X, return_cov=True)[1][..., t],
                model.predict(X, return_cov=True)[1],
            )
        total = sum(m.log_predictive_density(X, t) for m, t in zip(each, Y.T))
        np.testing.assert_allclose(several.log_predictive_density(X, Y), total)
        assert several.sample_y(X, 6, 0).shape == (40, 3, 6)
        draws = several.sample_posterior(5, 0)
        assert draws["coef"].shape == (5, 3, 4)
        assert len(several.summary().names) == 3 * (4 + several.fit_intercept)


@pytest.mark.parametrize("far", [1.0, 1e6])
def test_the_gram_matrix_keeps_its_digits_far_from_the_origin(far):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((5000, 6))
    y = X @ np.arange(6.0) + rng.standard_normal(5000)
    shifted = np.round((X + far) * 2**20) / 2**20  # so that the shift is exact
    near, away = (
        VariationalBayesianRegression().fit(Z, y) for Z in (shifted - far, shifted)
    )
    np.testing.assert_allclose(away.coef_, near.coef_, rtol=1e-10)
    assert away.elbo_ == pytest.approx(near.elbo_, rel=1e-12)


def test_partial_fit_across_the_change_from_rows_to_moments():
    """Wide at first, tall in the end, in float64 and sparse, weighted."""
    X, y = simulate(50, 10)
    weight = np.random.default_rng(0).integers(1, 4, 50).astype(float)
    whole = VariationalBayesianRegression().fit(X, y, weight)
    for convert in (np.asarray, sparse.csr_array):
        parts = VariationalBayesianRegression()
        for rows in np.split(np.random.default_rng(1).permutation(50), [3, 8, 12, 30]):
            parts.partial_fit(convert(X[rows]), y[rows], weight[rows])
        assert parts.elbo_ == pytest.approx(whole.elbo_, rel=1e-10)
        np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-8)
        assert parts.weight_precision_prior_ == whole.weight_precision_prior_
        np.testing.assert_allclose(
            parts.noise_precision_prior_, whole.noise_precision_prior_
        )
    more = VariationalBayesianRegression().fit(X[:30], y[:30], weight[:30])
    more.partial_fit(X[30:], y[30:], weight[30:])
    assert more.elbo_ == pytest.approx(whole.elbo_, rel=1e-10)
    with pytest.raises(ValueError, match="features"):
        more.partial_fit(X[:, :3], y)
    with pytest.raises(ValueError, match="target"):
        more.partial_fit(X, np.column_stack([y, y]))


@pytest.mark.parametrize("shape", [(50, 6), (12, 30)])
@pytest.mark.parametrize("first", ["fit", "partial_fit"])
def test_partial_fit_does_not_look_at_old_buffers(shape, first):
    """The caller may reuse or change its arrays between calls."""
    X, y = simulate(*shape)
    half = shape[0] // 2
    buffer, target = X[:half].copy(), y[:half].copy()
    parts = VariationalBayesianRegression()
    getattr(parts, first)(buffer, target)
    buffer[:], target[:] = X[half:], y[half:]
    parts.partial_fit(buffer, target)
    whole = VariationalBayesianRegression().fit(X, y)
    assert parts.elbo_ == pytest.approx(whole.elbo_, rel=1e-10)
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-7)


def test_partial_fit_takes_dense_and_sparse_rows_by_turns():
    X, y = simulate(12, 30)
    whole = VariationalBayesianRegression().fit(X, y)
    for kinds in [(np.asarray, sparse.csr_array), (sparse.csc_array, np.asarray)]:
        parts = VariationalBayesianRegression()
        for kind, rows in zip(kinds, (slice(0, 5), slice(5, 12))):
            parts.partial_fit(kind(X[rows]), y[rows])
        assert parts.elbo_ == pytest.approx(whole.elbo_, rel=1e-10)


WARM_VARIANTS = [*MODELS, {"posterior": "mean_field", "prior": "ard"}]


@pytest.mark.parametrize("params", WARM_VARIANTS, ids=str)
@pytest.mark.parametrize("shape", [(30, 5), (10, 15)])
def test_a_warm_start_changes_the_start_only(params, shape):
    X, y = simulate(*shape)
    cold = VariationalBayesianRegression(**params).fit(X, -y)
    defaults = VariationalBayesianRegression(warm_start=True).get_params()
    warm = VariationalBayesianRegression()
    for others in WARM_VARIANTS:
        warm.set_params(**{**defaults, **others}).fit(X, y)
        warm.set_params(**{**defaults, **params}).fit(X, -y)
        assert warm.elbo_ == pytest.approx(cold.elbo_, abs=1e-5)
        move = np.abs(warm.coef_ - cold.coef_)
        assert np.all(move < 1e-4 * cold.coef_std_.max())
    stream = VariationalBayesianRegression(**params, warm_start=True)
    for rows in np.array_split(np.arange(shape[0]), 3):
        stream.partial_fit(X[rows], -y[rows])
    assert stream.elbo_ == pytest.approx(cold.elbo_, abs=1e-5)


@pytest.mark.parametrize("n, p, signal", [(20_000, 100, 0.0), (4_000, 200, 0.05)])
def test_the_evidence_is_exact_where_there_is_hardly_a_signal(n, p, signal):
    """There the posterior of lambda lies far beyond its prior."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, p))
    y = signal * X[:, 0] + rng.standard_normal(n)
    model = VariationalBayesianRegression().fit(X, y)
    exact = Quadrature(X, y, (2.0, 2.0 / p), (0.25, 0.001))
    assert model.elbo_ == pytest.approx(exact.log_evidence, abs=1e-6)
    np.testing.assert_allclose(model.coef_std_, exact.sd, rtol=1e-6)


@pytest.mark.parametrize("n, p", [(100_000, 30), (20_000, 150), (3_000, 2)])
@pytest.mark.parametrize("noise", [3.0, 0.01])
def test_the_evidence_is_exact_with_many_rows_under_flat_priors(n, p, noise):
    """There the posterior of lambda is narrow, and far below every eigenvalue."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, p))
    y = X @ rng.standard_normal(p) + noise * rng.standard_normal(n)
    model = VariationalBayesianRegression(
        weight_precision_prior=FLAT, noise_precision_prior=FLAT
    ).fit(X, y)
    exact = Quadrature(X, y, FLAT, FLAT)
    # Both sides have the residual from y'y less what is explained: a row's evidence is
    # known to that difference's rounding.
    rounding = 10 * n * np.finfo(float).eps * y.var() / noise**2
    assert model.elbo_ == pytest.approx(exact.log_evidence, abs=1e-6 + rounding)
    np.testing.assert_allclose(model.coef_std_, exact.sd, rtol=1e-6)


def test_mean_field_with_more_columns_than_rows_converges_at_once():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((10, 500)), rng.standard_normal(10)
    model = VariationalBayesianRegression(posterior="mean_field", weight_precision=3.0)
    assert model.fit(X, y).n_iter_ < 10


def test_linear_response_with_a_callback_and_where_it_is_not_defined():
    X, y = simulate(50, 8)
    for params in ({"posterior": "mean_field"}, {"prior": "ard"}):
        model = VariationalBayesianRegression(
            **params, posterior_covariance="linear_response"
        )
        plain = clone(model).fit(X, y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stopped = model.set_callbacks(StopWhen(lambda f: f.n_iter_ >= 2)).fit(X, y)
        assert stopped.n_iter_ == 2 and np.all(np.isfinite(stopped.coef_std_))
        assert np.all(np.isfinite(plain.coef_std_))
    one = VariationalBayesianRegression(
        prior="ard", posterior_covariance="linear_response"
    ).fit(X[:1], y[:1])
    assert np.all(np.isfinite(one.predict_interval(X)))


def test_callbacks_reach_every_target_from_its_first_iteration():
    X, y = simulate(40, 4)
    Y = np.column_stack([y, np.cos(y), y**2])
    seen = []
    model = VariationalBayesianRegression(posterior="mean_field")
    model.set_callbacks(StopWhen(lambda fitted: seen.append(fitted.elbo_)))
    model.fit(X, Y)
    assert len(seen) >= 6 and seen[-1] == model.elbo_


def test_noise_does_not_collapse_with_more_columns_than_rows():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 120))
    y = X[:, :5] @ np.ones(5) + 1.5 * rng.standard_normal(40)
    for prior in ("ridge", "ard"):
        for posterior in ("structured", "mean_field"):
            model = VariationalBayesianRegression(prior=prior, posterior=posterior)
            model.fit(X, y)
            assert model.converged_
            assert model.noise_collapse_probability_ < 0.05
            assert model.noise_variance_ > 0.1 * 1.5**2
    flat = VariationalBayesianRegression(
        weight_precision_prior=FLAT, noise_precision_prior=FLAT
    ).fit(X, y)
    draws = flat.sample_posterior(20_000, 0)["noise_precision"]
    probability = np.mean(draws > 1.0 / (0.05 * y.std()) ** 2)
    assert flat.noise_collapse_probability_ == pytest.approx(probability, abs=0.02)


def test_ard_finds_the_columns_that_matter():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 60)) * np.logspace(-3, 3, 60)
    true = np.zeros(60)
    true[[3, 30, 50]] = [3.0, -2.0, 2.5]
    y = (X / np.logspace(-3, 3, 60)) @ true + rng.standard_normal(120)
    model = VariationalBayesianRegression(prior="ard").fit(X, y)
    assert set(np.argsort(model.weight_precision_)[:3]) == {3, 30, 50}
    assert model.n_iter_ < 100


def test_summary_and_contrasts():
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    X = X[["bmi", "bp", "s1", "s2"]]
    model = VariationalBayesianRegression().fit(X, y)
    table = model.summary(confidence_level=0.9)
    assert table.names == ["bmi", "bp", "s1", "s2", "intercept"]
    np.testing.assert_allclose(table.mean[:4], model.coef_)
    np.testing.assert_allclose(table.sd[:4], model.coef_std_)
    assert table.mean[4] == pytest.approx(model.intercept_)
    draws = model.sample_posterior(100_000, 0)
    low, high = np.quantile(draws["coef"], [0.05, 0.95], axis=0)
    np.testing.assert_allclose(table.lower[:4], low, atol=0.03 * table.sd.max())
    np.testing.assert_allclose(table.upper[:4], high, atol=0.03 * table.sd.max())
    np.testing.assert_allclose(
        table.probability_positive[:4], (draws["coef"] > 0).mean(0), atol=0.01
    )
    assert table.sd[4] == pytest.approx(draws["intercept"].std(), rel=0.02)
    contrast = model.summary(contrasts={"a": {"s1": 1, "s2": 1}, "b": [0, 0, 1, -1]})
    s1, s2 = draws["coef"][:, 2], draws["coef"][:, 3]
    expected = [(s1 + s2).std(), (s1 - s2).std()]
    np.testing.assert_allclose(contrast.sd, expected, rtol=0.02)
    # any linear combination: the line's height at a patient, intercept included
    row = X.to_numpy()[3]
    at_row = {"intercept": 1.0, **dict(zip(X.columns, row))}
    height = model.summary(contrasts={"height": at_row}, confidence_level=0.9)
    line = draws["intercept"] + draws["coef"] @ row
    assert height.mean[0] == pytest.approx(model.predict(X[3:4])[0])
    assert height.sd[0] == pytest.approx(line.std(), rel=0.02)
    frame = table.to_pandas()
    assert list(frame.index) == table.names and frame.shape == (5, 5)
    assert "bmi" in repr(table) and "<table>" in table._repr_html_()
    with pytest.raises(ValueError, match=r"nope.*bmi"):
        model.summary(contrasts={"a": {"nope": 1.0}})
    with pytest.raises(ValueError, match="4 features"):
        model.summary(contrasts={"a": [1.0]})


@pytest.mark.parametrize(
    "params, message",
    [
        ({"posterior": "full"}, "posterior"),
        ({"prior": "horseshoe"}, "prior"),
        ({"weight_precision": -1.0}, "weight_precision=-1.0 must be positive"),
        ({"weight_precision": [1.0, 2.0]}, "weight_precision=.* 4 features"),
        ({"noise_precision": 0.0}, "noise_precision"),
        ({"weight_precision_prior": (1.0,)}, r"weight_precision_prior=\(1.0,\) must"),
        ({"noise_precision_prior": (1.0, -1.0)}, "noise_precision_prior=.*positive"),
        ({"intercept_precision": 0.0}, "intercept_precision"),
        ({"tol": -1.0}, "tol"),
        ({"posterior_covariance": "sandwich"}, "posterior_covariance"),
    ],
)
def test_errors_name_the_parameter(params, message):
    X, y = simulate(20, 4)
    with pytest.raises(ValueError, match=message):
        VariationalBayesianRegression(**params).fit(X, y)


def test_errors_of_predictions():
    X, y = simulate(20, 4)
    model = VariationalBayesianRegression().fit(X, y)
    with pytest.raises(ValueError, match="exclude each other"):
        model.predict(X, return_std=True, return_cov=True)
    with pytest.raises(ValueError, match=r"quantiles=\[0.0, 0.5\]"):
        model.predict(X, quantiles=[0.0, 0.5])
    with pytest.raises(ValueError, match=r"confidence_level=1.5"):
        model.predict_interval(X, 1.5)
    with pytest.raises(ValueError, match="n_samples=0"):
        model.sample_posterior(0)
    for bad in (0, -1, 2.5):
        with pytest.raises(ValueError, match=f"n_samples={bad}"):
            model.sample_y(X, bad)
    for bad in (1.5, "a", 0.0):
        with pytest.raises(ValueError, match="confidence_level="):
            model.summary(confidence_level=bad)
    with pytest.raises(ValueError, match=r"contrasts=\{\}"):
        model.summary(contrasts={})
    with pytest.raises(ValueError, match="1 target"):
        VariationalBayesianRegression().fit(X, np.c_[y, y]).log_predictive_density(X, y)


def test_max_iter_warns_and_warm_start_goes_on():
    X, y = simulate(40, 12)
    params = {"posterior": "mean_field", "prior": "ard"}
    whole = VariationalBayesianRegression(**params).fit(X, y)
    model = VariationalBayesianRegression(**params, max_iter=2, warm_start=True)
    with pytest.warns(UserWarning, match="max_iter=2"):
        model.fit(X, y)
    assert not model.converged_ and model.elbo_ < whole.elbo_
    model.set_params(max_iter=500).fit(X, y)
    assert model.elbo_ == pytest.approx(whole.elbo_, abs=1e-5)
    again = model.fit(X, y)
    assert again.n_iter_ < whole.n_iter_


def test_verbose_prints_the_elbo(capsys):
    X, y = simulate(20, 4)
    model = VariationalBayesianRegression(posterior="mean_field", verbose=2).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(model.elbo_path_)
    assert float(lines[-1].split()[-1]) == pytest.approx(model.elbo_, abs=1e-5)


@pytest.mark.parametrize("params", MODELS[:7], ids=str)
def test_posterior_is_in_the_units_of_the_data(params):
    X, y = simulate(25, 4)
    model = VariationalBayesianRegression(**params).fit(X, 1e3 * y)
    draws = model.sample_posterior(50_000, 0)
    mean = model.posterior_.expect()
    assert set(mean) == set(model.posterior_.names)
    for name in model.posterior_.names:
        sample = draws[name]
        variance = model.posterior_.covariance(name)
        sd = np.sqrt(np.diag(variance) if np.ndim(variance) else variance)
        error = sample.std(axis=0) / np.sqrt(len(sample))
        assert np.all(np.abs(sample.mean(axis=0) - mean[name]) <= 5 * error + 1e-12)
        np.testing.assert_allclose(
            np.ravel(sd), np.ravel(sample.std(axis=0)), rtol=0.1, atol=1e-12
        )
    np.testing.assert_allclose(mean["coef"], model.coef_)
    if model.fit_intercept:
        assert mean["level"] == pytest.approx(model.y_offset_)


def test_the_integrated_bound_is_its_normalising_constant():
    """Energy and entropy, summed term by term, against the integral itself."""
    for shape in ((25, 4), (10, 15)):
        X, y = simulate(*shape)
        model = VariationalBayesianRegression().fit(X, y)
        log_mass = model.posterior_.inner.density.log_mass
        units = len(y) * np.log(model.y_scale_)
        assert model.elbo_ == pytest.approx(log_mass - units, rel=1e-12)


def test_sample_weight_is_routed():
    X, y = simulate(40, 4)
    weight = np.random.default_rng(0).integers(1, 4, 40).astype(float)
    with config_context(enable_metadata_routing=True):
        estimator = VariationalBayesianRegression().set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, estimator)
        pipeline.fit(X, y, sample_weight=weight)
    alone = VariationalBayesianRegression().fit(X, y, sample_weight=weight)
    assert pipeline[-1].elbo_ == pytest.approx(alone.elbo_, rel=1e-10)


def test_callbacks_see_a_fitted_estimator_at_every_iteration():
    X, y = simulate(40, 8)
    seen = []

    def condition(fitted):
        seen.append((fitted.elbo_, fitted.predict(X[:1]).item()))
        return len(seen) == 3

    model = VariationalBayesianRegression(posterior="mean_field", prior="ard")
    model.set_callbacks(StopWhen(condition))
    model.fit(X, y)
    np.testing.assert_allclose([elbo for elbo, _ in seen], model.elbo_path_)
    assert seen[-1] == (model.elbo_, model.predict(X[:1]).item())
    assert len(seen) == 3 and not model.converged_


def test_duplicate_sparse_entries_are_summed():
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(20), 2)
    values = rng.standard_normal(40) + 5.0
    twice = sparse.coo_array((values, (rows, np.zeros(40, int))), shape=(40, 2))
    y = rng.standard_normal(40)
    csr = sparse.csr_array(
        (twice.data, twice.coords[1], np.minimum(np.arange(41) * 2, 40)), shape=(40, 2)
    )
    assert not csr.has_canonical_format
    dense_fit = VariationalBayesianRegression().fit(csr.toarray(), y)
    assert VariationalBayesianRegression().fit(csr, y).elbo_ == pytest.approx(
        dense_fit.elbo_
    )
