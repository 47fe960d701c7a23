"""Mixtures of multivariate Student-t laws against scipy, integrals and each other."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, special, stats

from skvi.distributions import student_mixture
from skvi.distributions.location_scale import LocationScaleMixture
from skvi.distributions.student_mixture import StudentMixture, log_gamma_ratio

WEIGHTS = np.array([0.5, 0.2, 0.3])
LOC = np.array([[0.0, 1.0, -1.0, 2.0], [3.0, 0.0, 0.5, 0.0], [-2.0, -1.0, 4.0, 1.0]])
SCALE = np.array([[1.0, 0.5, 2.0, 0.3], [0.2, 1.5, 1.0, 1.0], [0.7, 0.7, 3.0, 2.0]])
LOWER = np.tril(np.random.default_rng(0).normal(size=(3, 4, 4)), -1)
FACTOR = SCALE[:, :, None] * (np.eye(4) + 0.7 * LOWER)
DF = np.array([5.0, 9.0, 30.0])
INF = np.full(3, np.inf)
LAWS = {
    "full": StudentMixture(WEIGHTS, DF, LOC, FACTOR),
    "tied": StudentMixture(WEIGHTS, 7.0, LOC, FACTOR[:1]),
    "spherical": StudentMixture(WEIGHTS, DF, LOC, SCALE[:, :1] * np.ones((1, 4))),
    "joint diagonal": StudentMixture(WEIGHTS, DF, LOC, SCALE),
    "independent": StudentMixture(WEIGHTS, DF[:, None] + np.arange(4.0), LOC, SCALE),
    "gaussian": StudentMixture(WEIGHTS, INF, LOC, FACTOR),
    "gaussian diagonal": StudentMixture(WEIGHTS, INF[:, None], LOC, SCALE),
    "student-t and gaussian": StudentMixture(
        WEIGHTS, np.array([6.0, np.inf, 8.0]), LOC, FACTOR
    ),
    "some coordinates gaussian": StudentMixture(
        WEIGHTS, np.where(SCALE > 1.2, np.inf, 6.0 + SCALE), LOC, SCALE
    ),
    "one": StudentMixture(np.ones(1), DF[:1], LOC[:1], FACTOR[:1]),
    "an empty component": StudentMixture(np.array([0.4, 0.6, 0.0]), DF, LOC, FACTOR),
}
each_law = pytest.mark.parametrize("name", LAWS)


def scipy_law(law, k, features=slice(None)):
    """``x -> log t_k(x)`` over some features, by scipy alone."""
    part = law.components
    loc, df, scale = part.loc[k][features], part.df[k], part.scale[k][features]
    if part.df.ndim == 2:
        each = [
            stats.norm(m, s) if np.isinf(v) else stats.t(v, m, s)
            for v, m, s in zip(df[features], loc, scale)
        ]
        return lambda X: sum(law.logpdf(x) for law, x in zip(each, X.T))
    shape = scale @ scale.T if scale.ndim == 2 else np.diag(scale**2)
    if np.isinf(df):
        return stats.multivariate_normal(loc, shape).logpdf
    return stats.multivariate_t(loc, shape, df).logpdf


def rows(law, n=40, seed=1, missing=0.0):
    rng = np.random.default_rng(seed)
    X = law.sample(n, rng)[0] + rng.normal(scale=3.0, size=(n, law.mean.shape[0]))
    X[rng.random(X.shape) < missing] = np.nan
    return X


def scipy_density(law, X):
    with np.errstate(divide="ignore"):
        logs = np.log(law.weights)
    parts = [scipy_law(law, k)(X) + logs[k] for k in range(logs.shape[0])]
    return np.reshape(parts, (-1, X.shape[0])).T


# -- densities -------------------------------------------------------------------------


@each_law
def test_densities_are_scipys(name):
    law = LAWS[name]
    X = rows(law)
    expected = scipy_density(law, X)
    np.testing.assert_allclose(law.log_densities(X), expected, rtol=1e-11)
    total = special.logsumexp(expected, axis=1)
    np.testing.assert_allclose(law.log_density(X), total, rtol=1e-11)
    expected = special.softmax(expected, axis=1)
    np.testing.assert_allclose(law.responsibilities(X), expected, rtol=1e-9)


@each_law
def test_missing_entries_are_integrated_out(name):
    law = LAWS[name]
    X = rows(law, n=200, missing=0.4)
    X[3] = np.nan
    densities = law.log_densities(X)
    for row, x in enumerate(X):
        observed = np.flatnonzero(~np.isnan(x))
        if observed.size == 0:
            with np.errstate(divide="ignore"):
                np.testing.assert_array_equal(densities[row], np.log(law.weights))
            continue
        marginal = law.marginal(observed)
        expected = marginal.log_densities(x[None, observed])[0]
        np.testing.assert_allclose(densities[row], expected, rtol=1e-12)
        with np.errstate(divide="ignore"):
            logs = np.log(law.weights)
        for k, log_weight in enumerate(logs):
            expected = scipy_law(law, k, observed)(x[None, observed]) + log_weight
            np.testing.assert_allclose(densities[row, k], np.ravel(expected)[0])
    assert law.log_density(X)[3] == pytest.approx(0.0, abs=1e-15)


@each_law
def test_one_and_two_features_integrate_to_one(name):
    one, two = LAWS[name].marginal([2]), LAWS[name].marginal([3, 1])
    edges = [
        -np.inf,
        *np.sort(one.mean + np.array([-9.0, -3.0, 0.0, 3.0, 9.0])),
        np.inf,
    ]
    mass = sum(
        integrate.quad(lambda x: np.exp(one.log_density([[x]])[0]), a, b)[0]
        for a, b in pairwise(edges)
    )
    assert mass == pytest.approx(1.0, abs=1e-7)
    # x = c sinh(u): the tails of a Student-t on an even grid.
    u = np.linspace(-9.0, 9.0, 700)
    x, slope = 2.0 * np.sinh(u), 2.0 * np.cosh(u)
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(two.log_density(grid)).reshape(700, 700)
    assert slope @ density @ slope * (u[1] - u[0]) ** 2 == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("kind", ["full", "independent"])
def test_ten_features_integrate_to_one(kind):
    rng = np.random.default_rng(5)
    loc, weights = rng.normal(size=(2, 10)), np.array([0.3, 0.7])
    lower = np.eye(10) + 0.3 * np.tril(rng.normal(size=(2, 10, 10)), -1)
    if kind == "full":
        law = StudentMixture(weights, [8.0, 20.0], loc, lower)
        proposal = StudentMixture(weights, [5.0, 5.0], loc, 1.1 * lower)
    else:
        law = StudentMixture(weights, np.full((2, 10), 8.0), loc, np.ones((2, 10)))
        proposal = StudentMixture(weights, np.full((2, 10), 6.0), loc, np.ones((2, 10)))
    X, _ = proposal.sample(100_000, rng)
    ratio = np.exp(law.log_density(X) - proposal.log_density(X))
    error = ratio.std() / np.sqrt(ratio.shape[0])
    assert error < 0.01
    assert ratio.mean() == pytest.approx(1.0, abs=4 * error)


def test_one_feature_is_the_same_in_both_forms():
    joint = StudentMixture(WEIGHTS, DF, LOC[:, :1], SCALE[:, :1])
    independent = StudentMixture(WEIGHTS, DF[:, None], LOC[:, :1], SCALE[:, :1])
    full = StudentMixture(WEIGHTS, DF, LOC[:, :1], SCALE[:, :1, None])
    X = rows(joint)
    for other in (independent, full):
        np.testing.assert_allclose(
            other.log_densities(X), joint.log_densities(X), rtol=1e-13
        )


@pytest.mark.parametrize("independent", [False, True])
def test_large_df_tends_to_the_gaussian(independent):
    X = rows(LAWS["gaussian"])
    scale = SCALE if independent else FACTOR
    expand = (lambda df: df[:, None]) if independent else (lambda df: df)
    gaussian = StudentMixture(WEIGHTS, expand(INF), LOC, scale).log_densities(X)
    previous = np.inf
    for df in (1e3, 1e6, 1e9, 1e12, 1e300):
        law = StudentMixture(WEIGHTS, expand(np.full(3, df)), LOC, scale)
        error = np.abs(law.log_densities(X) - gaussian).max()
        assert error < 1e-2 * previous
        previous = max(error, 1e-9)
    assert error < 1e-11


@pytest.mark.parametrize("b", [1, 2, 50])
def test_log_gamma_ratio(b):
    # Of a whole number b it is a sum of logs.
    for a in (0.5, 3.0, 49.9, 50.0, 1e3, 1e6, 4e6, 1e9, 1e15):
        expected = np.log1p(np.arange(b) / a).sum()
        assert log_gamma_ratio(a, b) == pytest.approx(expected, rel=1e-11, abs=1e-13)
    assert log_gamma_ratio(np.inf, b) == 0.0


def test_remote_and_tight_rows_keep_finite_densities():
    law = StudentMixture(WEIGHTS, DF, 1e9 + LOC, 1e-3 * FACTOR)
    X = np.concatenate([1e9 + LOC, np.full((1, 4), -1e30)])
    logs = law.log_densities(X)
    assert np.isfinite(logs).all()
    np.testing.assert_allclose(law.responsibilities(X).sum(axis=1), 1.0, rtol=1e-14)


def test_float32_rows_are_their_float64_values():
    for law in LAWS.values():
        X = rows(law, missing=0.2).astype(np.float32)
        out = law.log_density(X)
        assert out.dtype == np.float64
        np.testing.assert_array_equal(out, law.log_density(X.astype(np.float64)))


@each_law
def test_blocks_do_not_matter(name, monkeypatch):
    law = LAWS[name]
    X = rows(law, n=300, missing=0.3)
    values = np.nan_to_num(X[:, [2, 0]])

    def answers():
        given = law.conditional(X, [2, 0])
        return [
            law.log_densities(X),
            law.log_density(X),
            *law.impute(X),
            given.weights,
            given.mean,
            given.covariance(),
            given.log_density(values),
            given.quantile([0.1, 0.8]),
        ]

    whole = answers()
    monkeypatch.setattr(
        student_mixture,
        "block_slices",
        lambda n, _: [slice(i, min(i + 7, n)) for i in range(0, n, 7)],
    )
    for a, b in zip(answers(), whole):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


# -- draws and moments -----------------------------------------------------------------


@each_law
def test_draws_have_the_moments(name):
    law, n = LAWS[name], 200_000
    X, labels = law.sample(n, np.random.default_rng(2))
    counts = np.bincount(labels, minlength=law.weights.shape[0]) / n
    np.testing.assert_allclose(counts, law.weights, atol=0.006)
    covariance = law.covariance()
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((X.mean(axis=0) - law.mean) / sd, 0.0, atol=0.012)
    error = (np.cov(X.T) - covariance) / (sd[:, None] * sd)
    np.testing.assert_allclose(error, 0.0, atol=0.06)


@each_law
def test_draws_have_the_density(name):
    # The quantile transform of each feature's draws is uniform.
    law = LAWS[name]
    X, _ = law.sample(2000, np.random.default_rng(3))
    for feature in range(4):
        part = law.marginal([feature])
        grid = part.conditional(np.full((1, 1), np.nan), [0])
        edges = grid.quantile(np.linspace(0.0, 1.0, 21))[0, 0]
        counts, _ = np.histogram(X[:, feature], edges)
        assert stats.chisquare(counts).pvalue > 1e-4


def test_moments_that_do_not_exist():
    few = np.array([2.0, 9.0, 30.0])
    covariance = StudentMixture(WEIGHTS, few, LOC, FACTOR).covariance()
    assert np.isposinf(np.diag(covariance)).all()
    assert np.isnan(covariance[~np.eye(4, dtype=bool)]).all()
    # A component that is never drawn takes nothing away.
    weights = np.array([0.0, 0.4, 0.6])
    covariance = StudentMixture(weights, few, LOC, FACTOR).covariance()
    expected = StudentMixture(weights[1:], few[1:], LOC[1:], FACTOR[1:]).covariance()
    np.testing.assert_allclose(covariance, expected, rtol=1e-13)
    # Independent coordinates lose their own variance only.
    df = np.full((3, 4), 9.0)
    df[1, 2] = 1.5
    law = StudentMixture(WEIGHTS, df, LOC, SCALE)
    expected = StudentMixture(WEIGHTS, np.full((3, 4), 9.0), LOC, SCALE).covariance()
    expected[2, 2] = np.inf
    np.testing.assert_allclose(law.covariance(), expected, rtol=1e-13)
    nothing = np.full((2, 4), np.nan)
    variance = law.conditional(nothing, slice(None)).variance()
    np.testing.assert_allclose(variance, [np.diag(expected)] * 2, rtol=1e-13)


# -- marginals, conditionals, other units ----------------------------------------------


@each_law
def test_marginal_takes_indices_masks_and_slices(name):
    law = LAWS[name]
    X = rows(law)
    expected = law.marginal([1, 2]).log_density(X[:, [1, 2]])
    for features in (slice(1, 3), np.array([False, True, True, False]), [-3, -2]):
        part = law.marginal(features)
        np.testing.assert_array_equal(part.log_density(X[:, [1, 2]]), expected)
    swapped = law.marginal([2, 1])
    np.testing.assert_allclose(swapped.log_density(X[:, [2, 1]]), expected, rtol=1e-12)
    np.testing.assert_allclose(swapped.mean, law.mean[[2, 1]])
    expected = law.covariance()[np.ix_([2, 1], [2, 1])]
    np.testing.assert_allclose(swapped.covariance(), expected, rtol=1e-12)
    assert law.marginal(2).mean.shape == (1,)


@each_law
@pytest.mark.parametrize("features", [[0], [3, 1], [2, 0, 1], [0, 1, 2, 3]])
def test_conditional_density_is_joint_over_marginal(name, features):
    law = LAWS[name]
    X = rows(law)
    values, others = X[:, features], np.setdiff1d(np.arange(4), features)
    X[::3, others[:1]] = np.nan  # one feature fewer to condition on
    given = X.copy()
    given[:, features] = np.nan
    expected = law.log_density(X) - law.log_density(given)
    conditional = law.conditional(X, features)
    np.testing.assert_allclose(
        conditional.log_density(values), expected, rtol=1e-9, atol=1e-10
    )
    np.testing.assert_allclose(
        conditional.weights, law.responsibilities(given), rtol=1e-9
    )
    # What X holds where it is asked about is not read.
    again = law.conditional(given, features)
    np.testing.assert_array_equal(again.mean, conditional.mean)


@each_law
def test_conditional_moments_and_draws(name):
    law, features = LAWS[name], [3, 1]
    X = rows(law, n=5)
    X[1, 0] = X[2, 2] = X[4] = np.nan
    conditional = law.conditional(X, features)
    draws = conditional.sample(100_000, np.random.default_rng(4))
    assert draws.shape == (100_000, 5, 2)
    covariance, std = conditional.covariance(), conditional.std()
    np.testing.assert_allclose(
        conditional.variance(), np.diagonal(covariance, axis1=1, axis2=2), rtol=1e-12
    )
    np.testing.assert_allclose(std**2, conditional.variance(), rtol=1e-12)
    shift = (draws.mean(axis=0) - conditional.mean) / std
    np.testing.assert_allclose(shift, 0.0, atol=0.02)
    for row in range(5):
        error = np.cov(draws[:, row].T) - covariance[row]
        error /= std[row][:, None] * std[row]
        np.testing.assert_allclose(error, 0.0, atol=0.1)
    edges = conditional.quantile(np.linspace(0.0, 1.0, 11))
    for row, feature in np.ndindex(5, 2):
        counts, _ = np.histogram(draws[:5000, row, feature], edges[row, feature])
        assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("name", ["full", "independent", "student-t and gaussian"])
def test_conditional_moments_are_integrals_of_the_conditional_density(name):
    law = LAWS[name]
    X = rows(law, n=3)
    conditional = law.conditional(X, [1])
    for row in range(3):
        one = law.conditional(X[[row]], [1])
        centre, sd = conditional.mean[row, 0], conditional.std()[row, 0]

        def integrand(y, power, one=one, centre=centre, sd=sd):
            return ((y - centre) / sd) ** power * np.exp(one.log_density([[y]])[0])

        steps = np.array([-300.0, -30, -8, -4, -2, -1, 0, 1, 2, 4, 8, 30, 300])
        edges = centre + sd * steps
        for power, expected in enumerate([1.0, 0.0, 1.0]):
            moment = sum(
                integrate.quad(integrand, a, b, args=(power,))[0]
                for a, b in pairwise(edges)
            )
            assert moment == pytest.approx(expected, abs=1e-4)


@each_law
def test_quantiles_invert_scipys_cdf(name):
    law, probabilities = LAWS[name], np.array([1e-4, 0.05, 0.5, 0.9, 0.999])
    X = rows(law, n=20, missing=0.3)
    for features in ([1], [0, 1, 2, 3]):
        conditional = law.conditional(X, features)
        quantiles = conditional.quantile(probabilities)
        assert quantiles.shape == (20, len(features), 5)
        assert np.all(np.diff(quantiles, axis=2) > 0.0)
        for rows_, block in conditional:
            df = block.residual.df
            df = df[:, None] if df.ndim == 1 else df
            for i, row in enumerate(rows_):
                scale = block.residual.width * block.spread[:, i, None]
                for q, probability in enumerate(probabilities):
                    z = (quantiles[row, :, q] - block.loc[:, :, i]) / scale
                    cdf = np.where(np.isinf(df), stats.norm.cdf(z), stats.t.cdf(z, df))
                    np.testing.assert_allclose(
                        block.weights[:, i] @ cdf, probability, atol=1e-10
                    )
    interval = conditional.interval(0.9)
    expected = conditional.quantile([0.05, 0.95])
    np.testing.assert_allclose(interval, expected, rtol=1e-12)


def test_quantiles_of_rows_that_differ_in_weights_and_df():
    rng = np.random.default_rng(6)
    weights = np.array([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5]])
    df = np.array([[3.0, np.inf], [5.0, 5.0], [40.0, 2.0]])
    loc, scale = 30.0 * rng.normal(size=(3, 2)), rng.gamma(2.0, size=(3, 2))
    law = LocationScaleMixture(weights, df, loc, scale)
    each = [
        LocationScaleMixture(weights[i], df[i], loc[[i]], scale[[i]]) for i in range(3)
    ]
    probabilities = [1e-12, 0.2, 0.5, 0.99]
    expected = np.concatenate([one.quantile(probabilities) for one in each])
    np.testing.assert_allclose(law.quantile(probabilities), expected, rtol=1e-9)
    np.testing.assert_allclose(law.mean, np.ravel([one.mean for one in each]))
    expected = np.ravel([one.variance() for one in each])
    np.testing.assert_allclose(law.variance(), expected)
    expected = [one.cdf([1.0])[0] for one in each]
    np.testing.assert_allclose(law.cdf(np.ones(3)), expected)


@pytest.mark.parametrize("name", ["full", "spherical", "independent", "gaussian"])
def test_textbook_conditional_of_one_component(name):
    c = LAWS[name].components
    law = StudentMixture(np.ones(1), c.df[:1], c.loc[:1], c.scale[:1])
    X = rows(law, n=6)
    loc, df, scale = c.loc[0], np.mean(c.df[0]), c.scale[0]
    shape = scale @ scale.T if scale.ndim == 2 else np.diag(scale**2)
    conditional = law.conditional(X, [0, 2])
    gain = shape[np.ix_([0, 2], [1, 3])] @ np.linalg.inv(shape[np.ix_([1, 3], [1, 3])])
    centred = X[:, [1, 3]] - loc[[1, 3]]
    np.testing.assert_allclose(
        conditional.mean, loc[[0, 2]] + centred @ gain.T, rtol=1e-9
    )
    rest = shape[np.ix_([0, 2], [0, 2])] - gain @ shape[np.ix_([1, 3], [0, 2])]
    if name == "independent":
        expected = [rest * np.diag(c.df[0][[0, 2]] / (c.df[0][[0, 2]] - 2.0))] * 6
    elif name == "gaussian":
        expected = [rest] * 6
    else:
        square = centred @ np.linalg.inv(shape[np.ix_([1, 3], [1, 3])])
        square = (square * centred).sum(axis=1)
        # The shape (df + square) / (df + 2), times df' / (df' - 2) of df' = df + 2.
        expected = ((df + square) / df)[:, None, None] * rest
    np.testing.assert_allclose(conditional.covariance(), expected, rtol=1e-9)


@each_law
def test_imputation(name):
    law = LAWS[name]
    X = rows(law, n=100, missing=0.4)
    X[0] = np.nan
    X[1] = 1.0
    before = X.copy()
    filled, std = law.impute(X)
    np.testing.assert_array_equal(X, before)
    observed = ~np.isnan(X)
    np.testing.assert_array_equal(filled[observed], X[observed])
    np.testing.assert_array_equal(std[observed], 0.0)
    np.testing.assert_allclose(filled[0], law.mean, rtol=1e-12)
    np.testing.assert_allclose(std[0], np.sqrt(np.diag(law.covariance())), rtol=1e-12)
    for feature in range(4):
        missing = ~observed[:, feature]
        one = law.conditional(X[missing], feature)
        np.testing.assert_allclose(
            filled[missing, feature], one.mean[:, 0], rtol=1e-9, atol=1e-12
        )
        np.testing.assert_allclose(std[missing, feature], one.std()[:, 0], rtol=1e-8)


@each_law
def test_many_features_miss_in_many_patterns(name):
    # More than eight features: more than one byte of pattern.
    law = LAWS[name]
    c = law.components
    wide = StudentMixture(
        law.weights,
        np.tile(c.df, (1, 5)) if c.df.ndim == 2 else c.df,
        np.tile(c.loc, (1, 5)),
        np.tile(np.diagonal(c.scale, axis1=1, axis2=2), (1, 5))
        if c.full
        else np.tile(c.scale, (1, 5)),
    )
    X = rows(wide, n=60, missing=0.5)
    each = [
        wide.marginal(np.flatnonzero(~np.isnan(x))).log_density(x[None, ~np.isnan(x)])
        for x in X
    ]
    np.testing.assert_allclose(wide.log_density(X), np.ravel(each), rtol=1e-12)


@each_law
def test_other_units(name):
    law = LAWS[name]
    X, scale, shift = rows(law), np.array([2.0, -1e-3, 50.0, 0.1]), np.arange(4.0)
    moved, Y = law.rescaled(scale, shift), shift + scale * X
    jacobian = np.log(np.abs(scale)).sum()
    np.testing.assert_allclose(
        moved.log_density(Y), law.log_density(X) - jacobian, rtol=1e-9
    )
    np.testing.assert_allclose(moved.mean, shift + scale * law.mean, rtol=1e-12)
    expected = scale[:, None] * law.covariance() * scale
    np.testing.assert_allclose(moved.covariance(), expected, rtol=1e-10)
    one, other = moved.conditional(Y, [1]), law.conditional(X, [1])
    expected = shift[1] + scale[1] * other.interval(0.8)[:, :, ::-1]
    np.testing.assert_allclose(one.interval(0.8), expected, rtol=1e-9)
    np.testing.assert_allclose(one.std(), 1e-3 * other.std(), rtol=1e-9)
