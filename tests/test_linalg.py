"""Structured matrices against the dense matrices that they stand for."""

import pickle

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import LinearOperator

import twins
from skvi.kernels import coordinate
from skvi.linalg import (
    ArrowBlocks,
    ArrowGram,
    ArrowLayout,
    ArrowPrecision,
    DenseCovariance,
    DenseGram,
    DensePrecision,
    DenseRows,
    DiagonalPrecision,
    DualPrecision,
    FactorGram,
    GroupedRows,
    ScaledInverse,
    SparseRows,
    Spectrum,
    as_matrix,
    scaled_covariance,
    symmetric_operator,
)
from skvi.linalg.rows import BLOCK_ELEMENTS, block_slices

N, P = 5, 9


def generator(seed=0):
    return np.random.default_rng(seed)


def close(actual, expected, tolerance=1e-10):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


# -- structured precisions -------------------------------------------------------------

Z = generator().standard_normal((N, P))
RIDGE = generator(1).uniform(0.5, 3.0, P)
GRAM = Z.T @ Z
PRECISIONS = {
    "diagonal": (DiagonalPrecision(RIDGE), np.diag(RIDGE)),
    "dense": (DensePrecision(GRAM + np.diag(RIDGE)), GRAM + np.diag(RIDGE)),
    "dual": (DualPrecision(DenseRows(Z), RIDGE), GRAM + np.diag(RIDGE)),
}
each_precision = pytest.mark.parametrize("name", PRECISIONS)


@each_precision
def test_precision_is_its_dense_matrix(name):
    precision, dense = PRECISIONS[name]
    inverse = np.linalg.inv(dense)
    vector, rows = generator(2).standard_normal(P), generator(3).standard_normal((4, P))
    assert precision.dim == P
    close(precision.solve(vector), inverse @ vector)
    close(precision.solve(rows.T), inverse @ rows.T)
    close(precision.logdet(), np.linalg.slogdet(dense)[1])
    close(precision.variances(), np.diag(inverse))
    close(precision.quadratic(rows), np.diag(rows @ dense @ rows.T))
    close(precision.leverage(rows), np.diag(rows @ inverse @ rows.T))
    close(precision.inner(rows), rows @ inverse @ rows.T)
    close(as_matrix(precision.covariance()), inverse)


@each_precision
def test_trace_of_a_solve(name):
    precision, dense = PRECISIONS[name]
    expected = np.trace(GRAM @ np.linalg.inv(dense))
    gram = FactorGram(DenseRows(Z)) if name == "dual" else DenseGram(GRAM)
    close(precision.trace_solve(gram), expected)
    if name == "diagonal":
        close(precision.trace_solve(FactorGram(DenseRows(Z))), expected)


@each_precision
def test_draws_have_the_inverse_as_covariance(name):
    precision, dense = PRECISIONS[name]
    n = 40_000
    draws = precision.sample(n, generator())
    assert draws.shape == (n, P)
    products = draws[:, :, None] * draws[:, None, :]
    error = products.std(axis=0) / np.sqrt(n)
    assert np.all(np.abs(products.mean(axis=0) - np.linalg.inv(dense)) < 4.5 * error)


@each_precision
def test_asking_twice_gives_the_same_and_so_does_a_copy(name):
    precision, _ = PRECISIONS[name]
    copy = pickle.loads(pickle.dumps(precision))
    for again in (precision, copy):
        np.testing.assert_array_equal(again.variances(), precision.variances())
        assert again.logdet() == precision.logdet()
    # What is returned may be written to by whoever asked.
    precision.variances()[:] = np.nan
    assert np.all(np.isfinite(precision.variances()))


def test_dual_covariance_is_never_formed():
    covariance = PRECISIONS["dual"][0].covariance()
    assert isinstance(covariance, LinearOperator)
    vector = np.arange(P, dtype=float)
    close(covariance @ vector, np.linalg.solve(GRAM + np.diag(RIDGE), vector))
    close(covariance.T @ vector, covariance @ vector)


def test_precision_that_is_not_positive_definite_says_what_to_do():
    with pytest.raises(ValueError, match="prior precision is too small"):
        DensePrecision(GRAM)  # of rank 5 in 9 dimensions


def test_extreme_ridges_lose_no_digits():
    ridge = np.logspace(-6, 8, P)
    precision = DualPrecision(DenseRows(Z), ridge)
    dense = GRAM + np.diag(ridge)
    close(precision.logdet(), np.linalg.slogdet(dense)[1])
    vector = generator(2).standard_normal(P)
    expected = np.linalg.solve(dense, vector)
    np.testing.assert_allclose(precision.solve(vector), expected, rtol=1e-6)


# -- rows ------------------------------------------------------------------------------


def design(density=0.4, shift=0.0, p=P):
    """A sparse matrix, and what standardising it by hand gives."""
    rng = generator(4)
    X = sparse.random_array((N, p), density=density, rng=rng, format="csc")
    X.data += shift
    weight = rng.uniform(0.5, 2.0, N)
    dense = X.toarray()
    mean = np.average(dense, axis=0, weights=weight)
    scale = rng.uniform(0.5, 2.0, p)
    root = np.sqrt(weight)
    values = root[:, None] * ((dense - mean) / scale)
    return X, root, mean, scale, values


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_rows_are_the_standardised_matrix(kind):
    X, root, mean, scale, values = design()
    if kind == "sparse":
        rows = SparseRows(X, root, mean, scale)
    else:
        rows = DenseRows.standardise(X.toarray(), root, mean, scale)
    assert rows.shape == (N, P)
    for shape in ((), (3,)):
        right = generator(5).standard_normal((P, *shape))
        left = generator(6).standard_normal((N, *shape))
        close(rows.dot(right), values @ right, 1e-13)
        close(rows.tdot(left), values.T @ left, 1e-13)
    for cols, block in rows.column_blocks():
        close(block, values[:, cols], 1e-13)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("shift", [1e6, 1e9])
def test_rows_far_from_zero_keep_their_digits(kind, shift):
    # Every entry is stored: only then can a sparse column be far from zero.
    X, root, mean, scale, values = design(density=1.0, shift=shift)
    if kind == "sparse":
        rows = SparseRows(X, root, mean, scale)
    else:
        rows = DenseRows.standardise(X.toarray(), root, mean, scale)
    right, left = generator(5).standard_normal(P), generator(6).standard_normal(N)
    close(rows.dot(right), values @ right, 1e-13)
    close(rows.tdot(left), values.T @ left, 1e-13)


def test_a_column_divided_by_infinity_is_left_out():
    X, root, mean, scale, values = design()
    scale[3], values[:, 3] = np.inf, 0.0
    for rows in (
        SparseRows(X, root, mean, scale),
        DenseRows.standardise(X.toarray(), root, mean, scale),
    ):
        close(rows.dot(np.eye(P)), values, 1e-13)
        close(rows.tdot(np.eye(N)), values.T, 1e-13)


def test_float32_rows_stay_float32_and_are_centred_exactly():
    X = (1e6 + generator().standard_normal((N, P))).astype(np.float32)
    mean = X.astype(np.float64).mean(axis=0)
    rows = DenseRows.standardise(X, np.ones(N), mean, np.ones(P))
    assert rows.values.dtype == np.float32
    np.testing.assert_allclose(rows.values, X - mean, rtol=1e-7)


@pytest.mark.parametrize(("n_items", "n_other"), [(1, 1), (40, 10**9), (10**5, 7)])
def test_blocks_cover_the_items_once_and_fit_the_cache(n_items, n_other):
    slices = block_slices(n_items, n_other)
    covered = np.concatenate([np.arange(n_items)[s] for s in slices])
    np.testing.assert_array_equal(covered, np.arange(n_items))
    sizes = [s.stop - s.start for s in slices]
    assert max(sizes) <= max(16, BLOCK_ELEMENTS // n_other)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 16 columns, so that small matrices have several."""
    monkeypatch.setattr("skvi.linalg.rows.BLOCK_ELEMENTS", 1)


# -- Gram matrices ---------------------------------------------------------------------


def both_grams(values):
    return DenseGram(values.T @ values), FactorGram(DenseRows(values))


def test_factor_gram_is_the_dense_one(small_blocks):
    values = generator().standard_normal((N, 40))
    dense, factor = both_grams(values)
    assert len(list(factor.rows.column_blocks())) == 3
    close(factor.diagonal(), dense.diagonal())
    right = generator(1).standard_normal((40, 3))
    close(factor.dot(right), dense.dot(right))
    close(factor.dot(right[:, 0]), dense.dot(right[:, 0]))
    ridge = generator(2).uniform(0.5, 2.0, 40)
    wide, tall = factor.precision(ridge), dense.precision(ridge)
    assert isinstance(wide, DualPrecision) and isinstance(tall, DensePrecision)
    close(wide.variances(), tall.variances())
    close(wide.logdet(), tall.logdet())
    close(wide.trace_solve(factor), tall.trace_solve(dense))


def test_sparse_factor_gram_is_the_dense_one(small_blocks):
    X, root, mean, scale, values = design(p=40)
    dense, _ = both_grams(values)
    factor = FactorGram(SparseRows(X, root, mean, scale))
    close(factor.diagonal(), dense.diagonal())
    ridge = generator(2).uniform(0.5, 2.0, 40)
    close(factor.precision(ridge).variances(), dense.precision(ridge).variances())
    close(factor.spectrum().eigenvalues, dense.spectrum().eigenvalues)


def test_a_negative_ridge_needs_the_dense_form():
    ridge = np.full(P, 0.5)
    ridge[2] = -0.01  # the sum is still positive definite
    dense, factor = both_grams(Z)
    precision = factor.precision(ridge)
    close(precision.covariance(), dense.precision(ridge).covariance())


def test_ridge_may_be_a_view_and_the_gram_is_left_alone():
    gram = DenseGram(GRAM.copy())
    gram.precision(np.broadcast_to(2.0, P))
    gram.ascend(np.ones(P), np.broadcast_to(2.0, P), np.zeros(P), 3)
    gram.spectrum()
    np.testing.assert_array_equal(gram.matrix, GRAM)


def test_ascent_ends_at_the_ridge_solution():
    dense, factor = both_grams(Z)
    target, start = generator(2).standard_normal(P), generator(3).standard_normal(P)
    expected = np.linalg.solve(GRAM + np.diag(RIDGE), target)
    close(factor.ascend(target, RIDGE, start, 1), expected)
    close(dense.ascend(target, RIDGE, start, 500), expected)
    # Every sweep climbs, and the start is left as it was.
    before = start.copy()

    def height(m):
        return target @ m - 0.5 * m @ (GRAM + np.diag(RIDGE)) @ m

    heights = [height(start)]
    heights += [height(dense.ascend(target, RIDGE, start, k)) for k in range(1, 6)]
    assert np.all(np.diff(heights) > 0.0)
    np.testing.assert_array_equal(start, before)


@pytest.mark.parametrize("n_sweeps", [0, 1, 4])
def test_sweep_kernel_is_its_twin(n_sweeps):
    gram, ridge = GRAM.copy(), RIDGE.copy()
    gram[4], gram[:, 4], ridge[4] = 0.0, 0.0, 0.0  # nothing is known of this one
    rng = generator(7)
    residual, mean = rng.standard_normal(P), rng.standard_normal(P)
    expected = residual.copy(), mean.copy()
    twins.sweep(gram, expected[0], ridge, expected[1], n_sweeps)
    coordinate.sweep(gram, residual, ridge, mean, n_sweeps)
    close(residual, expected[0], 1e-13)
    close(mean, expected[1], 1e-13)


# -- spectra ---------------------------------------------------------------------------


def spectra(n, p, rank=None):
    """Dense and factor spectrum of centred rows, perhaps of a lower rank."""
    values = generator(8).standard_normal((n, p))
    if rank is not None:
        values = values[:, :rank] @ generator(9).standard_normal((rank, p))
    values -= values.mean(axis=0)
    dense, factor = both_grams(values)
    return values, dense.spectrum(), factor.spectrum()


@pytest.mark.parametrize(
    ("n", "p", "rank"), [(12, 6, None), (12, 6, 3), (6, 40, None), (6, 40, 2)]
)
def test_spectrum_is_the_eigenbasis_without_null_directions(n, p, rank, small_blocks):
    values, *both = spectra(n, p, rank)
    expected_rank = rank or min(n - 1, p)
    A = values.T @ values
    X, M = generator(1).standard_normal((4, p)), generator(2).standard_normal((40, 3))
    for spectrum in both:
        assert isinstance(spectrum, Spectrum)
        d = spectrum.eigenvalues
        assert d.shape == (expected_rank,)
        assert spectrum.dim == p and spectrum.n_null == p - expected_rank
        V = spectrum.lift(np.eye(expected_rank))
        close(V.T @ V, np.eye(expected_rank))
        close((V * d) @ V.T, A, 1e-9)
        close(spectrum.project(X), X @ V)
        close(spectrum.lift(M[:expected_rank]), V @ M[:expected_rank])
        close(spectrum.lift(d), V @ d)
        close(spectrum.squares(d), np.diag(A), 1e-9)
        E = M[:expected_rank]
        close(spectrum.squares(E), (V**2) @ E)


def test_spectrum_of_nothing():
    for gram in both_grams(np.zeros((4, 7))):
        spectrum = gram.spectrum()
        assert spectrum.n_null == 7
        close(spectrum.lift(np.zeros((0, 2))), np.zeros((7, 2)))
        assert spectrum.project(np.ones((3, 7))).shape == (3, 0)
        close(spectrum.squares(np.zeros((0, 2))), np.zeros((7, 2)))


def test_spectrum_of_float32_rows_knows_its_rank():
    # Centred rows have rank n - 1; float32 sums would leave one more direction.
    values = generator().standard_normal((30, 200))
    values -= values.mean(axis=0)
    rows = DenseRows(values.astype(np.float32))
    spectrum = FactorGram(rows).spectrum()
    V = spectrum.lift(np.eye(len(spectrum.eigenvalues)))
    close(V.T @ V, np.eye(len(spectrum.eigenvalues)), 1e-8)
    expected = np.linalg.svd(rows.values.astype(float), compute_uv=False)[:29] ** 2
    np.testing.assert_allclose(spectrum.eigenvalues[-29:], expected[::-1], rtol=1e-10)


# -- covariances -----------------------------------------------------------------------


@each_precision
@pytest.mark.parametrize("coefficient", [0.0, 0.7, -0.05])
def test_scaled_inverse_with_a_correction(name, coefficient):
    precision, dense = PRECISIONS[name]
    vector = generator(2).standard_normal(P)
    plain = 2.5 * np.linalg.inv(dense)
    corrected = plain + coefficient * np.outer(vector, vector)
    rows = generator(3).standard_normal((4, P))
    for law, C in (
        (ScaledInverse(precision, 2.5, vector, coefficient), corrected),
        (DenseCovariance(corrected), corrected),
        (ScaledInverse(precision, 2.5), plain),
    ):
        close(law.variances(), np.diag(C))
        close(law.leverage(rows), np.diag(rows @ C @ rows.T))
        close(law.inner(rows), rows @ C @ rows.T)
        close(as_matrix(law.covariance()), C)


@pytest.mark.parametrize("scale", [3.0, RIDGE])
def test_scaled_covariance(scale):
    C = np.linalg.inv(GRAM + np.diag(RIDGE))
    both = np.broadcast_to(scale, P)
    expected = both[:, None] * C * both
    close(scaled_covariance(C, scale), expected)
    operator = scaled_covariance(symmetric_operator(P, lambda M: C @ M), scale)
    assert isinstance(operator, LinearOperator)
    close(operator @ np.eye(P), expected)
    close(operator @ np.ones(P), expected @ np.ones(P))
    stacked = scaled_covariance(np.stack([C, 2 * C]), np.stack([both, both]))
    close(stacked, np.stack([expected, 2 * expected]))


def test_scaled_variance_of_a_scalar():
    assert scaled_covariance(2.0, -3.0) == 18.0
    assert scaled_covariance(np.array(2.0), np.array(-3.0)) == 18.0


# -- arrow precisions ------------------------------------------------------------------

# {name: (levels and effects of each factor)}
ARROWS = {
    "no factor": [],
    "intercepts": [(6, 1)],
    "slopes": [(5, 3)],
    "crossed": [(7, 1), (4, 1)],
    "crossed slopes": [(6, 2), (3, 1), (4, 3)],
}
each_arrow = pytest.mark.parametrize("name", ARROWS)
each_arrow_kind = pytest.mark.parametrize("joint", [True, False])


def spd_blocks(q, seed):
    root = generator(seed).standard_normal((q, q + 2))
    return root @ root.T + 0.3 * np.eye(q)


def grouped_rows(name, n=40, p=3):
    rng, factors = generator(11), ARROWS[name]
    codes = [rng.integers(0, J, n) for J, _ in factors]
    for code, (J, _) in zip(codes, factors):
        code[code == J - 1] = 0  # a level without a row
    terms = [
        np.column_stack([np.ones(n), rng.standard_normal((n, q - 1))])
        for _, q in factors
    ]
    layout = ArrowLayout(p, tuple(factors))
    X = rng.standard_normal((n, p))
    return GroupedRows(layout, X, codes, terms), (X, codes, terms)


def dense_rows(layout, X, codes, terms):
    """The design by its definition: a column for every effect of every level."""
    Z = np.zeros((len(X), layout.dim))
    Z[:, : layout.width] = X
    for f, (code, term) in enumerate(zip(codes, terms)):
        at = layout.positions(f)
        for i in range(len(X)):
            if code[i] >= 0:
                Z[i, at[code[i]]] += term[i]
    return Z


def arrow(name, joint=True):
    """(precision, its dense twin, rows, their dense twin)."""
    rows, parts = grouped_rows(name)
    layout, Z = rows.layout, dense_rows(rows.layout, *parts)
    weight = generator(12).uniform(0.2, 2.0, len(Z))
    ridge = generator(13).uniform(0.5, 2.0, layout.width)
    priors = [spd_blocks(q, f) for f, (_, q) in enumerate(layout.factors)]
    dense = Z.T @ (weight[:, None] * Z)
    block = np.zeros_like(dense, dtype=bool)
    common = np.arange(layout.width)
    dense[common, common] += ridge
    block[np.ix_(common, common)] = True
    for f, prior in enumerate(priors):
        for at in layout.positions(f):
            dense[np.ix_(at, at)] += prior
            block[np.ix_(at, at)] = True
    if not joint:
        dense = np.where(block, dense, 0.0)
    kind = ArrowPrecision if joint else ArrowBlocks
    return kind(rows.gram(weight), ridge, priors), dense, rows, Z


@each_arrow
def test_grouped_rows_are_their_dense_matrix(name):
    rows, parts = grouped_rows(name)
    Z = dense_rows(rows.layout, *parts)
    assert rows.shape == Z.shape
    every = [np.arange(rows.layout.width)]
    every += [rows.layout.positions(f).ravel() for f in range(len(ARROWS[name]))]
    np.testing.assert_array_equal(np.sort(np.concatenate(every)), np.arange(Z.shape[1]))
    close(rows.dense(), Z, 1e-14)
    theta, v = generator(1).standard_normal(Z.shape[1]), generator(2).random(len(Z))
    close(rows.dot(theta), Z @ theta, 1e-13)
    close(rows.tdot(v), Z.T @ v, 1e-13)
    some = generator(3).permutation(len(Z))[:9]
    close(rows[some].dense(), Z[some], 1e-14)
    close(rows[some].dot(theta), Z[some] @ theta, 1e-13)


@each_arrow
def test_rows_of_unknown_levels_have_none_of_their_effects(name):
    rows, (X, codes, terms) = grouped_rows(name)
    codes = [np.where(np.arange(len(X)) % (f + 2), c, -1) for f, c in enumerate(codes)]
    rows = GroupedRows(rows.layout, X, codes, terms)
    Z = dense_rows(rows.layout, X, codes, terms)
    theta = generator(1).standard_normal(Z.shape[1])
    close(rows.dot(theta), Z @ theta, 1e-13)
    precision, dense, *_ = arrow(name)
    inverse = np.linalg.inv(dense)
    close(precision.of_predictors(rows), np.diag(Z @ inverse @ Z.T))
    close(precision.inner(rows), Z @ inverse @ Z.T)


@each_arrow
@each_arrow_kind
def test_arrow_is_its_dense_matrix(name, joint):
    precision, dense, rows, Z = arrow(name, joint)
    inverse, d = np.linalg.inv(dense), len(dense)
    assert precision.dim == d
    vector, some = generator(2).standard_normal(d), generator(3).standard_normal((4, d))
    close(precision.solve(vector), inverse @ vector)
    close(precision.solve(some.T), inverse @ some.T)
    close(precision.logdet(), np.linalg.slogdet(dense)[1])
    close(precision.variances(), np.diag(inverse))
    at = np.arange(d)[::2]
    close(precision.variance_sum(at), np.diag(inverse)[at].sum())
    close(precision.quadratic(some), np.diag(some @ dense @ some.T))
    close(as_matrix(precision.covariance()), inverse)
    close(precision.of_predictors(rows), np.diag(Z @ inverse @ Z.T))
    close(precision.inner(rows), Z @ inverse @ Z.T)
    p = rows.layout.width
    close(precision.common_covariance(), inverse[:p, :p])
    for f in range(len(ARROWS[name])):
        at = rows.layout.positions(f)
        expected = np.stack([inverse[np.ix_(each, each)] for each in at])
        close(precision.blocks(f), expected)


@each_arrow
@each_arrow_kind
def test_draws_of_an_arrow_have_the_inverse_as_covariance(name, joint):
    precision, dense, *_ = arrow(name, joint)
    n = 40_000
    draws = precision.sample(n, generator())
    assert draws.shape == (n, len(dense))
    root = np.linalg.cholesky(dense)
    white = draws @ root  # uncorrelated, of variance one
    products = white.T @ white / n - np.eye(len(dense))
    assert np.max(np.abs(products)) < 5.0 * np.sqrt(2.0 / n)
    assert np.max(np.abs(white.mean(axis=0))) < 4.5 / np.sqrt(n)


@each_arrow
@each_arrow_kind
def test_a_copy_of_an_arrow_answers_the_same(name, joint):
    precision, _, rows, _ = arrow(name, joint)
    precision.of_predictors(rows)
    copy = pickle.loads(pickle.dumps(precision))
    for again in (precision, copy):
        np.testing.assert_array_equal(again.variances(), precision.variances())
        np.testing.assert_array_equal(
            again.of_predictors(rows), precision.of_predictors(rows)
        )
        assert again.logdet() == precision.logdet()


@each_arrow
def test_arrow_in_chunks_is_the_whole(name, monkeypatch):
    whole, _, rows, _ = arrow(name)
    monkeypatch.setattr("skvi.linalg.arrow.CHUNK", 20)
    monkeypatch.setattr("skvi.linalg.arrow.MOST_DENSE", 4)
    parts, dense, *_ = arrow(name)
    close(parts.variances(), whole.variances(), 1e-13)
    close(parts.of_predictors(rows), whole.of_predictors(rows), 1e-13)
    # large covariances are never formed
    covariance = parts.covariance()
    if len(dense) > 4:
        assert isinstance(covariance, LinearOperator)
    vector = np.arange(len(dense), dtype=float)
    close(covariance @ vector, np.linalg.solve(dense, vector))


@each_arrow
def test_arrow_grams_add_and_scale(name):
    rows, _ = grouped_rows(name)
    weight = generator(12).uniform(0.2, 2.0, rows.shape[0])
    cut = rows[:15].gram(weight[:15]) + rows[15:].gram(weight[15:])
    assert isinstance(cut, ArrowGram)
    ridge = np.ones(rows.layout.width)
    priors = [np.eye(q) for _, q in rows.layout.factors]
    once = ArrowPrecision(rows.gram(weight), ridge, priors)
    close(ArrowPrecision(cut, ridge, priors).covariance(), once.covariance())
    twice = ArrowPrecision(2.0 * cut, 2.0 * ridge, [2.0 * prior for prior in priors])
    close(2.0 * twice.covariance(), once.covariance())


def test_an_arrow_of_extreme_scales_keeps_its_digits():
    """A factor that is nearly known to be zero, and one nearly free."""
    rows, parts = grouped_rows("crossed slopes")
    Z = dense_rows(rows.layout, *parts)
    weight, ridge = np.ones(len(Z)), np.full(rows.layout.width, 1e-6)
    priors = [1e10 * np.eye(2), 1e-4 * np.eye(1), np.diag([1e8, 1.0, 1e-3])]
    dense = Z.T @ Z
    common = np.arange(rows.layout.width)
    dense[common, common] += ridge
    for f, prior in enumerate(priors):
        for at in rows.layout.positions(f):
            dense[np.ix_(at, at)] += prior
    precision = ArrowPrecision(rows.gram(weight), ridge, priors)
    sd = 1.0 / np.sqrt(np.diag(dense))
    scaled = np.linalg.inv(dense * np.outer(sd, sd))
    np.testing.assert_allclose(
        precision.variances(), np.diag(scaled) * sd**2, rtol=1e-6
    )
    np.testing.assert_allclose(
        precision.logdet(), np.linalg.slogdet(dense)[1], rtol=1e-10
    )


def test_an_arrow_that_is_not_positive_definite_is_an_error():
    rows, _ = grouped_rows("intercepts")
    for prior in (-1e3, np.nan):
        with pytest.raises(np.linalg.LinAlgError):
            ArrowPrecision(
                rows.gram(np.ones(rows.shape[0])), np.ones(3), [np.full((1, 1), prior)]
            )
