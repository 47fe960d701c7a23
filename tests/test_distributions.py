"""Properties that every distribution has, and what is particular to each.

A distribution that ``skvi.distributions`` makes public needs an instance in
``INSTANCES`` (or in ``MARGINALS``, for the laws of predictions); the property tests
below then run on it.
"""

import pickle

import numpy as np
import pytest
import skops.io
from scipy import special, stats
from scipy.integrate import tanhsinh

import skvi.distributions
from skvi.distributions import (
    Beta,
    DiagonalNormalGamma,
    Dirichlet,
    DirichletOfCounts,
    Dirichlets,
    Distribution,
    ExponentialFamily,
    FactorisedDiagonalNormalGamma,
    FactorisedNormalWishart,
    Gamma,
    Gaussian,
    GaussianChain,
    InverseGamma,
    InverseWishart,
    LocationScaleMixture,
    LogNormal,
    NamedGaussian,
    NormalGamma,
    NormalWishart,
    PointMass,
    Product,
    Regressions,
    Rescaled,
    StickBreaking,
    StudentMixture,
    Wishart,
)
from skvi.distributions.wishart import inverse_lower
from skvi.inference.quadrature import GridDensity, gamma_nodes, integrate
from skvi.linalg import (
    BlockDiagonalPrecision,
    BlockTridiagonalPrecision,
    DensePrecision,
    DenseRows,
    DiagonalPrecision,
    DualPrecision,
    as_matrix,
)

N_DRAWS = 40_000


def spd(dim, seed):
    """A positive definite matrix that is far from diagonal."""
    factor = np.random.default_rng(seed).standard_normal((dim + 2, dim))
    return factor.T @ factor + 0.5 * np.eye(dim)


MATRIX = spd(3, 0)
MEAN = np.array([1.0, -2.0, 0.3])
ROWS = DenseRows(np.random.default_rng(1).standard_normal((2, 4)))
RIDGE = np.array([1.0, 2.0, 0.7, 1.5])


def two_blocks(noise):
    return NormalGamma(
        {
            "coef": (MEAN, DensePrecision(MATRIX)),
            "level": (np.array([0.7]), DiagonalPrecision([3.0])),
        },
        noise,
    )


def mixed_product():
    return Product(
        {
            "joint": two_blocks(Gamma(5.0, 2.0)),
            "scale": Gamma([4.0, 9.0], [1.0, 30.0]),
            "shares": Dirichlet([2.0, 3.5, 1.2]),
            "known": PointMass(2.5),
        }
    )


MEANS = np.array([[1.0, -2.0], [0.3, 0.8], [0.0, 0.5]])
PRECISIONS = np.array([0.7, 6.0, 3.0])
RATES = np.array([[2.0, 0.5], [8.0, 30.0], [5.0, 1.0]])
INVERSE_SCALES = np.stack([spd(2, seed) for seed in range(3)])


INSTANCES = {
    "gamma scalar": Gamma(2.5, 0.7),
    "gamma of small shape": Gamma(0.3, 2.0),
    "gamma array": Gamma([[0.5, 3.0, 40.0]], [[2.0], [0.1]]),
    "gaussian full": Gaussian(MEAN, DensePrecision(MATRIX)),
    "gaussian diagonal": Gaussian(MEAN, DiagonalPrecision([0.2, 1.0, 30.0])),
    "gaussian dual": Gaussian(np.arange(4.0), DualPrecision(ROWS, RIDGE)),
    "named gaussian": NamedGaussian(
        Gaussian(MEAN, DensePrecision(MATRIX)),
        {"coef": np.array([2, 0]), "level": np.array(1)},
    ),
    "named gaussian diagonal": NamedGaussian(
        Gaussian(MEAN, DiagonalPrecision([0.2, 1.0, 30.0])),
        {"coef": np.array([0, 1]), "level": np.array([2])},
    ),
    "named gaussian dual": NamedGaussian(
        Gaussian(np.arange(4.0), DualPrecision(ROWS, RIDGE)),
        {"coef": np.arange(3), "level": np.array(3)},
    ),
    "inverse gamma": InverseGamma(14.0, 30.0),
    "inverse wishart": InverseWishart(19.0, MATRIX),
    "inverse wishart of one dimension": InverseWishart(17.0, [[3.0]]),
    "log-normal": LogNormal(-0.7, 0.4),
    "log-normal of large mean": LogNormal(12.0, 0.02),
    "normal-gamma": NormalGamma(
        {"coef": (MEAN, DensePrecision(MATRIX))}, Gamma(6.0, 2.0)
    ),
    "normal-gamma diagonal": NormalGamma(
        {"x": (MEAN, DiagonalPrecision([0.2, 1.0, 30.0]))}, Gamma(6.0, 4.0), "tau"
    ),
    "normal-gamma of two blocks": two_blocks(Gamma(5.0, 2.0)),
    "normal-gamma of known noise": two_blocks(PointMass(4.0)),
    "dirichlet": Dirichlet([0.4, 3.0, 1.0, 12.0]),
    "dirichlet array": Dirichlet([[0.5, 2.0, 5.0], [30.0, 20.0, 1.0]]),
    "dirichlets": Dirichlets(
        [[0.5, 2.0, 5.0, 0.7, 3.0], [30.0, 2.0, 1.0, 4.0, 2.0]], [3, 2]
    ),
    "beta": Beta([[0.7, 3.0], [20.0, 1.0]], [[0.5, 2.0], [4.0, 30.0]]),
    "beta scalar": Beta(2.0, 5.0),
    "wishart": Wishart(9.5, MATRIX),
    "wishart of one dimension": Wishart([3.0, 0.5], [[[2.0]], [[0.1]]]),
    "wishart array": Wishart([2.5, 9.0, 70.0], INVERSE_SCALES),
    "normal-wishart": NormalWishart(
        MEANS, PRECISIONS, Wishart([12.0, 15.0, 40.0], INVERSE_SCALES)
    ),
    "normal-wishart tied": NormalWishart(
        MEANS, PRECISIONS, Wishart(11.0, INVERSE_SCALES[0]), ("mu", "precision")
    ),
    "normal-wishart of one component": NormalWishart(
        MEAN[None], 0.2, Wishart([14.0], MATRIX)
    ),
    "normal-gamma array diagonal": DiagonalNormalGamma(
        MEANS, PRECISIONS, [6.0, 7.0, 40.0], RATES
    ),
    "normal-gamma array of shapes": DiagonalNormalGamma(
        MEANS, RATES, [[6.0, 9.0], [8.0, 7.0], [20.0, 6.5]], RATES
    ),
    "normal-gamma array spherical": DiagonalNormalGamma(
        MEANS, PRECISIONS, 7.0, RATES[:, 0], ("mu", "precision")
    ),
    "factorised normal-wishart": FactorisedNormalWishart(
        MEANS, PRECISIONS, Wishart([12.0, 15.0, 40.0], INVERSE_SCALES)
    ),
    "factorised normal-wishart tied": FactorisedNormalWishart(
        MEANS, PRECISIONS, Wishart(11.0, INVERSE_SCALES[0]), ("mu", "precision")
    ),
    "factorised normal-gamma array": FactorisedDiagonalNormalGamma(
        MEANS, RATES, [[6.0, 9.0], [8.0, 7.0], [20.0, 6.5]], RATES
    ),
    "factorised normal-gamma array spherical": FactorisedDiagonalNormalGamma(
        MEANS, PRECISIONS, 7.0, RATES[:, 0], ("mu", "precision")
    ),
    "stick-breaking": StickBreaking([1.0, 4.0, 30.0], [0.5, 2.0, 8.0]),
    "stick-breaking array": StickBreaking(
        [[1.0, 2.0], [5.0, 0.3]], [[3.0, 0.7], [50.0, 9.0]]
    ),
    "regressions": Regressions(
        MEANS, INVERSE_SCALES, Gamma([6.0, 7.0, 40.0], RATES[:, 0])
    ),
    "regressions with intercepts": Regressions(
        np.array([MEAN, -MEAN]),
        MATRIX[None],
        Gamma([8.0, 12.0], [2.0, 30.0]),
        ("slopes", "level", "tau"),
    ),
    "regressions of known noise": Regressions(
        MEANS, INVERSE_SCALES, PointMass(np.ones(3)), ("slopes", None, None)
    ),
    "gaussian chain": GaussianChain(
        np.arange(10.0).reshape(5, 2),
        BlockTridiagonalPrecision(
            np.stack([spd(2, seed) for seed in range(5)]),
            np.arange(5),
            np.array([[0.9, 0.3], [-0.2, 0.7]]),
            np.diag([0.5, 0.2]),
            np.diag([2.0, 5.0]),
            [1, 0, 0, 1, 0, 1],
        ),
    ),
    "gaussian steps": GaussianChain(
        np.arange(6.0).reshape(3, 2),
        BlockDiagonalPrecision(INVERSE_SCALES, np.array([2, 0, 1])),
    ),
    "point mass": PointMass(3.0),
    "point mass array": PointMass([0.5, 2.0]),
    "product": mixed_product(),
    "rescaled": Rescaled(
        mixed_product(),
        {"coef": np.array([1e-3, 5.0, -2.0]), "level": 40.0, "noise_precision": 1e-4},
        {"level": 1000.0, "coef": np.array([0.0, 1.0, 2.0])},
    ),
}
MARGINALS = {
    "student-t": LocationScaleMixture(
        np.array([0.2, 0.5, 0.3]),
        np.array([3.5, 12.0, 5.0]),
        np.array([[0.0, 1.0, 3.0], [-5.0, 5.0, 0.0], [100.0, 101.0, 99.0]]),
        np.array([[1.0, 0.5, 2.0], [0.3, 0.2, 1.0], [1.0, 4.0, 0.1]]),
    ),
    "gaussian": LocationScaleMixture(
        np.array([0.6, 0.4]),
        np.inf,
        np.array([[0.0, 4.0], [1.0, 1.0]]),
        np.array([[1.0, 0.5], [3.0, 0.1]]),
    ),
    "one student-t": LocationScaleMixture(
        np.ones(1), np.array([6.0]), np.array([[2.0], [-1.0]]), np.array([[3.0], [0.1]])
    ),
    "equal components": LocationScaleMixture(
        np.array([0.3, 0.7]), 4.0, np.full((1, 2), 1e3), np.full((1, 2), 1e-2)
    ),
    "student-t and gaussian": LocationScaleMixture(
        np.array([0.5, 0.5]),
        np.array([8.0, np.inf]),
        np.array([[-1.0, 1.0]]),
        np.array([[1.0, 0.5]]),
    ),
}

each_instance = pytest.mark.parametrize("name", INSTANCES)
exponential = [k for k, q in INSTANCES.items() if isinstance(q, ExponentialFamily)]
# A normal-gamma whose noise is known is Gaussian: it has no statistic of the noise.
exponential.remove("normal-gamma of known noise")
exponential.remove("regressions of known noise")
each_family = pytest.mark.parametrize("name", exponential)
each_marginal = pytest.mark.parametrize("name", MARGINALS)


def test_every_public_distribution_has_an_instance():
    tested = {type(q) for q in [*INSTANCES.values(), *MARGINALS.values()]}
    public = {getattr(skvi.distributions, name) for name in skvi.distributions.__all__}
    elsewhere = {StudentMixture, DirichletOfCounts}  # have tests of their own
    assert public - {Distribution, ExponentialFamily} - elsewhere == tested


def draw(q, n=N_DRAWS):
    return q.sample(n, np.random.default_rng(0))


def assert_estimates(samples, expected, n_errors=4.5):
    """Means over draws agree within standard errors, and those are not wide."""
    mean, error = samples.mean(axis=0), samples.std(axis=0) / np.sqrt(len(samples))
    assert np.all(np.abs(mean - expected) <= n_errors * error + 1e-12 * np.abs(mean))


# -- every exponential family ----------------------------------------------------------


def numerical_gradient(function, natural):
    """Central differences of the log normaliser in every natural parameter."""
    names = list(natural)
    shapes = [np.shape(natural[name]) for name in names]
    cuts = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])[:-1]
    start = np.concatenate([np.ravel(natural[name]) for name in names])

    def at(flat):
        parts = np.split(flat, cuts)
        pairs = zip(names, parts, shapes)
        return float(function({name: part.reshape(s) for name, part, s in pairs}))

    gradient = np.empty_like(start)
    for i, value in enumerate(start):
        h = 2e-3 * max(1e-1, abs(value))
        unit = np.zeros_like(start)
        unit[i] = h
        near, far = (at(start + k * unit) - at(start - k * unit) for k in (1, 2))
        gradient[i] = (8.0 * near - far) / (12.0 * h)  # of fourth order
    pairs = zip(names, np.split(gradient, cuts), shapes)
    return {name: part.reshape(shape) for name, part, shape in pairs}


@each_family
def test_expected_statistics_are_the_gradient_of_the_log_normaliser(name):
    q = INSTANCES[name]
    gradient = numerical_gradient(q.log_normalizer, q.natural())
    expected = q.expect()
    assert gradient.keys() == expected.keys() == q.statistics(draw(q, 2)).keys()
    for key, value in expected.items():
        scale = np.max(np.abs(value))
        np.testing.assert_allclose(gradient[key], value, rtol=1e-7, atol=1e-7 * scale)


@each_family
def test_expected_statistics_are_sample_means(name):
    q = INSTANCES[name]
    statistics = q.statistics(draw(q))
    for key, expected in q.expect().items():
        assert_estimates(statistics[key], expected)


def log_base(q, z):
    """``log h(z)``: the measure that makes the statistics log z and z natural."""
    if isinstance(q, Beta):
        return -(np.log(z) + np.log1p(-z)).reshape(len(z), -1).sum(axis=1)
    if isinstance(q, Gaussian):
        return 0.0
    if isinstance(q, NormalGamma):
        return -np.log(z[q.noise_name])
    if isinstance(q, Regressions):
        return log_base(q.noise, z[q.names[-1]])
    if isinstance(q, DiagonalNormalGamma):
        return log_base(q.noise, z[q.names[1]])
    if isinstance(q, NormalWishart):
        return log_base(q.wishart, z[q.names[1]])
    if isinstance(q, Wishart):
        log_det = np.linalg.slogdet(z)[1].reshape(len(z), -1)
        return -0.5 * (q.dim + 1) * log_det.sum(axis=1)
    return -np.log(z).reshape(len(z), -1).sum(axis=1)


@each_family
def test_log_density_is_that_of_the_natural_parameters(name):
    q = INSTANCES[name]
    z = draw(q, 50)
    natural, statistics = q.natural(), q.statistics(z)
    assert natural.keys() == statistics.keys()
    inner = sum(
        (natural[key] * value).reshape(50, -1).sum(axis=1)
        for key, value in statistics.items()
    )
    expected = inner - q.log_normalizer(natural) + log_base(q, z)
    np.testing.assert_allclose(q.log_density(z), expected, rtol=1e-10, atol=1e-10)


# -- every distribution ----------------------------------------------------------------


@each_instance
def test_entropy_is_the_mean_of_minus_log_density(name):
    q = INSTANCES[name]
    assert np.ndim(q.entropy()) == 0
    assert_estimates(-q.log_density(draw(q)), q.entropy())


def variables(q):
    """(name or None, draws as (n, ..., dim), covariance) of every variable."""
    z = draw(q)
    if q.names is None:
        return [(None, z, q.covariance())]
    assert tuple(sorted(z)) == tuple(sorted(q.names))
    return [(key, z[key], q.covariance(key)) for key in q.names]


@each_instance
def test_covariances_are_sample_covariances(name):
    for _, z, covariance in variables(INSTANCES[name]):
        covariance = as_matrix(covariance)
        centred = z - z.mean(axis=0)
        if z.ndim == 1:
            products = centred**2
        else:
            products = centred[..., :, None] * centred[..., None, :]
        assert np.shape(covariance) == products.shape[1:]
        assert_estimates(products, covariance)


@each_instance
def test_means_and_variances_are_those_of_the_draws(name):
    q = INSTANCES[name]
    if q.names is not None:
        assert q.mean.keys() == set(q.names)
    for key, z, covariance in variables(q):
        assert_estimates(z, q.mean if key is None else q.mean[key])
        if isinstance(q, (Product, Rescaled)):
            continue  # the variances are those of the factors
        variance = q.variance() if key is None else q.variance(key)
        covariance = as_matrix(covariance)
        if z.ndim > 1:
            covariance = np.diagonal(covariance, axis1=-2, axis2=-1)
        np.testing.assert_allclose(variance, covariance, rtol=1e-12)


@each_instance
def test_draws_have_the_first_axis_and_are_reproducible(name):
    q = INSTANCES[name]
    first, again, other = draw(q, 7), draw(q, 7), q.sample(7, np.random.default_rng(1))
    for z in (first, other):
        assert q.log_density(z).shape == (7,)
    np.testing.assert_array_equal(q.log_density(first), q.log_density(again))
    if not isinstance(q, PointMass):
        assert np.all(q.log_density(first) != q.log_density(other))


@each_instance
def test_distance_to_itself_is_zero(name):
    assert INSTANCES[name].distance(INSTANCES[name]) == 0.0


def test_distance_is_in_standard_deviations():
    q = Gaussian(MEAN, DensePrecision(MATRIX))
    sd = np.sqrt(np.diag(np.linalg.inv(MATRIX)))
    moved = Gaussian(MEAN + [0.0, -2.0 * sd[1], sd[2]], q.precision)
    assert q.distance(moved) == pytest.approx(2.0)
    # Of positive variables the logs are compared.
    gamma = Gamma([3.0, 5.0], [1.0, 2.0])
    sd = np.sqrt(special.polygamma(1, 5.0))
    assert gamma.distance(Gamma([3.0, 5.0], [1.0, 2.0 * np.exp(sd)])) == pytest.approx(
        1.0
    )
    shares = Dirichlet([3.0, 5.0])
    sd = np.log(draw(shares)).std(axis=0)
    other = Dirichlet([4.0, 5.0])
    expected = np.max(np.abs(shares.mean_log - other.mean_log) / sd)
    assert shares.distance(other) == pytest.approx(expected, rel=0.02)
    # One component is sure to have the whole.
    assert Dirichlet([3.0]).distance(Dirichlet([4.0])) == 0.0
    joint, sd = two_blocks(Gamma(5.0, 2.0)), np.sqrt(0.4 / 3.0)
    blocks = {**joint.blocks, "level": (np.array([0.7 - sd]), DiagonalPrecision([3.0]))}
    assert joint.distance(NormalGamma(blocks, joint.noise)) == pytest.approx(1.0)
    product = Product({"a": q, "b": gamma})
    assert product.distance(Product({"a": moved, "b": gamma})) == pytest.approx(2.0)
    assert product.distance(Product({"a": q, "b": gamma})) == 0.0


PRIORS = {  # each with a distribution of the same variable
    "gamma": (Gamma(2.0, 3.0), Gamma([5.0, 0.6], [1.0, 4.0])),
    "gamma of a point": (Gamma([2.0, 9.0], 3.0), PointMass([0.4, 5.0])),
    "dirichlet": (Dirichlet([0.5, 2.0, 1.0]), Dirichlet([3.0, 1.5, 8.0])),
    "dirichlet array": (
        Dirichlet([[0.5, 2.0], [4.0, 4.0]]),
        Dirichlet([[3.0, 1.5], [1.0, 8.0]]),
    ),
    "wishart": (Wishart(np.full(3, 2.5), spd(2, 7)), INSTANCES["wishart array"]),
    "normal-wishart": (
        NormalWishart(MEANS[::-1], 0.1, Wishart(np.full(3, 2.5), spd(2, 7))),
        INSTANCES["normal-wishart"],
    ),
    "normal-wishart tied": (
        NormalWishart(MEANS[::-1], 0.1, Wishart(2.5, spd(2, 7)), ("mu", "precision")),
        INSTANCES["normal-wishart tied"],
    ),
    "normal-gamma array": (
        DiagonalNormalGamma(MEANS[::-1], 0.1, 0.5, np.full((3, 2), 0.7)),
        INSTANCES["normal-gamma array of shapes"],
    ),
    "normal-gamma array spherical": (
        DiagonalNormalGamma(MEANS[::-1], 0.1, 0.5, np.ones(3), ("mu", "precision")),
        INSTANCES["normal-gamma array spherical"],
    ),
    "normal-wishart of a factorised one": (
        NormalWishart(MEANS[::-1], 0.1, Wishart(np.full(3, 2.5), spd(2, 7))),
        INSTANCES["factorised normal-wishart"],
    ),
    "normal-wishart tied of a factorised one": (
        NormalWishart(MEANS[::-1], 0.1, Wishart(2.5, spd(2, 7)), ("mu", "precision")),
        INSTANCES["factorised normal-wishart tied"],
    ),
    "normal-gamma array of a factorised one": (
        DiagonalNormalGamma(MEANS[::-1], 0.1, 0.5, np.full((3, 2), 0.7)),
        INSTANCES["factorised normal-gamma array"],
    ),
    "normal-gamma array spherical of a factorised one": (
        DiagonalNormalGamma(MEANS[::-1], 0.1, 0.5, np.ones(3), ("mu", "precision")),
        INSTANCES["factorised normal-gamma array spherical"],
    ),
    "stick-breaking": (StickBreaking(np.ones(3), 2.0), INSTANCES["stick-breaking"]),
    "beta": (Beta(np.full((2, 2), 0.5), 1.5), INSTANCES["beta"]),
}
each_prior = pytest.mark.parametrize("name", PRIORS)


@each_prior
def test_expected_log_density_is_the_mean_over_the_other(name):
    prior, other = PRIORS[name]
    z = draw(other)
    # A prior of one variable may stand for several that are alike.
    log_density = prior.log_density(z)
    if isinstance(prior, Gamma) and prior.shape.ndim == 0:
        log_density = stats.gamma.logpdf(z, 2.0, scale=1.0 / 3.0).sum(axis=1)
    assert_estimates(log_density, prior.expected_log_density(other))


class OnlyExpectations:
    """All that a prior may ask of a posterior."""

    def __init__(self, q):
        self.expect = q.expect


@each_prior
def test_expected_log_density_is_that_of_the_natural_parameters(name):
    prior, other = PRIORS[name]
    e, natural = other.expect(), prior.natural()
    inner = sum(np.sum(natural[key] * e[key]) for key in natural)
    if isinstance(prior, StickBreaking):
        log_h = -other.mean_log.sum()
    elif "log_det" in e:
        log_h = -0.5 * (prior.dim + 1) * np.sum(e["log_det"])
    elif "log_rest" in e:
        log_h = -np.sum(e["log"] + e["log_rest"])
    else:
        log_h = -np.sum(e["log"])
    # One that stands for several has its normaliser several times.
    copies = 2 if name == "gamma" else 1
    expected = inner + log_h - copies * prior.log_normalizer(natural)
    actual = prior.expected_log_density(OnlyExpectations(other))
    assert actual == pytest.approx(expected, rel=1e-12)


# -- each against scipy ----------------------------------------------------------------


def test_inverse_gamma_as_a_prior_of_a_log_normal():
    """Its expectation is the mean over draws; its site, the derivatives of that."""
    prior, other = InverseGamma(1.7, 0.4), LogNormal(-0.6, 0.3)
    assert_estimates(prior.log_density(draw(other)), prior.expected_log_density(other))
    x = np.array([0.2, 1.0, 7.0])
    expected = stats.invgamma.logpdf(x, 1.7, scale=0.4)
    np.testing.assert_allclose(prior.log_density(x), expected, rtol=1e-12)

    def at(mean, variance=0.3):
        # of the logarithm, whose density has its derivative's log, which is linear
        law = LogNormal(mean, variance)
        return prior.expected_log_density(law) + mean

    h = 1e-4
    gradient, curvature = prior.log_site(-0.6, 0.3)
    slope = (at(-0.6 + h) - at(-0.6 - h)) / (2.0 * h)
    assert gradient == pytest.approx(slope, rel=1e-6)
    bend = (at(-0.6, 0.3 + h) - at(-0.6, 0.3 - h)) / h
    assert curvature == pytest.approx(-bend, rel=1e-6)


def test_inverse_wishart_is_that_of_scipy():
    scale = spd(3, 4)
    q, law = InverseWishart(8.5, scale), stats.invwishart(8.5, scale)
    z = draw(q, 20)
    expected = law.logpdf(np.moveaxis(z, 0, -1))
    np.testing.assert_allclose(q.log_density(z), expected, rtol=1e-10)
    np.testing.assert_allclose(q.mean, law.mean(), rtol=1e-10)
    np.testing.assert_allclose(q.variance(), law.var(), rtol=1e-10)
    other = INSTANCES["inverse wishart"]
    assert_estimates(q.log_density(draw(other)), q.expected_log_density(other))
    np.testing.assert_allclose(
        q.mean_precision, stats.wishart(8.5, np.linalg.inv(scale)).mean(), rtol=1e-10
    )
    # a diagonal element is inverse gamma
    each = stats.invgamma(q.shape, scale=0.5 * scale[1, 1])
    observed = stats.kstest(draw(q, 4000)[:, 1, 1], each.cdf)
    assert observed.pvalue > 1e-3
    one = InverseWishart(5.0, [[0.7]])
    expected = stats.invgamma.logpdf([0.1, 2.0], 2.5, scale=0.35)
    at = np.array([0.1, 2.0])[:, None, None]
    np.testing.assert_allclose(one.log_density(at), expected, rtol=1e-12)


def test_inverse_wishart_of_few_degrees_has_no_mean():
    few = InverseWishart(3.5, spd(3, 4))
    assert np.all(np.isinf(np.diag(few.mean)))
    assert np.all(np.isinf(np.diagonal(few.covariance(), axis1=-2, axis2=-1)))
    assert np.isfinite(few.entropy()) and np.all(np.isfinite(few.mean_precision))
    few = InverseWishart(5.5, spd(3, 4))
    assert np.all(np.isfinite(few.mean)) and np.any(np.isinf(few.covariance()))


def test_inverse_wishart_in_other_units_and_coordinates():
    q, unit = INSTANCES["inverse wishart"], np.array([1e-3, 1.0, 40.0])
    other = q.rescaled(unit)
    z = draw(q, 20)
    log_volume = 4.0 * np.log(unit).sum()  # every element, once
    np.testing.assert_allclose(
        other.log_density(z * np.outer(unit, unit)), q.log_density(z) - log_volume
    )
    assert other.entropy() == pytest.approx(q.entropy() + log_volume)
    assert q.at(q.coordinates()).distance(q) < 1e-12
    wider = q.with_spread(0.2)
    assert wider.spread == pytest.approx(0.2)
    np.testing.assert_allclose(wider.log_variances, q.log_variances)


def test_log_normal_is_that_of_scipy():
    q, z = LogNormal(-0.7, 0.4), np.array([0.1, 0.5, 3.0])
    other = stats.lognorm(np.sqrt(0.4), scale=np.exp(-0.7))
    np.testing.assert_allclose(q.log_density(z), other.logpdf(z), rtol=1e-12)
    assert q.entropy() == pytest.approx(other.entropy(), rel=1e-10)
    assert q.mean == pytest.approx(other.mean(), rel=1e-12)
    assert q.variance() == pytest.approx(other.var(), rel=1e-12)
    assert q.mean_inverse == pytest.approx(np.exp(0.7 + 0.2), rel=1e-12)


def test_gamma_is_that_of_scipy():
    q = Gamma([0.5, 3.0], [2.0, 0.1])
    z = draw(q, 20)
    scale = [0.5, 10.0]
    expected = stats.gamma.logpdf(z, [0.5, 3.0], scale=scale)
    np.testing.assert_allclose(q.log_density(z), expected.sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(
        q.entropies(), stats.gamma.entropy([0.5, 3.0], scale=scale), rtol=1e-12
    )
    np.testing.assert_allclose(
        q.sf(1.5), stats.gamma.sf(1.5, [0.5, 3.0], scale=scale), rtol=1e-12
    )
    np.testing.assert_allclose(
        Gamma([3.0, 1.0], 2.0).mean_inverse,
        [stats.invgamma.mean(3.0, scale=2.0), np.inf],
    )


@pytest.mark.parametrize("shape", [0.3, 5.0, 1e6])
def test_gamma_absorbs_by_bayes_rule(shape):
    prior, log, value = Gamma(shape, 2.0), 1.5, 0.7
    after = prior.absorb(log, value)
    x = np.linspace(0.5, 1.5, 5) * after.mean
    expected = prior.log_density(x) + log * np.log(x) - value * x
    expected -= prior.log_absorbed(log, value)
    np.testing.assert_allclose(after.log_density(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["gaussian full", "gaussian diagonal"])
def test_gaussian_is_that_of_scipy(name):
    q = INSTANCES[name]
    covariance = (
        np.linalg.inv(MATRIX)
        if name == "gaussian full"
        else np.diag(1.0 / np.array([0.2, 1.0, 30.0]))
    )
    law = stats.multivariate_normal(MEAN, covariance)
    z = draw(q, 20)
    np.testing.assert_allclose(q.log_density(z), law.logpdf(z), rtol=1e-10)
    assert q.entropy() == pytest.approx(law.entropy(), rel=1e-12)
    np.testing.assert_allclose(q.covariance(), covariance, rtol=1e-12, atol=1e-15)


def normal_given(q, z):
    """``log p(blocks | tau)`` by scipy, a draw at a time."""
    total = np.zeros(len(z["noise_precision"]))
    for i, tau in enumerate(z["noise_precision"]):
        total[i] = stats.multivariate_normal.logpdf(
            z["coef"][i], MEAN, np.linalg.inv(tau * MATRIX)
        ) + stats.norm.logpdf(z["level"][i, 0], 0.7, 1.0 / np.sqrt(3.0 * tau))
    return total


def test_normal_gamma_is_that_of_scipy():
    q = two_blocks(Gamma(5.0, 2.0))
    z = draw(q, 20)
    expected = normal_given(q, z)
    expected += stats.gamma.logpdf(z["noise_precision"], 5.0, scale=0.5)
    np.testing.assert_allclose(q.log_density(z), expected, rtol=1e-10)


def test_normal_gamma_of_known_noise_is_gaussian():
    q = two_blocks(PointMass(4.0))
    z = draw(q, 20)
    assert np.all(z["noise_precision"] == 4.0)
    np.testing.assert_allclose(q.log_density(z), normal_given(q, z), rtol=1e-10)
    law = stats.multivariate_normal(MEAN, np.linalg.inv(4.0 * MATRIX))
    level = stats.norm.entropy(scale=1.0 / np.sqrt(12.0))
    assert q.entropy() == pytest.approx(law.entropy() + level, rel=1e-12)


def test_marginal_of_normal_gamma_is_student_t():
    shape, rate = 2.5, 0.8
    q = NormalGamma({"coef": (MEAN, DensePrecision(MATRIX))}, Gamma(shape, rate))
    marginal = stats.multivariate_t(
        MEAN, np.linalg.inv(MATRIX) * rate / shape, df=2.0 * shape
    )
    x = MEAN + np.array([[0.0, 0.0, 0.0], [1.0, -1.0, 0.5], [8.0, 3.0, -9.0]])

    for row in x:

        def log_density(log_tau, row=row):
            tau = np.exp(log_tau)
            z = {"coef": np.tile(row, (len(tau), 1)), "noise_precision": tau}
            return q.log_density(z) + log_tau

        mass = integrate(log_density, -40.0, 8.0, 0.1).log_mass
        assert mass == pytest.approx(marginal.logpdf(row), abs=1e-10)


def test_normal_gamma_of_few_degrees_has_no_variance():
    q = two_blocks(Gamma(0.9, 2.0))
    assert np.all(np.isinf(q.variance("coef")))
    assert np.isfinite(q.distance(two_blocks(Gamma(0.9, 2.1))))


def test_dirichlet_is_that_of_scipy():
    alpha = np.array([0.4, 3.0, 1.0, 12.0])
    q, law = Dirichlet(alpha), stats.dirichlet(alpha)
    z = draw(q, 20)
    np.testing.assert_allclose(z.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(q.log_density(z), law.logpdf(z.T), rtol=1e-10)
    assert q.entropy() == pytest.approx(law.entropy(), rel=1e-12)
    np.testing.assert_allclose(q.mean, law.mean(), rtol=1e-12)
    np.testing.assert_allclose(q.covariance(), law.cov(), rtol=1e-12)


def test_dirichlets_stand_side_by_side():
    alpha = np.array([[0.5, 2.0, 5.0], [30.0, 20.0, 1.0]])
    q, parts = Dirichlet(alpha), [Dirichlet(a) for a in alpha]
    z = draw(q, 20)
    assert q.entropy() == pytest.approx(sum(part.entropy() for part in parts))
    expected = sum(part.log_density(z[:, k]) for k, part in enumerate(parts))
    np.testing.assert_allclose(q.log_density(z), expected, rtol=1e-12)
    covariances = [part.covariance() for part in parts]
    np.testing.assert_allclose(q.covariance(), covariances, rtol=1e-12)


def test_dirichlet_absorbs_counts():
    after = Dirichlet([0.5, 2.0, 1.0]).absorb(np.array([3.0, 0.0, 4.5]))
    np.testing.assert_array_equal(after.concentration, [3.5, 2.0, 5.5])


def test_dirichlet_of_tiny_concentration_draws_probabilities():
    z = draw(Dirichlet(np.full(5, 1e-4)), 2_000)
    np.testing.assert_allclose(z.sum(axis=1), 1.0, rtol=1e-12)
    assert_estimates(z, 0.2)


# -- the families of a Gaussian mixture ------------------------------------------------

NORMAL = [
    "normal-wishart",
    "normal-wishart tied",
    "normal-gamma array diagonal",
    "normal-gamma array of shapes",
    "normal-gamma array spherical",
]
FACTORISED = [
    "factorised normal-wishart",
    "factorised normal-wishart tied",
    "factorised normal-gamma array",
    "factorised normal-gamma array spherical",
]
STICKS = ["stick-breaking", "stick-breaking array"]
each_normal = pytest.mark.parametrize("name", NORMAL)
each_joint_or_factorised = pytest.mark.parametrize("name", [*NORMAL, *FACTORISED])


def weighted_rows():
    """Rows of two columns and their responsibilities."""
    rng = np.random.default_rng(5)
    return rng.normal(3.0, 2.0, (30, 2)), rng.dirichlet(np.ones(3), 30)


def second_moments(q, weighted, x):
    """What the third argument of ``absorb`` is, from (n, K, D) arrays."""
    if isinstance(q, DiagonalNormalGamma):
        return (weighted * x).sum(axis=0)
    outer = np.einsum("nki,nkj->kij", weighted, x)
    return outer.sum(axis=0) if isinstance(q, NormalWishart) and q.tied else outer


def log_likelihood(q, z, x, r):
    """``sum_nk r_nk log p(x_n | component k)`` at every draw, by scipy."""
    mu, precision = (0.0, z) if q.names is None else (z[name] for name in q.names)
    mu = np.broadcast_to(mu, (len(precision), 3, 2))
    if isinstance(q, DiagonalNormalGamma):
        precision = precision[..., None] if q.spherical else precision
        precision = precision[..., None] * np.eye(2)
    elif isinstance(q, NormalWishart) and q.tied:
        precision = precision[:, None]
    covariance = np.broadcast_to(np.linalg.inv(precision), (*mu.shape, 2))
    total = np.zeros(len(mu))
    for i, k in np.ndindex(len(mu), 3):
        law = stats.multivariate_normal(mu[i, k], covariance[i, k])
        total[i] += r[:, k] @ np.atleast_1d(law.logpdf(x))
    return total


@pytest.mark.parametrize("name", ["wishart array", *NORMAL])
def test_absorb_of_rows_is_bayes_rule(name):
    q, (x, r) = INSTANCES[name], weighted_rows()
    second = second_moments(q, r[..., None] * x[:, None], np.stack([x] * 3, axis=1))
    count, total = r.sum(axis=0), r.T @ x
    arguments = (count, second) if q.names is None else (count, total, second)
    after = q.absorb(*arguments)
    assert after.names == q.names
    z = draw(q, 4)
    likelihood = log_likelihood(q, z, x, r)
    log_evidence = likelihood + q.log_density(z) - after.log_density(z)
    before, moved = q.natural(), after.natural()
    # The evidence is the ratio of normalisers, at every draw.
    rise = q.log_normalizer(moved) - q.log_normalizer(before)
    expected = rise - r.sum() * np.log(2.0 * np.pi)
    np.testing.assert_allclose(log_evidence, expected, rtol=1e-10)
    # What is added to the natural parameters are the sums of the statistics.
    again = after.absorb(*arguments).natural()
    for key, value in moved.items():
        step = value - before[key]
        scale = np.max(np.abs(step))
        np.testing.assert_allclose(again[key] - value, step, atol=1e-12 * scale)
        if key == "linear":
            np.testing.assert_allclose(step, total, rtol=1e-12)
        if key == "quadratic":
            np.testing.assert_allclose(step.T, -0.5 * count * np.ones(step.T.shape))


@pytest.mark.parametrize("name", STICKS)
def test_absorb_of_counts_is_bayes_rule(name):
    q, z = INSTANCES[name], draw(INSTANCES[name], 4)
    counts = np.random.default_rng(5).uniform(0.0, 9.0, q.mean.shape)
    after = q.absorb(counts)
    likelihood = (counts * np.log(z)).reshape(4, -1).sum(axis=1)
    log_evidence = likelihood + q.log_density(z) - after.log_density(z)
    rise = q.log_normalizer(after.natural()) - q.log_normalizer(q.natural())
    np.testing.assert_allclose(log_evidence, rise, rtol=1e-10)


@each_normal
def test_absorb_about_an_origin_saves_digits(name):
    q, (x, r) = INSTANCES[name], weighted_rows()
    near = np.array([[1.0, 2.0], [0.0, 5.0], [3.0, 3.0]])

    def absorbed(q, x, origin):
        centred = x[:, None] - origin
        weighted = r[..., None] * centred
        second = second_moments(q, weighted, centred)
        return q.absorb(r.sum(axis=0), weighted.sum(axis=0), second, origin)

    about_zero = absorbed(q, x, np.zeros((3, 2))).natural()
    for key, actual in absorbed(q, x, near).natural().items():
        np.testing.assert_allclose(actual, about_zero[key], rtol=1e-11, atol=1e-10)
    # A shift by 2^30 moves the means and nothing else (of numbers that it can hold).
    far = 2.0**30
    q, x = q.rescaled(1.0, far).rescaled(1.0, -far), (x + far) - far
    moved = absorbed(q.rescaled(1.0, far), x + far, near + far)
    here = absorbed(q, x, near)
    assert moved.rescaled(1.0, -far).distance(here) < 1e-5
    assert moved.entropy() == pytest.approx(here.entropy(), rel=1e-12)


@each_normal
@pytest.mark.parametrize("full_rows", [True, False])
def test_absorb_of_rows_that_scale_their_precision(name, full_rows):
    # A row of weight r is N(mu, (u L)^-1): log|L| counts r, the square r u.
    q, (x, r) = INSTANCES[name], weighted_rows()
    u = np.random.default_rng(6).gamma(2.0, 0.5, r.shape)
    weight = r * u
    weighted = weight[..., None] * x[:, None]
    second = second_moments(q, weighted, np.stack([x] * 3, axis=1))
    count, rows = weight.sum(axis=0), r.sum(axis=0)
    if isinstance(q, DiagonalNormalGamma) and full_rows:
        count, rows = (np.stack([v] * 2, axis=1) for v in (count, rows))
    total = weighted.sum(axis=0)
    after = q.absorb(count, total, second, rows=rows)
    z, likelihood = draw(q, 4), np.zeros(4)
    for n, k in np.ndindex(r.shape):
        one = np.zeros((1, 3))
        one[0, k] = r[n, k]
        # (u L)^-1 about mu is L^-1 about mu, of a row moved towards it.
        moved = {**z}
        moved[q.names[0]] = np.sqrt(u[n, k]) * (z[q.names[0]] - x[n])
        likelihood += log_likelihood(q, moved, np.zeros((1, 2)), one)
    gain = after.log_density(z) - q.log_density(z)
    np.testing.assert_allclose(gain - gain[0], likelihood - likelihood[0], rtol=1e-9)
    same, default = (q.absorb(count, total, second, rows=n) for n in (count, None))
    assert same.distance(default) == 0.0


@each_joint_or_factorised
def test_components_in_another_order(name):
    q, order = INSTANCES[name], np.array([2, 0, 1])
    moved, z = q.reordered(order), draw(q, 5)
    tied = hasattr(q, "wishart") and q.tied
    means, precisions = q.names
    image = {means: z[means][:, order], precisions: z[precisions]}
    if not tied:
        image[precisions] = z[precisions][:, order]
    np.testing.assert_allclose(moved.log_density(image), q.log_density(z), rtol=1e-12)
    assert moved.entropy() == pytest.approx(q.entropy(), rel=1e-12)
    assert type(moved) is type(q) and moved.names == q.names
    for key, value in q.expect().items():
        shared = tied and key in ("value", "log_det")
        expected = value if shared else value[order]
        np.testing.assert_array_equal(moved.expect()[key], expected)
    assert moved.reordered(np.argsort(order)).distance(q) == 0.0


def moved_parameters(q, step):
    """(parameter, q with one number of it moved), for each; matrices symmetrically."""

    def each(value, symmetric=False):
        for index in np.ndindex(value.shape):
            out = value.copy()
            if not symmetric:
                out[index] *= 1.0 + step
            elif index[-2] <= index[-1]:
                diagonal = np.diagonal(value, axis1=-2, axis2=-1)[index[:-2]]
                rise = step * np.sqrt(diagonal[index[-2]] * diagonal[index[-1]])
                other = (*index[:-2], index[-1], index[-2])
                out[index] += rise
                out[other] = out[index]
            else:
                continue
            yield out

    kind, names = type(q), q.names
    if hasattr(q, "wishart"):
        rest = (q.wishart,)
        dof, matrix = q.wishart.dof, q.wishart.inverse_scale
        precisions = [("dof", (Wishart(v, matrix),)) for v in each(dof)]
        precisions += [("W", (Wishart(dof, v),)) for v in each(matrix, symmetric=True)]
    else:
        rest = shape, rate = q.noise.shape, q.noise.rate
        precisions = [("shape", (v, rate)) for v in each(shape)]
        precisions += [("rate", (shape, v)) for v in each(rate)]
    for parameter, moved in precisions:
        yield parameter, kind(q.location, q.mean_precision, *moved, names)
    for mean_precision in each(q.mean_precision):
        yield "mean_precision", kind(q.location, mean_precision, *rest, names)
    for index in np.ndindex(q.location.shape):
        location = q.location.copy()
        location[index] += step
        yield "location", kind(location, q.mean_precision, *rest, names)


@each_normal
def test_factorised_is_the_closest_that_factorises(name):
    joint = INSTANCES[name]
    q = joint.factorised()
    assert q.names == joint.names
    # The bound is minus the divergence, which is a mean over draws.
    bound = joint.expected_log_density(q) + q.entropy()
    z = draw(q)
    assert_estimates(joint.log_density(z) - q.log_density(z), bound)
    assert bound < 0.0
    h = 1e-3
    moves = zip(*(list(moved_parameters(q, step)) for step in (h, -h, 30 * h, -30 * h)))
    seen = set()
    for each in moves:
        parameter = each[0][0]
        up, down, *far = (
            joint.expected_log_density(other) + other.entropy() - bound
            for _, other in each
        )
        assert max(up, down, *far) < 0.0, parameter
        # Twice slope h, beside the curvature h^2: the top is within h / 200 of here.
        assert abs(up - down) < 0.01 * abs(up + down), parameter
        seen.add(parameter)
    assert len(seen) == 4
    for key in ("value", "linear"):  # the means of both are the same
        np.testing.assert_allclose(q.expect()[key], joint.expect()[key], rtol=1e-12)


def test_factorised_normal_wishart_is_that_of_scipy():
    for q in (INSTANCES[name] for name in FACTORISED[:2]):
        z = draw(q, 5)
        mu, L = (z[key] for key in q.names)
        dof, S = np.broadcast_to(q.wishart.dof, 3), q.wishart.inverse_scale
        S = np.broadcast_to(S, (3, 2, 2))
        expected = np.zeros(5)
        for k in range(3):
            covariance = S[k] / (dof[k] * PRECISIONS[k])
            expected += stats.multivariate_normal.logpdf(mu[:, k], MEANS[k], covariance)
            if k == 0 or not q.tied:
                law = stats.wishart(dof[k], np.linalg.inv(S[k]))
                expected += law.logpdf(np.moveaxis(L if q.tied else L[:, k], 0, -1))
        np.testing.assert_allclose(q.log_density(z), expected, rtol=1e-10)


def test_factorised_normal_wishart_of_one_dimension_is_a_normal_gamma():
    dof, S = np.array([12.0, 3.0, 40.0]), RATES[:, :1]
    wishart = NormalWishart(MEANS[:, :1], PRECISIONS, Wishart(dof, S[..., None]))
    gamma = DiagonalNormalGamma(MEANS[:, :1], PRECISIONS, 0.5 * dof, 0.5 * S)
    wishart, gamma = wishart.factorised(), gamma.factorised()
    assert wishart.entropy() == pytest.approx(gamma.entropy(), rel=1e-12)
    z = draw(gamma, 5)
    other = {**z, "precisions": z["precisions"][..., None]}
    np.testing.assert_allclose(wishart.log_density(other), gamma.log_density(z))
    np.testing.assert_allclose(wishart.variance("means"), gamma.variance("means"))
    for a, b in zip(wishart.predictive(), gamma.predictive()):
        np.testing.assert_allclose(np.ravel(a), np.ravel(b), rtol=1e-12)


@pytest.mark.parametrize("name", FACTORISED)
def test_predictive_of_a_factorised_one_adds_two_spreads(name):
    q = INSTANCES[name]
    df, loc, scale = q.predictive()
    np.testing.assert_array_equal(loc, q.location)
    spread = as_matrix(q.covariance(q.names[0]))
    if hasattr(q, "wishart"):
        np.testing.assert_allclose(df, np.broadcast_to(q.wishart.dof - 1.0, 3))
        shape = scale @ np.swapaxes(scale, -1, -2)
        given = q.wishart.inverse_scale / (q.wishart.dof - 1.0)[..., None, None]
        exact = NormalWishart(loc, 1e14, q.wishart, q.names)
        sharp = FactorisedNormalWishart(loc, 1e14, q.wishart, q.names)
    else:
        np.testing.assert_allclose(df, 2.0 * q.noise.shape)
        shape, spread = scale**2, np.diagonal(spread, axis1=-2, axis2=-1)
        given = q.noise.rate / q.noise.shape
        given = given[..., None] if q.spherical else given
        rest = (loc, 1e14, q.noise.shape, q.noise.rate, q.names)
        exact = DiagonalNormalGamma(*rest)
        sharp = FactorisedDiagonalNormalGamma(*rest)
    np.testing.assert_allclose(shape, given + spread, rtol=1e-12)
    for a, b in zip(exact.predictive(), sharp.predictive()):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@each_normal
def test_predictive_is_a_ratio_of_normalisers(name):
    q = INSTANCES[name]
    df, loc, scale = q.predictive()
    z = np.array([[0.0, 0.0], [1.0, -0.5], [-8.0, 3.0]])
    for k in range(3):
        x = loc[k] + z * (scale[k] if scale.ndim == 2 else np.diag(scale[k]))
        if isinstance(q, NormalWishart):
            law = stats.multivariate_t(loc[k], scale[k] @ scale[k].T, df[k])
            np.testing.assert_array_equal(np.triu(scale[k], 1), 0.0)
            actual = law.logpdf(x)
        elif q.spherical:
            actual = stats.multivariate_t(loc[k], np.diag(scale[k] ** 2), df[k])
            actual = actual.logpdf(x)
        else:
            actual = stats.t.logpdf(x, df[k], loc[k], scale[k]).sum(axis=1)
        for row, value in zip(x, actual):
            count, total = np.eye(3)[k], np.outer(np.eye(3)[k], row)
            if isinstance(q, NormalWishart):
                square = np.multiply.outer(count, np.outer(row, row))
                square = square.sum(axis=0) if q.tied else square
            else:
                square = total**2
            after = q.absorb(count, total, square)
            log_mass = q.log_normalizer(after.natural())
            log_mass -= q.log_normalizer(q.natural())
            assert value == pytest.approx(log_mass - np.log(2.0 * np.pi), rel=1e-10)


def test_wishart_is_that_of_scipy():
    q = INSTANCES["wishart array"]
    z = draw(q, 20)
    laws = [
        stats.wishart(dof, np.linalg.inv(S))
        for dof, S in zip(q.dof, INVERSE_SCALES, strict=True)
    ]
    expected = sum(
        law.logpdf(np.moveaxis(z[:, k], 0, -1)) for k, law in enumerate(laws)
    )
    np.testing.assert_allclose(q.log_density(z), expected, rtol=1e-10)
    np.testing.assert_allclose(q.entropies(), [p.entropy() for p in laws], rtol=1e-10)
    np.testing.assert_allclose(q.mean, [law.mean() for law in laws], rtol=1e-10)
    np.testing.assert_allclose(q.variance(), [law.var() for law in laws], rtol=1e-10)
    inverse = stats.invwishart(9.0, INVERSE_SCALES[1]).mean()
    np.testing.assert_allclose(q.mean_inverse[1], inverse, rtol=1e-10)
    np.testing.assert_array_equal(q.mean_inverse[0], np.inf)
    np.testing.assert_array_equal(Wishart(4.0, MATRIX).mean_inverse, np.inf)


@pytest.mark.parametrize(("dim", "dof"), [(1, 1e8), (5, 1e8), (200, 200.5), (200, 1e8)])
def test_wishart_of_many_dimensions_and_degrees(dim, dof):
    S = spd(dim, 3)
    q = Wishart(np.array([dof]), S * dof)
    law = stats.wishart(dof, np.linalg.inv(S * dof))
    z = draw(q, 2)
    expected = law.logpdf(np.moveaxis(z[:, 0], 0, -1))
    rounding = 1e-15 * dof * dim * np.log(dof)  # of the terms, which cancel
    np.testing.assert_allclose(q.log_density(z), expected, rtol=1e-10, atol=rounding)
    half = 0.5 * (dof - np.arange(dim))
    log_det = special.digamma(half).sum() + dim * np.log(2.0)
    log_det -= np.linalg.slogdet(S * dof)[1]
    np.testing.assert_allclose(q.mean_log_det, [log_det], rtol=1e-10)
    np.testing.assert_allclose(
        q.log_normalizers(),
        0.5 * dof * (dim * np.log(2.0) - np.linalg.slogdet(S * dof)[1])
        + special.multigammaln(0.5 * dof, dim),
        rtol=1e-10,
    )
    # By Bartlett's decomposition, from the entropies of its independent elements and
    # the volume of the map from them: scipy's own of a Wishart has lost its digits.
    log_square = special.digamma(half) + np.log(2.0)
    entropy = stats.gamma.entropy(half, scale=2.0) - np.log(2.0) - 0.5 * log_square
    entropy = entropy.sum() + 0.25 * dim * (dim - 1) * np.log(2.0 * np.pi * np.e)
    entropy += (np.log(2.0) + 0.5 * np.arange(dim, 0, -1) * log_square).sum()
    entropy -= 0.5 * (dim + 1) * np.linalg.slogdet(S * dof)[1]
    assert q.entropy() == pytest.approx(entropy, rel=1e-12)
    assert q.entropy() == pytest.approx(law.entropy(), rel=1e-6)
    np.testing.assert_allclose(q.scale[0] @ S * dof, np.eye(dim), atol=1e-9)


def test_wishart_of_one_dimension_is_a_gamma():
    q = INSTANCES["wishart of one dimension"]
    gamma = Gamma(0.5 * q.dof, 0.5 * q.inverse_scale[:, 0, 0])
    z = draw(q, 20)
    assert q.entropy() == pytest.approx(gamma.entropy(), rel=1e-12)
    np.testing.assert_allclose(q.log_density(z), gamma.log_density(z[:, :, 0, 0]))
    np.testing.assert_allclose(q.mean_log_det, gamma.mean_log, rtol=1e-12)
    wide = Wishart([3.0, 7.0], [[[2.0]], [[0.1]]])
    gamma = Gamma(0.5 * wide.dof, 0.5 * wide.inverse_scale[:, 0, 0])
    np.testing.assert_allclose(wide.mean_inverse[:, 0, 0], gamma.mean_inverse)


def test_wishart_does_not_mind_units_a_column():
    q = Wishart(9.5, MATRIX)
    scale = 2.0 ** np.array([-200.0, 0.0, 150.0])
    moved = q.rescaled(scale)
    np.testing.assert_array_equal(moved.mean * np.outer(scale, scale), q.mean)
    volume = 4.0 * np.log(scale).sum()  # of the 6 free elements of L
    assert moved.entropy() == pytest.approx(q.entropy() - volume, rel=1e-12)
    other = Wishart(9.9, 1.1 * MATRIX)
    assert moved.distance(other.rescaled(scale)) == q.distance(other)
    assert moved.distance(q.rescaled(scale)) == 0.0
    turned = Wishart(9.5, np.array([[1.0, 3.0], [1.0, 5.0]]))  # its symmetric part
    np.testing.assert_array_equal(turned.inverse_scale, [[1.0, 2.0], [2.0, 5.0]])
    with pytest.raises(ValueError, match="not positive definite"):
        Wishart(9.5, np.ones((2, 2)))


@pytest.mark.parametrize("dim", [1, 3, 10, 11, 37])
def test_inverse_of_a_triangle_does_not_mind_units(dim):
    factor = np.linalg.cholesky(np.stack([spd(dim, seed) for seed in range(3)]))
    inverse = inverse_lower(factor)
    np.testing.assert_allclose(
        inverse @ factor, np.eye(dim)[None] * np.ones((3, 1, 1)), atol=1e-9
    )
    np.testing.assert_array_equal(np.triu(inverse, 1), 0.0)
    rows, columns = 2.0 ** np.random.default_rng(0).integers(-200, 200, (2, dim))
    moved = inverse_lower(rows[:, None] * factor * columns)
    np.testing.assert_array_equal(columns[:, None] * moved * rows, inverse)


def test_wishart_distance_sees_every_direction():
    # Nearly collinear: the move is invisible in the elements of E[L].
    S = np.array([[1.0, 1.0 - 1e-6], [1.0 - 1e-6, 1.0]])
    along = np.array([1.0, 1.0]) / np.sqrt(2.0)
    q = Wishart(50.0, S)
    other = Wishart(50.0, S + np.outer(along, along) * (along @ S @ along))
    # Along it L is Gamma(25, s / 2): the mean halves, which is 2.5 sds.
    assert 1.0 < q.distance(other) < 5.0
    assert q.distance(Wishart(60.0, S)) == pytest.approx(10.0 / np.sqrt(100.0))
    # In coordinates y with W = I, the sds of the elements of L being sqrt(dof (1 + I)).
    q, other = Wishart(9.5, spd(3, 0)), Wishart(8.0, spd(3, 1))
    factor = np.linalg.cholesky(q.inverse_scale)
    move = factor.T @ other.mean @ factor - 9.5 * np.eye(3)
    expected = np.max(np.abs(move) / np.sqrt(9.5 * (1.0 + np.eye(3))))
    assert q.distance(other) == pytest.approx(expected, rel=1e-12)
    pair = Wishart(9.5, np.stack([spd(3, 0)] * 2))
    moved = Wishart([9.5, 8.0], np.stack([spd(3, 0), spd(3, 1)]))
    assert pair.distance(moved) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "moved"), [("normal-wishart", (1, 1)), ("normal-wishart tied", (2, 0))]
)
def test_distance_of_a_normal_wishart_is_in_standard_deviations(name, moved):
    q = INSTANCES[name]
    sd = np.sqrt(q.variance(q.names[0])[moved])
    # The spread is that of a Student-t whose degrees of freedom do not count.
    dof = np.broadcast_to(q.wishart.dof, 3)[moved[0]]
    sd *= np.sqrt((dof - 3.0) / dof)
    location = q.location.copy()
    location[moved] += 2.0 * sd
    other = NormalWishart(location, q.mean_precision, q.wishart, q.names)
    assert q.distance(other) == pytest.approx(2.0)
    wishart = Wishart(1.5 * q.wishart.dof, q.wishart.inverse_scale)
    other = NormalWishart(q.location, q.mean_precision, wishart, q.names)
    assert q.distance(other) == q.wishart.distance(wishart)


@pytest.mark.parametrize("form", ["diagonal", "spherical"])
def test_distance_of_a_normal_gamma_array_is_in_standard_deviations(form):
    q = INSTANCES[f"normal-gamma array {form}"]
    shape = np.broadcast_to(q.noise.shape.T, (2, 3)).T  # that of (k, d)
    sd = np.sqrt(q.variance(q.names[0]) * (shape - 1.0) / shape)[1, 0]
    location = q.location.copy()
    location[1, 0] += 2.0 * sd
    noise, rest = q.noise, (q.mean_precision, q.noise.shape)
    other = DiagonalNormalGamma(location, *rest, noise.rate, q.names)
    assert q.distance(other) == pytest.approx(2.0)
    other = DiagonalNormalGamma(q.location, *rest, 1.5 * noise.rate, q.names)
    assert q.distance(other) == noise.distance(Gamma(noise.shape, 1.5 * noise.rate))


@pytest.mark.parametrize("dof", [1.5, 2.9])
def test_normal_wishart_of_few_degrees_has_no_variance(dof):
    q = NormalWishart(MEANS, 1.0, Wishart(np.full(3, dof), INVERSE_SCALES))
    assert np.all(np.isinf(q.variance("means")))
    assert np.all(np.isinf(q.covariance("means")))
    other = NormalWishart(MEANS + 0.1, 1.0, q.wishart)
    assert 0.0 < q.distance(other) < np.inf
    df, _, _ = q.predictive()
    np.testing.assert_allclose(df, dof - 1.0)


def test_normal_wishart_is_that_of_scipy():
    q, tied = INSTANCES["normal-wishart"], INSTANCES["normal-wishart tied"]
    for law in (q, tied):
        means, precisions = (draw(law, 5)[name] for name in law.names)
        expected = np.zeros(5)
        for i, k in np.ndindex(5, 3):
            L = precisions[i] if law.tied else precisions[i, k]
            covariance = np.linalg.inv(law.mean_precision[k] * L)
            expected[i] += stats.multivariate_normal.logpdf(
                means[i, k], MEANS[k], covariance
            )
            if k == 0 or not law.tied:
                S = INVERSE_SCALES[k]
                dof = np.broadcast_to(law.wishart.dof, 3)[k]
                expected[i] += stats.wishart.logpdf(L, dof, np.linalg.inv(S))
        actual = law.log_density(dict(zip(law.names, (means, precisions))))
        np.testing.assert_allclose(actual, expected, rtol=1e-10)


def test_tied_form_of_one_component_is_the_untied_one():
    tied = NormalWishart(MEAN[None], 0.2, Wishart(14.0, MATRIX))
    untied = INSTANCES["normal-wishart of one component"]
    assert tied.tied and not untied.tied
    assert tied.entropy() == pytest.approx(untied.entropy(), rel=1e-14)
    np.testing.assert_allclose(tied.covariance("means"), untied.covariance("means"))
    np.testing.assert_allclose(
        tied.expected_log_density(tied), untied.expected_log_density(untied)
    )
    z = tied.sample(5, np.random.default_rng(0))
    other = {"means": z["means"], "precisions": z["precisions"][:, None]}
    np.testing.assert_allclose(tied.log_density(z), untied.log_density(other))
    for a, b in zip(tied.predictive(), untied.predictive()):
        np.testing.assert_allclose(a, b, rtol=1e-14)
    with pytest.raises(ValueError, match=r"leading shape \(2,\).*\(3,\)"):
        NormalWishart(MEANS, 1.0, Wishart([9.0, 9.0], np.eye(2)))
    for law in (tied, INSTANCES["normal-gamma array spherical"]):
        for question in (law.variance, law.covariance):
            with pytest.raises(KeyError, match="no variable 'weight'"):
                question("weight")


def test_normal_wishart_of_one_dimension_is_a_normal_gamma():
    dof, S = np.array([12.0, 3.0, 40.0]), RATES[:, :1]
    wishart = NormalWishart(MEANS[:, :1], PRECISIONS, Wishart(dof, S[..., None]))
    gamma = DiagonalNormalGamma(MEANS[:, :1], PRECISIONS, 0.5 * dof, 0.5 * S)
    assert wishart.entropy() == pytest.approx(gamma.entropy(), rel=1e-12)
    z = draw(gamma, 5)
    other = {**z, "precisions": z["precisions"][..., None]}
    np.testing.assert_allclose(wishart.log_density(other), gamma.log_density(z))
    np.testing.assert_allclose(wishart.variance("means"), gamma.variance("means"))
    for a, b in zip(wishart.predictive(), gamma.predictive()):
        np.testing.assert_allclose(np.ravel(a), np.ravel(b), rtol=1e-12)


def test_normal_gamma_arrays_stand_side_by_side():
    diagonal = INSTANCES["normal-gamma array diagonal"]
    spherical = INSTANCES["normal-gamma array spherical"]
    assert spherical.spherical and not diagonal.spherical
    parts = {
        (k, d): NormalGamma(
            {"x": (MEANS[k, [d]], DiagonalPrecision(PRECISIONS[[k]]))},
            Gamma(diagonal.noise.shape[k, d], RATES[k, d]),
        )
        for k, d in np.ndindex(3, 2)
    }
    z = draw(diagonal, 6)
    total = sum(
        part.log_density(
            {"x": z["means"][:, k, [d]], "noise_precision": z["precisions"][:, k, d]}
        )
        for (k, d), part in parts.items()
    )
    np.testing.assert_allclose(diagonal.log_density(z), total, rtol=1e-12)
    entropy = sum(part.entropy() for part in parts.values())
    assert diagonal.entropy() == pytest.approx(entropy, rel=1e-12)
    parts = [
        NormalGamma(
            {"x": (MEANS[k], DiagonalPrecision(np.full(2, PRECISIONS[k])))},
            Gamma(7.0, RATES[k, 0]),
        )
        for k in range(3)
    ]
    z = draw(spherical, 6)
    total = sum(
        part.log_density({"x": z["mu"][:, k], "noise_precision": z["precision"][:, k]})
        for k, part in enumerate(parts)
    )
    np.testing.assert_allclose(spherical.log_density(z), total, rtol=1e-12)
    entropy = sum(part.entropy() for part in parts)
    assert spherical.entropy() == pytest.approx(entropy, rel=1e-12)


def test_normal_gamma_array_absorbs_rows_with_missing_entries():
    rng = np.random.default_rng(2)
    x, r = rng.normal(size=(20, 2)), rng.dirichlet(np.ones(3), 20)
    seen = rng.random((20, 2)) < 0.7
    filled = np.where(seen, x, 0.0)
    for name in ("normal-gamma array diagonal", "normal-gamma array spherical"):
        q = INSTANCES[name]
        after = q.absorb(r.T @ seen, r.T @ filled, r.T @ filled**2)
        z = draw(q, 4)
        mu, tau = z[q.names[0]], z[q.names[1]]
        sd = 1.0 / np.sqrt(tau[..., None] if q.spherical else tau)
        each = stats.norm.logpdf(x[:, None], mu[:, None], sd[:, None])
        likelihood = np.einsum("snkd,nk,nd->s", each, r, seen)
        gain = after.log_density(z) - q.log_density(z)
        np.testing.assert_allclose(gain - gain[0], likelihood - likelihood[0])


@each_joint_or_factorised
def test_parameters_in_other_units_are_those_of_rows_in_other_units(name):
    q = INSTANCES[name]
    wishart = hasattr(q, "wishart")
    tau_only = not wishart and q.spherical
    scale = np.array([-2.0, -2.0]) if tau_only else np.array([3.0, -0.1])
    scale_argument = scale[0] if tau_only else scale
    shift = np.array([5.0, -7.0])
    moved = q.rescaled(scale_argument, shift)
    z, means, precisions = draw(q, 5), *q.names
    if wishart:
        inverse = 1.0 / np.outer(scale, scale)
        n_free = 2 * 3 / 2
        log_volume = -n_free * np.log(np.abs(scale)).sum() * (1 if q.tied else 3)
    else:
        inverse = 1.0 / (scale_argument**2 * np.ones(() if tau_only else 2))
        log_volume = 3 * np.log(inverse).sum()
    log_volume += 3 * np.log(np.abs(scale)).sum()
    image = {means: shift + scale * z[means], precisions: z[precisions] * inverse}
    expected = q.log_density(z) - log_volume
    np.testing.assert_allclose(moved.log_density(image), expected, rtol=1e-10)
    assert moved.entropy() == pytest.approx(q.entropy() + log_volume, rel=1e-12)
    assert moved.names == q.names


ALPHA = np.array([0.4, 3.0, 1.0, 12.0])


def dirichlet_sticks(alpha):
    """The sticks of a Dirichlet."""
    alpha = np.asarray(alpha)
    return StickBreaking(alpha[:-1], alpha[::-1].cumsum()[::-1][1:])


def test_sticks_of_a_dirichlet_are_a_dirichlet():
    q, dirichlet = dirichlet_sticks(ALPHA), Dirichlet(ALPHA)
    z = draw(q, 20)
    np.testing.assert_allclose(z.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(q.log_density(z), dirichlet.log_density(z), rtol=1e-10)
    assert q.entropy() == pytest.approx(dirichlet.entropy(), rel=1e-12)
    for ours, expected in [
        (q.mean, dirichlet.mean),
        (q.mean_log, dirichlet.mean_log),
        (q.expected_log_weights, dirichlet.mean_log),
        (q.variance(), dirichlet.variance()),
        (q.covariance(), dirichlet.covariance()),
    ]:
        np.testing.assert_allclose(ours, expected, rtol=1e-10)
    other = Dirichlet([2.0, 0.7, 5.0, 1.0])
    np.testing.assert_allclose(
        q.expected_log_density(dirichlet_sticks(other.concentration)),
        dirichlet.expected_log_density(other),
        rtol=1e-10,
    )
    counts = np.array([3.0, 0.0, 4.5, 1.5])
    after = dirichlet_sticks(ALPHA + counts)
    np.testing.assert_allclose(q.absorb(counts).a, after.a)
    np.testing.assert_allclose(q.absorb(counts).b, after.b)


def test_stick_breaking_absorbs_counts():
    after = StickBreaking([1.0, 1.0], 0.5).absorb([3.0, 0.0, 4.5])
    np.testing.assert_array_equal(after.a, [4.0, 1.0])
    np.testing.assert_array_equal(after.b, [5.0, 5.0])


def test_stick_breaking_is_betas_of_scipy():
    q = INSTANCES["stick-breaking"]
    z, law = draw(q, 20), stats.beta(q.a, q.b)
    rest = 1.0 - np.column_stack([np.zeros(20), z[:, :2].cumsum(axis=1)])
    expected = (law.logpdf(z[:, :3] / rest) - np.log(rest)).sum(axis=1)
    np.testing.assert_allclose(q.log_density(z), expected, rtol=1e-10)
    volume = np.array([2.0, 1.0, 0.0]) @ q.expect()["log_rest"]
    assert q.entropy() == pytest.approx(law.entropy().sum() + volume, rel=1e-10)
    mean, rest = law.mean(), 1.0 - law.mean()
    expected = [mean[0], rest[0] * mean[1], rest[0] * rest[1] * mean[2], rest.prod()]
    np.testing.assert_allclose(q.mean, expected, rtol=1e-12)
    square, rest = mean**2 + law.var(), rest**2 + law.var()
    moment = [
        square[0],
        rest[0] * square[1],
        rest[0] * rest[1] * square[2],
        rest.prod(),
    ]
    np.testing.assert_allclose(q.variance(), moment - q.mean**2, rtol=1e-10)
    np.testing.assert_allclose(q.covariance().sum(axis=1), 0.0, atol=1e-15)


@pytest.mark.parametrize("size", [1e-3, 1e3, 1e8])
def test_sticks_keep_their_digits(size):
    alpha = size * np.array([1.0, 2.0, 3.0, 0.5])
    q, dirichlet = dirichlet_sticks(alpha), Dirichlet(alpha)
    np.testing.assert_allclose(q.variance(), dirichlet.variance(), rtol=1e-10)
    np.testing.assert_allclose(q.covariance(), dirichlet.covariance(), rtol=1e-10)
    entropy = (
        stats.beta.entropy(q.a, q.b) + [2.0, 1.0, 0.0] * q.expect()["log_rest"]
    ).sum()
    if size == 1e8:
        entropy = -29.37620700109331  # in 60 digits, where scipy keeps only ten
    assert q.entropy() == pytest.approx(entropy, rel=1e-12)
    # A hundred sticks that leave next to nothing: the squares underflow.
    long = StickBreaking(np.ones(100), np.full(100, 1e-4))
    assert np.all(long.variance() >= 0.0) and np.all(np.isfinite(long.covariance()))
    assert np.isfinite(long.entropy()) and long.mean.sum() == pytest.approx(1.0)


def test_distance_of_sticks_is_in_standard_deviations_of_log_odds():
    q = INSTANCES["stick-breaking"]
    other = StickBreaking([1.0, 4.0, 30.0], [0.5, 3.0, 8.0])
    v = np.random.default_rng(0).beta(4.0, 2.0, N_DRAWS)
    move = special.digamma(3.0) - special.digamma(2.0)
    assert q.distance(other) == pytest.approx(move / special.logit(v).std(), rel=0.02)


def test_one_weight_has_no_stick():
    q = StickBreaking(np.ones(0), np.ones(0))
    assert q.n_components == 1 and q.entropy() == 0.0
    np.testing.assert_array_equal(draw(q, 3), np.ones((3, 1)))
    np.testing.assert_array_equal(q.log_density(draw(q, 3)), np.zeros(3))
    for value, expected in [(q.mean, 1.0), (q.mean_log, 0.0), (q.variance(), 0.0)]:
        np.testing.assert_array_equal(value, [expected])
    np.testing.assert_array_equal(q.covariance(), [[0.0]])
    after = q.absorb(np.array([12.0]))
    assert after.a.shape == after.b.shape == (0,)
    assert q.expected_log_density(after) == 0.0 and q.distance(after) == 0.0
    assert q.log_normalizer(q.natural()) == 0.0
    assert {v.shape for v in q.statistics(draw(q, 3)).values()} == {(3, 0)}


@pytest.mark.parametrize("name", ["wishart array", *NORMAL, *FACTORISED, *STICKS])
def test_families_of_a_mixture_survive_a_pickle(name):
    q = INSTANCES[name]
    before = len(pickle.dumps(q))
    q.expect(), q.entropy(), q.distance(q)
    assert len(pickle.dumps(q)) == before  # what is rebuilt when asked for stays
    payload = skops.io.dumps(q)
    trusted = skops.io.get_untrusted_types(data=payload)
    for again in (
        pickle.loads(pickle.dumps(q)),
        skops.io.loads(payload, trusted=trusted),
    ):
        assert q.distance(again) == 0.0 and again.entropy() == q.entropy()
        np.testing.assert_array_equal(
            q.log_density(draw(q, 3)), q.log_density(draw(again, 3))
        )


# -- known values, products and units --------------------------------------------------


def test_point_mass_is_the_limit_of_a_sharp_gamma():
    value = np.array([0.5, 2.0])
    point, sharp = PointMass(value), Gamma(1e12, 1e12 / value)
    for key, expected in point.expect().items():
        np.testing.assert_allclose(sharp.expect()[key], expected, atol=1e-11)
    np.testing.assert_allclose(point.mean_inverse, sharp.mean_inverse, rtol=1e-11)
    np.testing.assert_allclose(
        point.log_absorbed(2.0, 3.0), sharp.log_absorbed(2.0, 3.0), atol=1e-2
    )
    assert point.absorb(2.0, 3.0) is point
    assert point.entropy() == 0.0 and np.all(point.entropies() == 0.0)
    assert point.expected_log_density(Gamma(2.0, 1.0)) == 0.0
    for x in (0.4, 0.6, 3.0):
        np.testing.assert_array_equal(point.sf(x), sharp.sf(x).round(12))


def test_product_adds_its_independent_factors():
    q = mixed_product()
    assert q.names == ("coef", "level", "noise_precision", "scale", "shares", "known")
    assert q.fixed == {"known"}
    assert Product({"joint": two_blocks(PointMass(4.0))}).fixed == {"noise_precision"}
    z = draw(q, 10)
    parts = [q["joint"].log_density(z), q["scale"].log_density(z["scale"])]
    parts.append(q["shares"].log_density(z["shares"]))
    np.testing.assert_allclose(q.log_density(z), sum(parts), rtol=1e-12)
    entropies = [q[key].entropy() for key in ("joint", "scale", "shares")]
    assert q.entropy() == pytest.approx(sum(entropies))
    assert q.expect().keys() == {"joint", "scale", "shares", "known"}
    with pytest.raises(KeyError, match=r"no variable 'weight'.*coef"):
        q.covariance("weight")


@pytest.fixture
def metres():
    """x ~ N(1, 0.25), tau ~ Gamma(4, 2) and a known value, in other units."""
    inner = Product(
        {
            "x": Gaussian(np.ones(1), DiagonalPrecision([4.0])),
            "tau": Gamma(4.0, 2.0),
            "known": PointMass(2.0),
        }
    )
    scale = {"x": -1e3, "tau": 1e-6, "known": 50.0}
    return Rescaled(inner, scale, {"x": 7.0})


def test_change_of_units_is_that_of_scipy(metres):
    z = draw(metres, 20)
    expected = stats.norm.logpdf(z["x"][:, 0], 7.0 - 1e3, 500.0)
    expected += stats.gamma.logpdf(z["tau"], 4.0, scale=0.5e-6)
    np.testing.assert_allclose(metres.log_density(z), expected, rtol=1e-12)
    assert np.all(z["known"] == 100.0)
    # A point has no volume that units could change.
    assert metres.log_volume == pytest.approx(np.log(1e3) - np.log(1e6))
    assert metres.entropy() - metres.inner.entropy() == pytest.approx(metres.log_volume)
    np.testing.assert_allclose(metres.covariance("x"), [[0.25e6]], rtol=1e-12)
    assert metres.covariance("tau") == pytest.approx(1e-12)
    assert metres.covariance("known") == 0.0


def test_density_in_other_units_integrates_to_one(metres):
    x, dx = np.linspace(-993.0 - 6e3, -993.0 + 6e3, 401, retstep=True)
    log_tau, du = np.linspace(-24.0, -10.0, 401, retstep=True)
    grid_x, grid_u = (g.ravel() for g in np.meshgrid(x, log_tau))
    z = {"x": grid_x[:, None], "tau": np.exp(grid_u), "known": np.full(grid_x.shape, 2)}
    mass = np.exp(metres.log_density(z) + grid_u).sum() * dx * du
    assert mass == pytest.approx(1.0, abs=1e-9)


def test_change_of_units_of_a_covariance_operator():
    inner = Product({"x": INSTANCES["gaussian dual"], "y": INSTANCES["gaussian full"]})
    scale = np.array([2.0, -1.0, 0.5, 10.0])
    q = Rescaled(inner, {"x": scale}, {})
    P = ROWS.values.T @ ROWS.values + np.diag(RIDGE)
    expected = scale[:, None] * np.linalg.inv(P) * scale
    np.testing.assert_allclose(q.covariance("x") @ np.eye(4), expected, rtol=1e-10)
    np.testing.assert_allclose(q.covariance("y"), np.linalg.inv(MATRIX), rtol=1e-10)


# -- marginal laws of predictions ------------------------------------------------------


def expectation(law, row, function, upper=np.inf):
    """``E[function(y); y < upper]`` for one row, by quadrature of its density."""
    one = LocationScaleMixture(law.weights, law.df, law.loc[[row]], law.scale[[row]])

    def integrand(y):
        density = np.exp(one.log_density(np.ravel(y))).reshape(y.shape)
        return function(y) * density

    steps = np.array([-30.0, -8.0, -3.0, -1.0, 0.0, 1.0, 3.0, 8.0, 30.0])
    edges = np.unique(one.loc[0] + np.multiply.outer(steps, one.scale[0]))
    edges = np.concatenate([[-np.inf], edges[edges < upper], [upper]])
    return tanhsinh(integrand, edges[:-1], edges[1:], rtol=1e-11).integral.sum()


@each_marginal
def test_moments_of_a_mixture_are_integrals_of_its_density(name):
    law = MARGINALS[name]
    for row, (mean, variance) in enumerate(zip(law.mean, law.variance())):
        assert expectation(law, row, np.ones_like) == pytest.approx(1.0, abs=1e-10)
        shift = expectation(law, row, lambda y, m=mean: y - m)
        assert shift == pytest.approx(0.0, abs=1e-9 * np.sqrt(variance))
        square = expectation(law, row, lambda y, m=mean: (y - m) ** 2)
        assert square == pytest.approx(variance, rel=1e-8)


@each_marginal
@pytest.mark.parametrize("z", [-6.0, -0.5, 0.0, 1.0, 4.0])
def test_cdf_of_a_mixture_is_the_integral_of_its_density(name, z):
    law = MARGINALS[name]
    y = law.mean + z * law.scale.mean(axis=1)
    for row, value in enumerate(law.cdf(y)):
        below = expectation(law, row, np.ones_like, upper=y[row])
        assert value == pytest.approx(below, rel=1e-8)


@each_marginal
def test_quantiles_invert_the_cdf(name):
    law = MARGINALS[name]
    probabilities = np.array([1e-6, 0.025, 0.1, 0.5, 0.9, 0.975, 1 - 1e-6])
    quantiles = law.quantile(probabilities)
    assert quantiles.shape == (law.loc.shape[0], 7)
    assert np.all(np.diff(quantiles, axis=1) > 0.0)
    for k, probability in enumerate(probabilities):
        np.testing.assert_allclose(law.cdf(quantiles[:, k]), probability, atol=1e-10)
    np.testing.assert_array_equal(law.quantile(0.0), -np.inf)
    np.testing.assert_array_equal(law.quantile(1.0), np.inf)


@each_marginal
def test_quantiles_keep_their_digits_in_the_tails_and_far_from_zero(name):
    law = MARGINALS[name]
    low = law.quantile(1e-14)[:, 0]
    np.testing.assert_allclose(law.cdf(low), 1e-14, rtol=1e-9)
    # The upper tail mirrors the lower one, though 1 - 1e-14 is all that a cdf can say.
    mirrored = LocationScaleMixture(law.weights, law.df, -law.loc, law.scale)
    high = mirrored.quantile(1.0 - 2.0**-46)
    np.testing.assert_allclose(high, -law.quantile(2.0**-46), rtol=1e-12)
    for probability in (1e-3, 0.5, 0.9):
        far = law.rescaled(1.0, 1e12).quantile(probability)
        expected = 1e12 + law.quantile(probability)
        np.testing.assert_allclose(far, expected, rtol=4e-16)


@each_marginal
def test_rescaled_mixture_is_the_law_of_the_rescaled_variable(name):
    law = MARGINALS[name]
    moved = law.rescaled(1e-3, 50.0)
    y = law.mean + law.scale.mean(axis=1)
    np.testing.assert_allclose(moved.mean, 50.0 + 1e-3 * law.mean, rtol=1e-12)
    np.testing.assert_allclose(moved.variance(), 1e-6 * law.variance(), rtol=1e-9)
    np.testing.assert_allclose(moved.cdf(50.0 + 1e-3 * y), law.cdf(y), rtol=1e-9)
    np.testing.assert_allclose(
        moved.log_density(50.0 + 1e-3 * y), law.log_density(y) + np.log(1e3), rtol=1e-9
    )
    np.testing.assert_allclose(
        moved.quantile([0.1, 0.7]), 50.0 + 1e-3 * law.quantile([0.1, 0.7]), rtol=1e-12
    )


def test_one_component_is_scipys_own():
    t = LocationScaleMixture(
        np.ones(1), np.array([4.0]), np.ones((1, 1)), np.full((1, 1), 2)
    )
    law = stats.t(4.0, 1.0, 2.0)
    assert t.variance()[0] == pytest.approx(law.var())
    assert t.cdf([2.5])[0] == pytest.approx(law.cdf(2.5))
    assert t.log_density([2.5])[0] == pytest.approx(law.logpdf(2.5))
    assert t.quantile(0.3)[0, 0] == pytest.approx(law.ppf(0.3))


@pytest.mark.parametrize("df", [0.5, 2.0])
def test_few_degrees_of_freedom_have_no_variance(df):
    law = LocationScaleMixture(
        np.array([0.9, 0.1]), np.array([10.0, df]), np.zeros((2, 2)), np.ones((2, 2))
    )
    np.testing.assert_array_equal(law.variance(), np.inf)
    assert law.cdf(law.quantile(0.9)[:, 0]) == pytest.approx([0.9, 0.9], abs=1e-10)


# -- densities on a grid ---------------------------------------------------------------


def bimodal(u):
    return np.logaddexp(
        np.log(0.3) + stats.norm.logpdf(u, -4.0, 0.3),
        np.log(0.7) + stats.norm.logpdf(u, 5.0, 0.8),
    )


def bimodal_cdf(u):
    return 0.3 * stats.norm.cdf(u, -4.0, 0.3) + 0.7 * stats.norm.cdf(u, 5.0, 0.8)


DENSITIES = {
    "narrow gaussian": (stats.norm(10.0, 1e-3), (9.0, 11.0, 1e-3)),
    "wide gaussian": (stats.norm(-3.0, 40.0), (-600.0, 600.0, 0.1)),
    "skewed log-gamma": (stats.loggamma(0.4), (-120.0, 5.0, 0.25)),
    "log-gamma of large shape": (stats.loggamma(500.0), (0.0, 10.0, 0.02)),
}


@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.parametrize("log_constant", [0.0, 345.6])
def test_integrals_of_known_densities(name, log_constant):
    law, support = DENSITIES[name]
    density = integrate(lambda u: law.logpdf(u) + log_constant, *support)
    assert density.log_mass == pytest.approx(log_constant, abs=1e-12)
    assert density.weights.sum() == pytest.approx(1.0, abs=1e-14)
    assert density.entropy() == pytest.approx(law.entropy(), abs=1e-10)
    mean = density.weights @ density.nodes
    assert mean == pytest.approx(law.mean(), rel=1e-11)
    variance = density.weights @ (density.nodes - mean) ** 2
    assert variance == pytest.approx(law.var(), rel=1e-10)


def test_integral_of_two_modes_with_nothing_between():
    density = integrate(bimodal, -50.0, 50.0, 0.25)
    assert density.log_mass == pytest.approx(0.0, abs=1e-12)
    left = density.weights[density.nodes < -1.5].sum()
    assert left == pytest.approx(0.3, abs=1e-12)


@pytest.mark.parametrize("name", [*DENSITIES, "bimodal"])
def test_draws_from_a_grid_follow_the_density(name):
    if name == "bimodal":
        density, cdf = integrate(bimodal, -50.0, 50.0, 0.25), bimodal_cdf
    else:
        law, support = DENSITIES[name]
        density, cdf = integrate(law.logpdf, *support), law.cdf
    draws = density.sample(20_000, np.random.default_rng(0))
    assert stats.kstest(draws, cdf).pvalue > 0.01


def test_a_grid_normalises_what_it_is_given():
    nodes = np.linspace(-8.0, 8.0, 201)
    density = GridDensity(nodes, -0.5 * nodes**2)
    assert density.log_mass == pytest.approx(0.5 * np.log(2 * np.pi), abs=1e-12)
    np.testing.assert_allclose(
        density.log_density, stats.norm.logpdf(nodes), atol=1e-12
    )


@pytest.mark.parametrize("shape", [0.3, 1.0, 2.5, 30.0, 1e3, 1e6])
@pytest.mark.parametrize("rate", [1e-6, 1.0, 1e8])
def test_nodes_of_a_gamma_give_its_expectations(shape, rate):
    q = Gamma(shape, rate)
    tau, weights = gamma_nodes(q)
    assert weights @ tau == pytest.approx(q.mean, rel=1e-11)
    assert weights @ tau**2 == pytest.approx(q.variance() + q.mean**2, rel=1e-11)
    assert weights @ np.log(tau) == pytest.approx(q.mean_log, rel=1e-11, abs=1e-11)
    root = np.exp(special.gammaln(shape + 0.5) - special.gammaln(shape))
    assert weights @ np.sqrt(tau * rate) == pytest.approx(root, rel=1e-8)
    laplace = -shape * np.log1p(2.0 / shape)
    at = weights @ np.exp(-2.0 * rate * tau / shape)
    assert np.log(at) == pytest.approx(laplace, rel=1e-11)
    if shape > 1.0:
        assert weights @ (1.0 / tau) == pytest.approx(q.mean_inverse, rel=1e-10)


# -- a Dirichlet that has absorbed random counts ---------------------------------------

COUNT_PRIOR = np.array([0.4, 1.0, 0.7, 2.0])


def dirichlet_draws(counts, rng):
    gammas = rng.standard_gamma(COUNT_PRIOR + counts)
    return gammas / gammas.sum(axis=1, keepdims=True)


def test_independent_counts_spread_a_dirichlet():
    rng = np.random.default_rng(0)
    trials, p = np.array([60, 12, 200, 3]), np.array([0.5, 0.9, 0.1, 0.2])
    draws = dirichlet_draws(rng.binomial(trials, p, size=(200_000, 4)), rng)
    q = DirichletOfCounts(COUNT_PRIOR, trials * p, trials * p * (1.0 - p))
    np.testing.assert_allclose(q.mean, draws.mean(axis=0), atol=3e-4)
    np.testing.assert_allclose(q.variance(), draws.var(axis=0), rtol=0.02)
    own = q.sample(200_000, rng)
    np.testing.assert_allclose(own.mean(axis=0), draws.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(own.var(axis=0), draws.var(axis=0), rtol=0.03)
    inside = (q.interval(0.9)[:, 0] < draws) & (draws < q.interval(0.9)[:, 1])
    np.testing.assert_allclose(inside.mean(axis=0), 0.9, atol=0.02)
    assert q.matched().variance().sum() == pytest.approx(q.variance().sum())
    np.testing.assert_allclose(q.matched().mean, q.mean)
    # not to be had from the Dirichlet of the expected counts
    assert np.all(Dirichlet(q.concentration).variance() < 0.9 * q.variance())


def test_counts_of_a_known_total_have_exact_moments():
    rng = np.random.default_rng(0)
    p = np.array([[0.7, 0.1, 0.1, 0.1], [0.2, 0.2, 0.3, 0.3], [0.0, 0.5, 0.25, 0.25]])
    trials = [9, 20, 6]
    counts = sum(rng.multinomial(n, row, size=200_000) for n, row in zip(trials, p))
    variance = sum(n * row * (1.0 - row) for n, row in zip(trials, p))
    q = DirichletOfCounts(COUNT_PRIOR, trials @ p, variance, known_total=True)
    draws = dirichlet_draws(counts, rng)
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(q.mean - draws.mean(axis=0)) < 4 * error)
    np.testing.assert_allclose(q.variance(), draws.var(axis=0), rtol=0.015)


def test_known_counts_leave_a_dirichlet():
    q = DirichletOfCounts(COUNT_PRIOR, [3.0, 0.0, 1.0, 9.0], np.zeros(4))
    p = Dirichlet(q.concentration)
    np.testing.assert_allclose(q.mean, p.mean)
    np.testing.assert_allclose(q.variance(), p.variance())
    np.testing.assert_allclose(q.matched().concentration, p.concentration)
    assert q.entropy() == pytest.approx(p.entropy())


@pytest.mark.parametrize("name", ["beta", "dirichlets", "gamma array"])
def test_coordinates_determine_the_distribution(name):
    q = INSTANCES[name]
    again = q.at(q.coordinates())
    z = draw(q, 5)
    np.testing.assert_allclose(again.log_density(z), q.log_density(z), rtol=1e-12)
    moved = q.at(q.coordinates() + 0.1)
    assert q.distance(moved) > 0.0


def test_dirichlets_are_their_parts():
    q = INSTANCES["dirichlets"]
    parts = Dirichlet(q.concentration[:, :3]), Dirichlet(q.concentration[:, 3:])
    prior = Dirichlets(np.ones((2, 5)), [3, 2])
    priors = Dirichlet(np.ones((2, 3))), Dirichlet(np.ones((2, 2)))
    assert q.entropy() == pytest.approx(sum(part.entropy() for part in parts))
    assert prior.expected_log_density(q) == pytest.approx(
        sum(p.expected_log_density(part) for p, part in zip(priors, parts))
    )
    added = q.absorb(np.arange(10.0).reshape(2, 5))
    np.testing.assert_array_equal(
        added.concentration, q.concentration + np.arange(10.0).reshape(2, 5)
    )
    intervals = [part.interval(0.8) for part in parts]
    np.testing.assert_array_equal(q.interval(0.8), np.concatenate(intervals, axis=-2))
    assert np.all(q.covariance()[:, :3, 3:] == 0.0)


def test_beta_is_that_of_scipy():
    q = INSTANCES["beta"]
    law = stats.beta(q.a, q.b)
    np.testing.assert_allclose(q.mean, law.mean())
    np.testing.assert_allclose(q.variance(), law.var())
    assert q.entropy() == pytest.approx(law.entropy().sum())
    np.testing.assert_allclose(q.interval(0.9)[..., 0], law.ppf(0.05))
    added = q.absorb(log=1.0, log_rest=np.full((2, 2), 2.0))
    np.testing.assert_allclose(added.mean, (q.a + 1.0) / (q.a + q.b + 3.0))
