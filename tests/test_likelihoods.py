"""Likelihoods against scipy.stats, finite differences and brute-force integrals."""

import warnings

import numpy as np
import pytest
from scipy import integrate, special, stats

from skvi.likelihoods import (
    BernoulliLogit,
    BernoulliProbit,
    Gaussian,
    NegativeBinomial,
    Poisson,
    Softmax,
    StudentT,
)
from skvi.likelihoods.base import Likelihood


def of_negative_binomial(y, eta, log_dispersion):
    size = np.exp(-log_dispersion)
    return stats.nbinom.logpmf(y, size, 1.0 / (1.0 + np.exp(eta + log_dispersion)))


# name: (likelihood, targets to try, log density from scipy.stats)
SCALAR = {
    "logit": (
        BernoulliLogit(),
        [0.0, 1.0],
        lambda y, eta, _: stats.logistic.logcdf((2.0 * y - 1.0) * eta),
    ),
    "probit": (
        BernoulliProbit(),
        [0.0, 1.0],
        lambda y, eta, _: stats.norm.logcdf((2.0 * y - 1.0) * eta),
    ),
    "poisson": (
        Poisson(),
        [0.0, 1.0, 12.0],
        lambda y, eta, _: stats.poisson.logpmf(y, np.exp(eta)),
    ),
    "negative binomial": (NegativeBinomial(), [0.0, 1.0, 12.0], of_negative_binomial),
    "gaussian": (
        Gaussian(),
        [-3.0, 0.0, 2.5],
        lambda y, eta, s: stats.norm.logpdf(y, eta, np.exp(0.5 * s)),
    ),
    "student-t of 4": (
        StudentT(4.0),
        [-3.0, 0.0, 2.5],
        lambda y, eta, s: stats.t.logpdf(y, 4.0, eta, np.exp(0.5 * s)),
    ),
    "student-t of 1.5": (
        StudentT(1.5),
        [-3.0, 2.5],
        lambda y, eta, s: stats.t.logpdf(y, 1.5, eta, np.exp(0.5 * s)),
    ),
}
WITH_DISPERSION = [
    "negative binomial",
    "gaussian",
    "student-t of 4",
    "student-t of 1.5",
]
each_scalar = pytest.mark.parametrize("name", SCALAR)
each_dispersed = pytest.mark.parametrize("name", WITH_DISPERSION)
LOG_DISPERSIONS = [-3.0, 0.0, 1.3]
# log dispersion ~ N(mean, variance)
LAWS = [(-2.0, 0.3), (0.4, 0.05), (1.0, 1e-8)]


def dispersions(name):
    return LOG_DISPERSIONS if name in WITH_DISPERSION else [0.0]


def grid(y, eta):
    return [v.ravel() for v in np.meshgrid(y, eta, indexing="ij")]


# -- densities and derivatives ---------------------------------------------------------


@each_scalar
def test_log_density_is_that_of_scipy(name):
    likelihood, targets, expected = SCALAR[name]
    y, eta = grid(targets, np.linspace(-8.0, 8.0, 33))
    for s in dispersions(name):
        here = likelihood.log_density(y, eta, s)
        assert here.shape == y.shape
        np.testing.assert_allclose(here, expected(y, eta, s), rtol=1e-9, atol=1e-11)


@each_scalar
def test_dispersion_may_differ_by_row(name):
    likelihood, targets, _ = SCALAR[name]
    s = np.array(dispersions(name))
    y, eta = np.full(len(s), targets[-1]), np.linspace(-1.0, 2.0, len(s))
    together = likelihood.log_density(y, eta, s)
    one_by_one = [
        likelihood.log_density(y[i : i + 1], eta[i], s[i]) for i in range(len(s))
    ]
    np.testing.assert_allclose(together, np.ravel(one_by_one), rtol=1e-13)


@each_scalar
def test_derivatives_are_finite_differences(name):
    likelihood, targets, _ = SCALAR[name]
    y, eta = grid(targets, np.linspace(-6.0, 6.0, 25))
    for s in dispersions(name):
        first, second = likelihood.derivatives(y, eta, s)
        h = 1e-3

        def slope(function, h=h):
            near = function(eta + h) - function(eta - h)
            far = function(eta + 2.0 * h) - function(eta - 2.0 * h)
            return (8.0 * near - far) / (12.0 * h)  # of fourth order

        def log_density(at, s=s):
            return likelihood.log_density(y, at, s)

        def gradient(at, s=s):
            return likelihood.derivatives(y, at, s)[0]

        size = 1.0 + np.max(np.abs(log_density(eta)))
        np.testing.assert_allclose(
            first, slope(log_density), rtol=1e-7, atol=1e-10 * size
        )
        np.testing.assert_allclose(second, slope(gradient), rtol=1e-7, atol=1e-8)


# -- expectations ----------------------------------------------------------------------

MEANS = np.array([-30.0, -7.0, -1.5, 0.0, 0.8, 6.0, 30.0])
VARIANCES = np.array([1e-8, 1e-3, 0.3, 4.0, 100.0])
TOLERANCE = 1e-6
H = 1e-3  # of differences


def integral(function, mean, variance, kinks):
    """E function(eta) of eta ~ N(mean, variance), by adaptive quadrature."""
    sd = np.sqrt(variance)
    low, high = -12.0, 12.0 + sd  # exp(eta) moves the mass up by a variance
    points = [(kink - mean) / sd for kink in kinks]
    points = sorted({x for x in [-6.0, 0.0, 6.0, sd, *points] if low < x < high})

    def weighted(x):
        return function(mean + sd * x) * np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi)

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is lost to rounding
        return integrate.quad(
            weighted, low, high, points=points, limit=400, epsabs=0.0, epsrel=1e-10
        )[0]


@each_scalar
def test_expectations_are_integrals(name):
    likelihood, targets, _ = SCALAR[name]
    y, mean, variance = (
        v.ravel() for v in np.meshgrid(targets, MEANS, VARIANCES, indexing="ij")
    )
    for s in dispersions(name)[:2]:
        known = (s, 0.0) if name in WITH_DISPERSION else None
        found = likelihood.expect(y, mean, variance, known)
        for i in range(len(y)):
            row = y[i : i + 1]
            kinks = [y[i], 0.0, -s] if name != "poisson" else []

            def density(eta, row=row, s=s):
                return likelihood.log_density(row, np.array([eta]), s)[0]

            def gradient(eta, row=row, s=s):
                return likelihood.derivatives(row, np.array([eta]), s)[0][0]

            def curvature(eta, row=row, s=s):
                return -likelihood.derivatives(row, np.array([eta]), s)[1][0]

            at = (mean[i], variance[i], kinks)
            where = f"y={y[i]} mean={mean[i]} variance={variance[i]} s={s}"
            for field, function in (
                ("value", density),
                ("gradient", gradient),
                ("curvature", curvature),
            ):
                exact = integral(function, *at)
                here = getattr(found, field)[i]
                assert abs(here - exact) <= TOLERANCE * (1.0 + abs(exact)), (
                    field,
                    where,
                )


def expectation_by_grid(function, mean, variance, law):
    """The same over eta and log dispersion, by the trapezoidal rule on a fine grid."""
    x = np.linspace(-9.0, 9.0, 1201)[:, None]
    z = np.linspace(-9.0, 9.0, 61)
    weight = np.exp(-0.5 * (x**2 + z**2))
    eta, s = mean + np.sqrt(variance) * x, law[0] + np.sqrt(law[1]) * z
    return np.sum(weight * function(eta, s)) / weight.sum()


@each_dispersed
def test_expectations_over_the_dispersion_are_integrals(name):
    likelihood, targets, _ = SCALAR[name]
    y, mean, variance = (
        v.ravel()
        for v in np.meshgrid(targets, [-2.0, 0.5, 4.0], [1e-6, 0.2, 3.0], indexing="ij")
    )
    for law in LAWS:
        found = likelihood.expect(y, mean, variance, law)
        for i in range(len(y)):

            def density(eta, s, i=i):
                return likelihood.log_density(y[i], eta, s)

            def in_log_dispersion(eta, s, density=density):
                return (density(eta, s + H) - density(eta, s - H)) / (2.0 * H)

            def bend(eta, s, density=density):
                both = density(eta, s + H) + density(eta, s - H)
                return (2.0 * density(eta, s) - both) / H**2

            for field, function in (
                ("value", density),
                ("gradient", lambda e, s, i=i: likelihood.derivatives(y[i], e, s)[0]),
                ("curvature", lambda e, s, i=i: -likelihood.derivatives(y[i], e, s)[1]),
                ("dispersion_gradient", in_log_dispersion),
                ("dispersion_curvature", bend),
            ):
                exact = expectation_by_grid(function, mean[i], variance[i], law)
                here = getattr(found, field)[i]
                where = f"{field} y={y[i]} mean={mean[i]} var={variance[i]} {law}"
                assert abs(here - exact) <= 2e-5 * (1.0 + abs(exact)), where


@each_scalar
def test_closed_forms_agree_with_the_default(name):
    likelihood, targets, _ = SCALAR[name]
    y, mean, variance = (
        v.ravel()
        for v in np.meshgrid(
            targets, [-4.0, 0.0, 0.8, 3.0], [1e-8, 1e-3, 0.1, 0.5], indexing="ij"
        )
    )
    laws = [(0.0, 0.0), (-0.5, 0.2)] if name in WITH_DISPERSION else [None]
    for law in laws:
        own = likelihood.expect(y, mean, variance, law)
        default = Likelihood.expect(likelihood, y, mean, variance, law)
        for field in ("value", "gradient", "curvature"):
            a, b = getattr(own, field), getattr(default, field)
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6, err_msg=field)
        for field in ("dispersion_gradient", "dispersion_curvature"):
            a, b = getattr(own, field), getattr(default, field)
            assert (a is None) == (b is None) == (law is None)
            if law is not None and law[1] > 0.0:
                np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5, err_msg=field)


@each_scalar
def test_derivatives_of_expectations_are_expectations_of_derivatives(name):
    """d value / d mean, d gradient / d mean, d value / d variance (Bonnet, Price)."""
    likelihood, targets, _ = SCALAR[name]
    y, mean, variance = (
        v.ravel()
        for v in np.meshgrid(targets, [-4.0, 0.0, 0.8, 3.0], [0.05, 0.4], indexing="ij")
    )
    for law in [(-0.5, 0.2), (0.3, 0.0)] if name in WITH_DISPERSION else [None]:

        def at(mean, variance=variance, law=law):
            return likelihood.expect(y, mean, variance, law)

        here, h = at(mean), 1e-3
        up, down = at(mean + h), at(mean - h)
        slope = (up.value - down.value) / (2.0 * h)
        np.testing.assert_allclose(slope, here.gradient, rtol=1e-5, atol=1e-5)
        slope = (up.gradient - down.gradient) / (2.0 * h)
        np.testing.assert_allclose(slope, -here.curvature, rtol=1e-5, atol=1e-5)
        up, down = at(mean, variance + h), at(mean, variance - h)
        slope = (up.value - down.value) / (2.0 * h)
        np.testing.assert_allclose(slope, -0.5 * here.curvature, rtol=1e-4, atol=1e-5)


@each_dispersed
def test_derivatives_in_the_law_of_the_dispersion(name):
    likelihood, targets, _ = SCALAR[name]
    y, mean = grid(targets, [-2.0, 0.5, 2.0])
    variance = np.full(len(y), 0.3)
    (m, v), h = (-0.4, 0.25), 1e-3

    def at(m, v):
        return likelihood.expect(y, mean, variance, (m, v))

    here = at(m, v)
    slope = (at(m + h, v).value - at(m - h, v).value) / (2.0 * h)
    np.testing.assert_allclose(slope, here.dispersion_gradient, rtol=1e-4, atol=1e-5)
    slope = (at(m, v + h).value - at(m, v - h).value) / (2.0 * h)
    np.testing.assert_allclose(
        slope, -0.5 * here.dispersion_curvature, rtol=1e-4, atol=1e-5
    )


def test_there_is_no_dispersion_where_there_is_none():
    y, one = np.array([0.0, 1.0]), np.ones(2)
    for name in ("logit", "probit", "poisson"):
        found = SCALAR[name][0].expect(y, 0.3 * one, one)
        assert found.dispersion_gradient is None
        assert found.dispersion_curvature is None


# -- softmax ---------------------------------------------------------------------------


def softmax_rows(n_classes, n=6, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    mean = 1.5 * rng.standard_normal((n, n_classes))
    root = 0.5 * rng.standard_normal((n, n_classes, n_classes))
    return y, mean, root @ np.swapaxes(root, 1, 2), rng


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_softmax_is_the_categorical_law(n_classes):
    likelihood = Softmax(n_classes)
    y, eta, _, _ = softmax_rows(n_classes)
    found = likelihood.log_density(y, eta)
    p = special.softmax(eta, axis=1)
    expected = [
        stats.multinomial.logpmf(np.eye(n_classes)[k], 1, q) for k, q in zip(y, p)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    first, second = likelihood.derivatives(y, eta)
    h = 1e-4
    for k in range(n_classes):
        step = h * np.eye(n_classes)[k]
        up, down = eta + step, eta - step
        slope = likelihood.log_density(y, up) - likelihood.log_density(y, down)
        np.testing.assert_allclose(first[:, k], slope / (2 * h), atol=1e-7)
        slope = likelihood.derivatives(y, up)[0] - likelihood.derivatives(y, down)[0]
        np.testing.assert_allclose(second[:, k], slope / (2 * h), atol=1e-7)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_softmax_expectations_are_monte_carlo_averages(n_classes):
    likelihood = Softmax(n_classes)
    y, mean, variance, rng = softmax_rows(n_classes)
    found = likelihood.expect(y, mean, variance)
    for i in range(len(y)):
        draws = rng.multivariate_normal(mean[i], variance[i], 100_000)
        rows = np.full(len(draws), y[i])
        first, second = likelihood.derivatives(rows, draws)
        for samples, expected in (
            (likelihood.log_density(rows, draws), found.value[i]),
            (first, found.gradient[i]),
            (-second, found.curvature[i]),
        ):
            error = samples.std(axis=0) / np.sqrt(len(draws))
            gap = np.abs(samples.mean(axis=0) - expected)
            assert np.all(gap <= 4.5 * error + 2e-4)


@pytest.mark.parametrize("sd, tolerance", [(1.0, 1e-6), (3.0, 1e-4), (8.0, 5e-3)])
def test_softmax_of_two_classes_is_logit(sd, tolerance):
    """The rule is made for posteriors, which are no wider than a few units."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    mean = 3.0 * rng.standard_normal((40, 2))
    root = rng.standard_normal((40, 2, 2))
    c = np.array([-1.0, 1.0])
    root *= (sd * rng.random(40) / np.linalg.norm(c @ root, axis=1))[:, None, None]
    variance = root @ np.swapaxes(root, 1, 2)
    two = Softmax(2).expect(y, mean, variance)
    of_difference = np.einsum("i,nij,j->n", c, variance, c)
    one = BernoulliLogit().expect(y.astype(float), mean @ c, of_difference)
    np.testing.assert_allclose(two.value, one.value, atol=tolerance)
    gradient = one.gradient[:, None] * c
    np.testing.assert_allclose(two.gradient, gradient, atol=tolerance)
    curvature = one.curvature[:, None, None] * np.outer(c, c)
    np.testing.assert_allclose(two.curvature, curvature, atol=tolerance)


def test_softmax_expectations_have_consistent_derivatives():
    likelihood = Softmax(3)
    y, mean, variance, _ = softmax_rows(3)
    here, h = likelihood.expect(y, mean, variance), 1e-3
    for k in range(3):
        step = h * np.eye(3)[k]
        up = likelihood.expect(y, mean + step, variance)
        down = likelihood.expect(y, mean - step, variance)
        slope = (up.value - down.value) / (2.0 * h)
        np.testing.assert_allclose(slope, here.gradient[:, k], atol=2e-4)
        slope = (up.gradient - down.gradient) / (2.0 * h)
        np.testing.assert_allclose(slope, -here.curvature[:, k], atol=2e-4)
    # a constant added to all classes says nothing
    moved = likelihood.expect(y, mean + 700.0, variance)
    np.testing.assert_allclose(moved.value, here.value, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(here.gradient.sum(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(here.curvature.sum(axis=1), 0.0, atol=1e-12)
    assert np.all(np.linalg.eigvalsh(here.curvature) > -1e-12)


# -- extremes --------------------------------------------------------------------------


@each_scalar
@pytest.mark.parametrize("eta", [-700.0, -40.0, 40.0, 700.0])
def test_densities_far_out_are_finite(name, eta):
    likelihood, targets, expected = SCALAR[name]
    y = np.array(targets)
    at = np.full(len(y), eta)
    with np.errstate(all="raise", under="ignore"):
        found = likelihood.log_density(y, at)
        first, second = likelihood.derivatives(y, at)
    assert np.all(np.isfinite(found)) and np.all(found <= 0.5)
    assert np.all(np.isfinite(first)) and np.all(np.isfinite(second))
    if name in ("logit", "probit", "gaussian"):
        np.testing.assert_allclose(found, expected(y, at, 0.0), rtol=1e-9, atol=1e-300)
    if name == "probit":  # log Phi(x) is about -x^2 / 2, with slope -x
        wrong = (2.0 * y - 1.0) * eta < 0.0
        np.testing.assert_allclose(np.abs(first[wrong]), abs(eta), rtol=1e-3)
        np.testing.assert_allclose(second[wrong], -1.0, rtol=1e-2)


@pytest.mark.parametrize("name", ["poisson", "negative binomial"])
def test_huge_counts(name):
    likelihood, _, expected = SCALAR[name]
    y = np.array([1e6, 1e9])
    eta = np.log(y)
    s = -4.0 if name in WITH_DISPERSION else 0.0
    np.testing.assert_allclose(
        likelihood.log_density(y, eta, s), expected(y, eta, s), rtol=1e-6
    )
    law = (-4.0, 0.1) if name in WITH_DISPERSION else None
    for variance in (1e-8, 1e-2, 4.0):
        found = likelihood.expect(y, eta, np.full(2, variance), law)
        for field in ("value", "gradient", "curvature"):
            assert np.all(np.isfinite(getattr(found, field)))
        assert np.all(found.curvature > 0.0)
    far = likelihood.expect(np.zeros(2), np.full(2, -700.0), np.ones(2), law)
    np.testing.assert_allclose(far.value, 0.0, atol=1e-100)


@pytest.mark.parametrize("name", ["logit", "probit"])
def test_expectations_of_sure_rows_keep_their_digits(name):
    """Where an outcome is all but sure, its log probability is tiny, not zero."""
    likelihood, _, expected = SCALAR[name]
    y, mean = np.array([0.0, 1.0]), np.array([-30.0, 30.0])
    found = likelihood.expect(y, mean, np.full(2, 1e-8))
    assert np.all(found.value <= 0.0) and np.all(found.curvature >= 0.0)
    np.testing.assert_allclose(found.value, expected(y, mean, 0.0), atol=1e-12)
    wrong = likelihood.expect(1.0 - y, mean, np.full(2, 1e-8))
    np.testing.assert_allclose(wrong.value, expected(1.0 - y, mean, 0.0), rtol=1e-6)


def test_gaussian_expectations_are_textbook():
    """-log(2 pi) / 2 - E s / 2 - E[exp(-s)] ((y - m)^2 + v) / 2."""
    rng = np.random.default_rng(0)
    y, mean, variance = rng.standard_normal(5), rng.standard_normal(5), rng.random(5)
    m, v = 0.3, 0.4
    found = Gaussian().expect(y, mean, variance, (m, v))
    precision = np.exp(-m + 0.5 * v)
    square = (y - mean) ** 2 + variance
    expected = -0.5 * (np.log(2.0 * np.pi) + m + precision * square)
    np.testing.assert_allclose(found.value, expected, rtol=1e-12)
    np.testing.assert_allclose(found.gradient, precision * (y - mean), rtol=1e-12)
    np.testing.assert_allclose(found.curvature, precision, rtol=1e-12)
    gradient = 0.5 * (precision * square - 1.0)
    np.testing.assert_allclose(found.dispersion_gradient, gradient, rtol=1e-12)
    np.testing.assert_allclose(
        found.dispersion_curvature, 0.5 * precision * square, rtol=1e-12
    )


def test_poisson_expectations_are_textbook():
    y = np.array([0.0, 3.0, 1e6])
    mean, variance = np.array([-2.0, 1.0, 14.0]), np.array([4.0, 0.1, 1e-4])
    found = Poisson().expect(y, mean, variance)
    rate = np.exp(mean + 0.5 * variance)
    expected = y * mean - rate - special.gammaln(y + 1.0)
    np.testing.assert_allclose(found.value, expected, rtol=1e-12)
    np.testing.assert_allclose(found.gradient, y - rate, rtol=1e-12)
    np.testing.assert_allclose(found.curvature, rate, rtol=1e-12)


def test_the_far_tail_of_the_probit_keeps_its_digits():
    x = -np.array([50.0, 90.0, 150.0, 3e3, 9e3, 1e5])
    first, second = BernoulliProbit().derivatives(np.ones(len(x)), x)
    np.testing.assert_allclose(first, -x + -1.0 / x, rtol=1e-3)
    # Mills' ratio: 1 - 1 / x^2 + O(x^-4)
    np.testing.assert_allclose(-second, 1.0 - 1.0 / x**2, atol=1e-5)
