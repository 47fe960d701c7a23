"""What is particular to VariationalGaussianMixture; the rest is the contract's."""

import itertools
import tracemalloc
import warnings
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, sparse, special, stats
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from skvi import VariationalGaussianMixture
from skvi.callbacks import ScoringMonitor, StopWhen
from skvi.distributions import Dirichlet, StickBreaking
from skvi.inference.drivers import Incremental
from skvi.inference.engine import climb
from skvi.models.mixture import MixturePosterior, Rows, local, moves
from skvi.models.mixture.features import (
    DiagonalFeatures,
    FullFeatures,
    ObservedFeatures,
)
from skvi.models.mixture.incomplete import Incomplete
from skvi.models.mixture.patterns import Patterns
from skvi.models.mixture.whitened import Tied, Whitened

TYPES = ("full", "tied", "diag", "spherical")
POSTERIORS = ("structured", "mean_field")
each_type = pytest.mark.parametrize("kind", TYPES)
each_posterior = pytest.mark.parametrize("posterior", POSTERIORS)
each_emission = pytest.mark.parametrize("emission", ("gaussian", "student_t"))


def mixture(K=3, kind="full", **params):
    params = {"random_state": 0, "init_params": "kmeans", **params}
    return VariationalGaussianMixture(n_components=K, covariance_type=kind, **params)


def groups(n=300, D=2, K=3, seed=0, apart=8.0):
    """Rows of K correlated groups of sizes that differ, and their labels."""
    rng = np.random.default_rng(seed)
    weights = np.arange(1, K + 1) / (K * (K + 1) / 2)
    labels = np.sort(rng.choice(K, size=n, p=weights))
    centres = apart * rng.permutation(np.linspace(-1.0, 1.0, K))[:, None]
    centres = centres * np.where(np.arange(D) % 2, -1.0, 1.0) + rng.standard_normal(
        (K, D)
    )
    X = rng.standard_normal((n, D)) @ (np.eye(D) + 0.3 * np.eye(D, k=1))
    order = rng.permutation(n)
    return (X + centres[labels])[order], labels[order]


X, LABELS = groups()
PRIOR = {  # of one on the rows' own scale
    "full": np.eye(2),
    "tied": np.eye(2),
    "diag": np.ones(2),
    "spherical": 1.0,
}
HOLES = X.copy()
HOLES[np.random.default_rng(1).random(X.shape) < 0.15] = np.nan


# -- the evidence of one component -----------------------------------------------------


def log_evidence(model, X):
    """log p(X) of one component: the integral over mean and precision, in closed form.

    Bernardo & Smith (2000), appendix A.2: Normal-Wishart and Normal-Gamma.
    """
    n, dim = X.shape
    beta, nu = model.mean_precision_prior_, model.degrees_of_freedom_prior_
    C, gap = model.covariance_prior_, X.mean(axis=0) - model.mean_prior_
    scatter = (X - X.mean(axis=0)).T @ (X - X.mean(axis=0))
    scatter += n * beta / (n + beta) * np.outer(gap, gap)
    total = 0.5 * dim * (np.log(beta / (n + beta)) - n * np.log(np.pi))
    if model.covariance_type in ("full", "tied"):
        before, after = np.linalg.slogdet(C)[1], np.linalg.slogdet(C + scatter)[1]
        total += special.multigammaln(0.5 * (nu + n), dim)
        total -= special.multigammaln(0.5 * nu, dim)
        return total + 0.5 * (nu * before - (nu + n) * after)
    square = np.diag(scatter)
    if model.covariance_type == "spherical":
        square, n = square.sum(), n * dim
    each = special.gammaln(0.5 * (nu + n)) - special.gammaln(0.5 * nu)
    each = each + 0.5 * (nu * np.log(C) - (nu + n) * np.log(C + square))
    return total + np.sum(np.broadcast_to(each, np.shape(C)))


@each_type
@pytest.mark.parametrize("D", [1, 3, 30])
def test_one_component_has_the_exact_evidence(kind, D):
    rows = groups(40, D, 1)[0] * np.logspace(-1, 2, D)
    model = mixture(1, kind).fit(rows)
    assert model.elbo_ == pytest.approx(log_evidence(model, rows), rel=1e-10)
    assert model.n_iter_ == 1


@each_type
@pytest.mark.parametrize("c", [2.0**-60, 1e-8, 1e150])
def test_units_move_the_bound_by_their_log(kind, c):
    model, other = mixture(3, kind).fit(X), mixture(3, kind).fit(X * c)
    change = -X.size * np.log(c)
    assert other.elbo_ - change == pytest.approx(model.elbo_, rel=1e-9)


# -- the predictive law ----------------------------------------------------------------


@each_type
@each_posterior
@each_emission
def test_the_density_integrates_to_one_in_one_dimension(kind, posterior, emission):
    rows = groups(60, 1)[0]
    model = mixture(3, kind, posterior=posterior, emission=emission).fit(rows)
    mass = sum(
        integrate.quad(lambda x: np.exp(model.score_samples([[x]])[0]), low, high)[0]
        for low, high in [(-np.inf, -8.0), (-8.0, 0.0), (0.0, 8.0), (8.0, np.inf)]
    )
    assert mass == pytest.approx(1.0, abs=1e-5)


def wider_component(model, k):
    """Draws, and their log density, near component k: with fatter tails, too."""
    kind, dim = model.covariance_type, model.means_.shape[1]
    C = model.covariances_ if kind == "tied" else model.covariances_[k]
    dof = model.degrees_of_freedom_
    dof = dof if kind == "tied" else dof[k]
    if kind in ("full", "tied"):
        dof = dof - dim + 1.0
        C = C * (dof + dim - 1.0) / dof
    if model.emission == "student_t":
        dof = 1.0 / (1.0 / dof + 1.0 / model.emission_dof)
    C, dof = 1.1 * C, 0.8 * dof
    if kind == "diag":
        law = stats.t(dof, loc=model.means_[k], scale=np.sqrt(C))
        return (
            lambda n, rng: law.rvs((n, dim), random_state=rng),
            lambda x: law.logpdf(x).sum(axis=1),
        )
    law = stats.multivariate_t(
        model.means_[k], C * np.eye(dim) if kind == "spherical" else C, df=dof
    )
    return lambda n, rng: law.rvs(n, random_state=rng), law.logpdf


@each_type
@each_posterior
@each_emission
@pytest.mark.parametrize("D", [2, 10, 30])
def test_the_density_integrates_to_one(kind, posterior, emission, D):
    rows = groups(200, D)[0]
    model = mixture(3, kind, posterior=posterior, emission=emission).fit(rows)
    # Importance sampling from the fitted components, a little wider in every respect.
    rng = np.random.default_rng(0)
    n = 20_000
    laws = [wider_component(model, k) for k in range(3)]
    counts = np.bincount(rng.choice(3, size=n, p=model.weights_), minlength=3)
    points = [draw(count, rng) for (draw, _), count in zip(laws, counts)]
    points = np.concatenate(points)
    parts = [np.log(w) + log(points) for (_, log), w in zip(laws, model.weights_)]
    ratio = np.exp(model.score_samples(points) - special.logsumexp(parts, axis=0))
    error = ratio.std() / np.sqrt(n)
    assert error < 0.01
    assert abs(ratio.mean() - 1.0) < 0.01 + 3 * error


@each_type
@each_emission
def test_probabilities_labels_and_scores_belong_together(kind, emission):
    model = mixture(3, kind, emission=emission).fit(HOLES)
    probabilities = model.predict_proba(HOLES)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), model.predict(HOLES))
    assert adjusted_rand_score(LABELS, model.predict(X)) > 0.99
    assert model.score(HOLES) == pytest.approx(model.score_samples(HOLES).mean())
    weight = np.arange(len(X)) % 3
    assert model.score(X, sample_weight=weight) == pytest.approx(
        model.score(np.repeat(X, weight, axis=0))
    )
    np.testing.assert_array_equal(clone(model).fit_predict(HOLES), model.predict(HOLES))


@each_type
def test_draws_of_rows_have_the_moments_of_the_law(kind):
    model = mixture(3, kind).fit(X)
    drawn, labels = model.sample(40_000, random_state=0)
    nothing = np.full((1, 2), np.nan)
    law = model.conditional(nothing, [0, 1])
    error = drawn.std(axis=0) / 200.0
    assert np.all(np.abs(drawn.mean(axis=0) - law.mean[0]) < 5 * error)
    np.testing.assert_allclose(np.cov(drawn.T), law.covariance()[0], rtol=0.05, atol=1)
    share = np.bincount(labels) / len(labels)
    np.testing.assert_allclose(share, model.weights_, atol=0.01)
    again, _ = model.sample(40_000, random_state=0)
    np.testing.assert_array_equal(again, drawn)
    # of one component, too: what is labelled k is near its mean
    for k in range(3):
        gap = drawn[labels == k].mean(axis=0) - model.means_[k]
        assert np.all(np.abs(gap) < 0.2)


@each_type
@each_emission
def test_conditionals_are_ratios_of_densities(kind, emission):
    rows = groups(200, 4)[0]
    frame = pd.DataFrame(rows, columns=list("abcd"))
    model = mixture(3, kind, emission=emission).fit(frame)
    law = model.conditional(frame, ["d", "b"])
    without = frame.copy()
    without[["b", "d"]] = np.nan
    ratio = model.score_samples(frame) - model.score_samples(without)
    np.testing.assert_allclose(law.log_density(frame[["d", "b"]]), ratio, atol=1e-9)
    np.testing.assert_allclose(law.weights, model.predict_proba(without), atol=1e-12)
    by_index = model.conditional(frame, [3, -3])
    np.testing.assert_array_equal(by_index.mean, law.mean)
    one = model.conditional(without, "b")  # d integrated out
    np.testing.assert_allclose(one.mean[:, 0], law.mean[:, 1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(one.std()[:, 0], law.std()[:, 1], rtol=1e-9)
    draws = law.sample(4_000, random_state=0)
    assert draws.shape == (4_000, 200, 2)
    error = law.std() / np.sqrt(4_000)
    assert np.all(np.abs(draws.mean(axis=0) - law.mean) < 6 * error)
    interval = law.interval(0.8)
    inside = (draws > interval[..., 0]) & (draws < interval[..., 1])
    np.testing.assert_allclose(inside.mean(axis=0), 0.8, atol=0.04)
    np.testing.assert_allclose(law.quantile([0.1, 0.9]), interval)
    for bad in (["z"], [4], [0, 0], [], [0.5]):
        with pytest.raises(ValueError, match="features="):
            model.conditional(frame, bad)


@each_type
def test_imputation_is_the_conditional_mean(kind):
    model = mixture(3, kind).fit(HOLES)
    filled, std = model.impute(HOLES, return_std=True)
    missing = np.isnan(HOLES)
    np.testing.assert_array_equal(filled[~missing], HOLES[~missing])
    assert np.all(std[~missing] == 0.0) and np.all(np.isfinite(filled))
    for d in range(2):
        law = model.conditional(HOLES, d)
        only = missing[:, d]
        np.testing.assert_allclose(filled[only, d], law.mean[only, 0], rtol=1e-9)
        np.testing.assert_allclose(std[only, d], law.std()[only, 0], rtol=1e-9)
    np.testing.assert_array_equal(model.impute(HOLES), filled)
    np.testing.assert_array_equal(model.impute(X), X)
    # Better than the column's mean, as the groups are known from the other column.
    error = np.sqrt(np.mean((filled - X)[missing & ~missing.all(axis=1)[:, None]] ** 2))
    assert error < 0.6 * np.std(X)


# -- the posterior ---------------------------------------------------------------------


@pytest.mark.parametrize("prior", ["dirichlet_process", "dirichlet_distribution"])
def test_intervals_of_weights_are_those_of_draws(prior):
    model = mixture(3, weight_concentration_prior_type=prior).fit(X)
    draws = model.sample_posterior(40_000, random_state=0)["weights"]
    for level in (0.5, 0.95):
        interval = model.weights_interval(level)
        inside = (draws > interval[:, 0]) & (draws < interval[:, 1])
        np.testing.assert_allclose(inside.mean(axis=0), level, atol=0.01)
    assert mixture(1).fit(X).weights_interval().tolist() == [[1.0, 1.0]]
    with pytest.raises(ValueError, match=r"confidence_level=1\.5"):
        model.weights_interval(1.5)


@each_type
@each_posterior
def test_covariances_and_precisions_are_one_another(kind, posterior):
    model = mixture(3, kind, posterior=posterior).fit(X)
    root = model.precisions_cholesky_
    if kind in ("full", "tied"):
        product = model.covariances_ @ model.precisions_
        np.testing.assert_allclose(
            product, np.broadcast_to(np.eye(2), product.shape), atol=1e-9
        )
        np.testing.assert_allclose(
            root @ np.swapaxes(root, -1, -2), model.precisions_, rtol=1e-9
        )
        np.testing.assert_array_equal(root, np.triu(root))
    else:
        np.testing.assert_allclose(model.covariances_ * model.precisions_, 1.0)
        np.testing.assert_allclose(root**2, model.precisions_)
    shapes = {"full": (3, 2, 2), "tied": (2, 2), "diag": (3, 2), "spherical": (3,)}
    assert model.covariances_.shape == shapes[kind]
    assert model.means_covariance_.shape == (3, 2, 2)
    # near those of the rows of a group, with a prior that is worth little
    weak = {
        "mean_precision_prior": 1e-4,
        "degrees_of_freedom_prior": 2.0,
        "covariance_prior": PRIOR[kind],
    }
    model = mixture(3, kind, posterior=posterior, **weak).fit(X)
    labels = model.predict(X)
    within = X - np.array([X[labels == k].mean(axis=0) for k in range(3)])[labels]
    for k in range(3):
        own = X[labels == k]
        assert model.weights_[k] == pytest.approx(len(own) / len(X), abs=0.01)
        np.testing.assert_allclose(model.means_[k], own.mean(axis=0), atol=0.05)
        spread = within if kind == "tied" else within[labels == k]
        std = spread.std(axis=0) / np.sqrt(len(own))
        np.testing.assert_allclose(model.means_std_[k], std, rtol=0.15)


@each_posterior
def test_local_draws_follow_the_responsibilities(posterior):
    rows = np.concatenate([X[:6], [[0.0, np.nan], [np.nan, np.nan]]])
    model = mixture(3, posterior=posterior, emission="student_t").fit(HOLES)
    draws = model.sample_posterior(20_000, 0, X=rows)
    assert draws["assignments"].shape == draws["scales"].shape == (20_000, 8)
    assert draws["missing"].shape == (20_000, 3)
    share = (draws["assignments"][..., None] == np.arange(3)).mean(axis=0)
    np.testing.assert_allclose(share, model.predict_proba(rows), atol=0.05)
    assert np.all(draws["scales"] > 0.0)


# -- ways of reading rows --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["diag", "spherical"])
@each_emission
def test_sparse_rows_equal_dense_ones(kind, emission):
    rng = np.random.default_rng(0)
    dense = groups(200, 6)[0] * (rng.random((200, 6)) < 0.4)
    rows = sparse.csr_array(dense)
    weight = rng.integers(0, 3, 200)
    params = {"emission": emission, "mean_prior": np.zeros(6)}
    for w in (None, weight):
        a = mixture(3, kind, **params).fit(dense, sample_weight=w)
        b = mixture(3, kind, **params).fit(rows, sample_weight=w)
        assert b.elbo_ == pytest.approx(a.elbo_, abs=1e-3)
        np.testing.assert_allclose(
            b.score_samples(rows), a.score_samples(dense), atol=0.01
        )
        np.testing.assert_array_equal(b.predict(rows), b.predict(dense))
    one, other = mixture(1, kind).fit(dense), mixture(1, kind).fit(rows)
    assert other.elbo_ == pytest.approx(one.elbo_, rel=1e-10)
    b.partial_fit(rows)
    with pytest.raises(ValueError, match=r"Sparse X contains NaN.*X.toarray\(\)"):
        mixture(2, kind).fit(sparse.csr_array([[1.0, np.nan], [2.0, 3.0]]))


def test_sparse_rows_need_diagonal_covariances():
    for kind in ("full", "tied"):
        with pytest.raises(TypeError, match=r"[Ss]parse"):
            mixture(2, kind).fit(sparse.csr_array(X))


def test_rows_in_a_file(tmp_path):
    np.save(tmp_path / "rows.npy", X)
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    for kind in TYPES:
        assert mixture(3, kind).fit(rows).elbo_ == mixture(3, kind).fit(X).elbo_


GEOMETRIES = {
    "full": [FullFeatures(3), Whitened(3), Patterns(3), Incomplete(3)],
    "tied": [Tied(3), Patterns(3, tied=True), Incomplete(3, tied=True)],
    "diag": [DiagonalFeatures(3), ObservedFeatures(3)],
    "spherical": [DiagonalFeatures(3), ObservedFeatures(3)],
}


@each_type
@each_posterior
@each_emission
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_every_geometry_sees_the_same(kind, posterior, emission, dtype):
    rows = groups(150, 3, apart=3.0)[0].astype(dtype)
    weight = np.arange(150) % 3 + 0.5
    fit = mixture(3, kind, posterior=posterior, emission=emission).fit(
        rows, None, weight
    )
    expected = None
    first, *others = GEOMETRIES[kind]
    for geometry in [first, *others]:
        data = Rows(rows, weight, fit._fitted_frame)
        if geometry is first:
            # what the others are held to, in double precision
            data = Rows(rows.astype(np.float64), weight, fit._fitted_frame)
        model = fit._fitted_model.with_geometry(geometry)
        q = MixturePosterior(fit._fitted_q.weights, fit._fitted_q.components, geometry)
        statistics = model.statistics(q, (data, slice(0, 150)))
        moved = model.global_step(statistics.values, q)
        bound = sum(model.elbo_terms(statistics, q).values())
        if expected is None:
            expected = bound, moved
        tolerance = 1e-9 if dtype == np.float64 else 1e-4
        assert abs(bound - expected[0]) < 150 * tolerance
        assert moved.distance(expected[1]) < 10 * tolerance


@each_type
@pytest.mark.parametrize("missing", [False, True])
def test_blocks_pieces_and_threads_do_not_matter(kind, missing, monkeypatch):
    rows = HOLES if missing else X
    whole = mixture(3, kind, emission="student_t").fit(rows)
    monkeypatch.setattr("skvi.models.mixture.rows.SMALLEST_BLOCK", 77)
    monkeypatch.setattr("skvi.models.mixture.rows.LARGEST_BLOCK", 77)
    monkeypatch.setattr("skvi.models.mixture.geometry.SMALLEST_PIECE", 16)
    monkeypatch.setattr("skvi.models.mixture.geometry.LARGEST_PIECE", 16)
    for n_jobs in (1, 2, 3):
        parts = clone(whole).set_params(n_jobs=n_jobs).fit(rows)
        assert parts.elbo_ == pytest.approx(whole.elbo_, rel=1e-10)
        assert parts.n_iter_ == whole.n_iter_
        np.testing.assert_allclose(parts.means_, whole.means_, atol=1e-8)


@each_type
def test_an_incremental_pass_never_lowers_the_bound(kind):
    rows, _ = groups(300, K=4, apart=3.0)
    fit = mixture(4, kind, init_params="random").fit(rows)
    model, data = fit._fitted_model, Rows(rows, None, fit._fitted_frame)
    blocks = [(data, slice(i, i + 50)) for i in range(0, 300, 50)]
    part = model.statistics(fit._fitted_q, blocks[0])
    start = model.global_step(part.values, None)
    plain = climb(model, Incremental(model, blocks), start, max_iter=30, tol=0.0)
    assert np.all(np.diff(plain.path) >= -1e-12 * (abs(plain.elbo) + 300))
    assert plain.path[-1] > plain.path[0] + 1.0


@each_type
@each_emission
def test_structured_climbs_from_mean_field(kind, emission):
    rows, _ = groups(150, K=4, apart=2.5)
    small = mixture(4, kind, posterior="mean_field", emission=emission).fit(rows)
    large = deepcopy(small).set_params(posterior="structured", warm_start=True)
    assert large.fit(rows).elbo_ >= small.elbo_


@each_type
def test_a_row_of_which_nothing_is_known_adds_nothing(kind):
    """So the geometry of rows with NaN is held to that of complete ones."""
    rows = np.concatenate([X, np.full((1, 2), np.nan)])
    model = mixture(1, kind, covariance_prior=PRIOR[kind], mean_prior=[0.0, 0.0])
    whole, more = clone(model).fit(X), clone(model).fit(rows)
    assert np.all(np.abs(more.means_ - whole.means_) < 0.01 * whole.means_std_)
    np.testing.assert_allclose(more.score_samples(X), whole.score_samples(X), atol=1e-3)
    if kind in ("diag", "spherical"):
        assert more.elbo_ == pytest.approx(whole.elbo_, rel=1e-12)
    else:
        # q of the latent row is independent of q(mean, precision), which costs a bit.
        assert whole.elbo_ - 0.05 < more.elbo_ < whole.elbo_


def test_memory_does_not_grow_with_the_rows():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300_000, 5)) + 6.0 * rng.integers(0, 3, (300_000, 1))
    estimator = mixture(3, "diag", init_params="auto", max_iter=5)
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            estimator.fit(rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 60e6


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_order_does_not_matter_where_starts_see_a_sample(kind):
    rows, _ = groups(12_000)
    order = np.random.default_rng(1).permutation(len(rows))
    a, b = mixture(3, kind).fit(rows), mixture(3, kind).fit(rows[order])
    assert a.elbo_ == pytest.approx(b.elbo_, rel=1e-10)
    np.testing.assert_allclose(a.means_, b.means_, atol=1e-8)
    np.testing.assert_array_equal(a.predict(rows), b.predict(rows))


# -- robustness ------------------------------------------------------------------------


@each_type
@pytest.mark.parametrize("prior", ["relative", "known"])
def test_an_outlier_is_no_component_of_student_t_rows(kind, prior):
    rows = np.concatenate([X, [[1e6, 1e6]]])
    known = {"covariance_prior": PRIOR[kind], "mean_prior": [0.0, 0.0]}
    params = known if prior == "known" else {}
    params = {"emission": "student_t", "init_params": "auto", **params}
    model = mixture(3, kind, **params).fit(rows)
    assert adjusted_rand_score(LABELS, model.predict(X)) > 0.95
    share = np.sort(np.bincount(LABELS)) / len(rows)
    np.testing.assert_allclose(np.sort(model.weights_), share, atol=0.02)


@each_type
@pytest.mark.parametrize("c", [1e-8, 1e-150, 1e8, 1e150])
def test_units_do_not_change_labels(kind, c):
    model = mixture(3, kind, init_params="auto").fit(X)
    other = mixture(3, kind, init_params="auto").fit(X * c)
    np.testing.assert_array_equal(other.predict(X * c), model.predict(X))
    np.testing.assert_allclose(other.means_ / c, model.means_, rtol=1e-6, atol=1e-6)


@each_type
def test_a_distant_origin_does_not_change_labels(kind):
    moved = X + 1e8 * X.std(axis=0)
    model = mixture(3, kind).fit(X)
    other = mixture(3, kind).fit(moved)
    np.testing.assert_array_equal(other.predict(moved), model.predict(X))
    assert other.elbo_ == pytest.approx(model.elbo_, abs=1e-3)


@each_type
@each_posterior
@each_emission
def test_degenerate_rows(kind, posterior, emission):
    rng = np.random.default_rng(0)
    collinear = np.c_[X, X.sum(axis=1)]
    constant = np.c_[X, np.full(len(X), 0.1)]
    cases = {
        "fewer rows than components": X[:2],
        "one row": X[:1],
        "identical rows": np.full((20, 2), 0.3),
        "a constant column": constant,
        "collinear columns": collinear,
        "more columns than rows": rng.standard_normal((8, 20)),
        "one column": X[:, :1],
        "two values": np.repeat([[0.0, 1.0], [5.0, 5.0]], 10, axis=0),
        "zeros": np.zeros((5, 2)),
    }
    for name, rows in cases.items():
        for K in (1, 4):
            model = mixture(K, kind, posterior=posterior, emission=emission)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                model.fit(rows)
                values = [
                    model.score_samples(rows),
                    model.means_,
                    model.covariances_,
                    model.predict_proba(rows),
                    model.sample(5)[0],
                    model.elbo_,
                ]
            assert all(np.all(np.isfinite(value)) for value in values), name
            assert np.all(model.covariances_ >= 0.0) or kind in ("full", "tied"), name
            assert model.converged_, name


# -- moves -----------------------------------------------------------------------------


@pytest.mark.parametrize("K", [2, 4, 7])
def test_sticks_are_in_their_best_order(K):
    rng = np.random.default_rng(K)
    orders = np.array(list(itertools.permutations(range(K))))
    for concentration in (0.1, 1.0, 5.0):
        prior = StickBreaking(np.ones(K - 1), np.full(K - 1, concentration))
        for _ in range(3):
            counts = rng.gamma(0.7, 40.0, size=K)
            order = moves.best_order(prior, counts)
            order = np.arange(K) if order is None else order
            assert sorted(order) == list(range(K))
            gain = moves.stick_gain(prior, counts[order])
            best = max(moves.stick_gain(prior, counts[orders]))
            assert gain == pytest.approx(best, abs=1e-6)
            assert moves.best_order(prior, counts[order]) is None


def test_there_is_no_order_to_a_dirichlet_or_one_stick():
    counts = np.array([1.0, 9.0])
    assert moves.best_order(Dirichlet([1.0, 1.0]), counts) is None
    assert moves.best_order(StickBreaking([], []), counts[:1]) is None


@each_type
def test_a_fit_has_no_better_order_of_its_components(kind):
    model = mixture(3, kind).fit(X)
    q, inner = model._fitted_q, model._fitted_model
    counts = model._fitted_statistics.values["count"]
    assert moves.best_order(inner.weights_prior, counts) is None
    # Permuted statistics are put back in order, all of them alike.
    values = moves.reordered_values(
        model._fitted_statistics.values, np.array([2, 0, 1]), kind == "tied"
    )
    back, _ = moves.reordered(inner, values)
    assert back.distance(inner.global_step(model._fitted_statistics.values, q)) < 1e-9


@each_type
@pytest.mark.parametrize("seed", [0, 1])
def test_merging_never_lowers_the_bound(kind, seed):
    rows, _ = groups(300, seed=seed)
    params = {"init_params": "random_from_data", "random_state": seed}
    plain = mixture(6, kind, **params).fit(rows)
    merged = mixture(6, kind, moves="merge", **params).fit(rows)
    assert merged.elbo_ >= plain.elbo_ - 1e-6 * len(rows)
    assert merged.elbo_path_[-1] == pytest.approx(merged.elbo_, rel=1e-12)
    assert np.all(np.diff(merged.elbo_path_) >= -1e-12 * (abs(merged.elbo_) + 300))
    assert adjusted_rand_score(groups(300, seed=seed)[1], merged.predict(rows)) > 0.9


def test_more_starts_are_not_worse():
    rows, _ = groups(120, K=4, apart=5.0)
    params = {"init_params": "random", "random_state": 3}
    one = mixture(4, **params).fit(rows)
    many = mixture(4, n_init=4, **params).fit(rows)
    best = mixture(4, init_params="auto").fit(rows)
    assert best.elbo_ >= many.elbo_ - 1e-3 >= one.elbo_ - 2e-3


def test_components_that_rows_do_not_need_stay_empty():
    model = mixture(10, weight_concentration_prior=0.01, init_params="auto").fit(X)
    assert np.sum(model.weights_ > 0.01) == 3


# -- going on --------------------------------------------------------------------------


@each_type
def test_warm_starts_go_on(kind):
    rows, _ = groups(300, K=5, apart=4.0)
    whole = mixture(5, kind, init_params="random_from_data").fit(rows)
    parts = clone(whole).set_params(max_iter=3, warm_start=True)
    last = -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(5):
            parts.fit(rows)
            assert parts.elbo_ >= last - 1e-9 * abs(last)
            last = parts.elbo_
    parts.set_params(max_iter=500).fit(rows)
    assert parts.converged_
    # most of the rows: in other standard units, from the same posterior
    fewer = deepcopy(parts).fit(rows[:250])
    assert fewer.converged_ and fewer.score(rows) > parts.score(rows) - 0.05
    for changed in (
        {"n_components": 4},
        {"covariance_type": "full"},
        {"weight_concentration_prior_type": "dirichlet_distribution"},
    ):
        other = clone(parts).fit(rows).set_params(**changed)
        if other.get_params() != parts.get_params():
            with pytest.raises(ValueError, match="warm_start=False"):
                other.fit(rows)
    with pytest.raises(ValueError, match="features"):
        parts.fit(rows[:, :1])


@each_type
@each_emission
def test_partial_fit_follows_a_stream(kind, emission):
    rows, labels = groups(2_000)
    model = mixture(3, kind, emission=emission, init_params="auto")
    for block in np.array_split(np.arange(2_000), 10):
        model.partial_fit(rows[block])
    whole = mixture(3, kind, emission=emission).fit(rows)
    assert model.score(rows) > whole.score(rows) - 0.05
    assert adjusted_rand_score(labels, model.predict(rows)) > 0.99
    assert model.n_samples_seen_ == 2_000
    assert model.elbo_ == pytest.approx(whole.elbo_, rel=0.02)
    np.testing.assert_allclose(model.weights_.sum(), 1.0)
    # after a whole fit, and with entries missing
    whole.partial_fit(
        np.where(np.arange(600) % 7 == 0, np.nan, rows[:300].ravel()).reshape(300, 2)
    )
    assert whole.n_samples_seen_ == 2_300
    assert adjusted_rand_score(labels, whole.predict(rows)) > 0.99
    with pytest.raises(ValueError, match="n_components=2"):
        whole.set_params(n_components=2).partial_fit(rows)


# -- what a user is told ---------------------------------------------------------------


BAD = [
    ({"n_components": 0}, "'n_components'.*Got 0"),
    ({"n_components": 2.5}, "'n_components'.*Got 2.5"),
    ({"kind": "round"}, "'covariance_type'.*'round'"),
    ({"posterior": "exact"}, "'posterior'.*'exact'"),
    ({"emission": "poisson"}, "'emission'.*'poisson'"),
    ({"emission_dof": 0.0}, "'emission_dof'.*Got 0.0"),
    ({"weight_concentration_prior": -1.0}, "'weight_concentration_prior'.*Got -1.0"),
    ({"mean_precision_prior": 0.0}, "'mean_precision_prior'.*Got 0.0"),
    ({"n_init": 0}, "'n_init'.*Got 0"),
    ({"init_params": "best"}, "'init_params'.*'best'"),
    ({"moves": "split"}, "'moves'.*'split'"),
    ({"learning_decay": 0.5}, None),
    ({"learning_decay": 0.4}, "'learning_decay'.*Got 0.4"),
    ({"learning_offset": 0.5}, "'learning_offset'.*Got 0.5"),
    ({"tol": -1.0}, "'tol'.*Got -1.0"),
    ({"max_iter": 0}, "'max_iter'.*Got 0"),
    ({"mean_prior": [1.0]}, r"mean_prior has shape \(1,\).*\(2,\)"),
    ({"mean_prior": [1.0, np.nan]}, "mean_prior=.*must be finite"),
    ({"degrees_of_freedom_prior": 1.0}, "degrees_of_freedom_prior=1.0 must be greater"),
    ({"covariance_prior": [1.0]}, r"covariance_prior has shape \(1,\).*\(2, 2\)"),
    ({"covariance_prior": np.eye(3)}, r"covariance_prior has shape \(3, 3\).*\(2, 2\)"),
    ({"covariance_prior": [["a", "b"], ["c", "d"]]}, "covariance_prior has .*dtype"),
    ({"covariance_prior": [[1.0, 2.0], [0.0, 5.0]]}, "covariance_prior.*symmetric"),
    ({"covariance_prior": [[1.0, 2.0], [2.0, 1.0]]}, "covariance_prior.*definite; add"),
    ({"kind": "diag", "covariance_prior": [1.0, 0.0]}, "covariance_prior.*positive"),
    ({"kind": "diag", "covariance_prior": [1.0]}, r"covariance_prior has shape \(1,\)"),
    ({"kind": "spherical", "covariance_prior": -1.0}, "covariance_prior=.*positive"),
    (
        {"kind": "spherical", "covariance_prior": [1.0, 1.0]},
        "covariance_prior has shap",
    ),
]


@pytest.mark.parametrize(("params", "message"), [b for b in BAD if b[1]])
def test_parameters_that_make_no_sense(params, message):
    estimator = mixture(
        **{
            "K": params.get("n_components", 2),
            "kind": "full",
            **{k: v for k, v in params.items() if k != "n_components"},
        }
    )
    for method in (estimator.fit, estimator.partial_fit):
        with pytest.raises(ValueError, match=message):
            method(X)
    assert not hasattr(estimator, "means_")


def test_rows_that_make_no_sense():
    empty = X.copy()
    empty[:, 1] = np.nan
    for kind in TYPES:
        with pytest.raises(ValueError, match=r"Column\(s\) \[1\].*only NaN.*drop them"):
            mixture(2, kind).fit(empty)
    with pytest.raises(ValueError, match="infinity"):
        mixture(2).fit(np.where(X > 2.0, np.inf, X))
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        mixture(2).fit(X, sample_weight=-np.ones(len(X)))
    with pytest.raises(ValueError, match=r"[Ss]ample.weight"):
        mixture(2).fit(X, sample_weight=np.zeros(len(X)))
    with pytest.raises(ValueError, match="sample_weight"):
        mixture(2).fit(X, sample_weight=np.ones(3))
    with pytest.raises(ValueError, match="n_samples=0"):
        mixture(2).fit(X).sample(0)


def test_a_fit_that_stops_early_says_so_at_the_line_that_called_it():
    rows, _ = groups(300, K=6, apart=2.0)
    for call in ("fit", "fit_predict"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            getattr(mixture(6, max_iter=1), call)(rows)
        (warning,) = caught
        assert issubclass(warning.category, ConvergenceWarning)
        assert "max_iter=1" in str(warning.message)
        assert "warm_start=True" in str(warning.message)
        if call == "fit":
            assert warning.filename == __file__


def test_verbose_counts_iterations(capsys):
    mixture(3, verbose=True, emission="student_t").fit(X)
    out = capsys.readouterr().out
    assert "[VariationalGaussianMixture] iteration 0: elbo -" in out


# -- callbacks -------------------------------------------------------------------------


def test_callbacks_see_fits_and_stop_them():
    rows, _ = groups(300, K=6, apart=2.0)
    seen = []

    def enough(fitted):
        seen.append((fitted.n_iter_, fitted.elbo_, fitted.score(rows)))
        return len(seen) == 3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = mixture(6).set_callbacks(StopWhen(enough)).fit(rows)
    assert len(seen) == 3
    assert model.elbo_ == seen[-1][1]
    elbos = [elbo for _, elbo, _ in seen]
    assert elbos == sorted(elbos)


def test_callbacks_score_every_iteration():
    monitor = ScoringMonitor(scoring=None)
    model = mixture(3, emission="student_t").set_callbacks(monitor).fit(X)
    log = monitor.get_logs().data_as_pandas
    assert len(log) > 0 and model.converged_


def three_groups(n, dim):
    noise = np.random.default_rng(3).standard_normal((n, dim))
    return noise + 6.0 * (np.arange(n) % 3)[:, None]


def test_rows_with_patterns_of_their_own_are_read_as_others():
    X = three_groups(60, 3)
    X[np.random.default_rng(4).random(X.shape) < 0.3] = np.nan
    for kind in ("full", "tied"):
        for emission in ("gaussian", "student_t"):
            model = VariationalGaussianMixture(
                n_components=2, covariance_type=kind, emission=emission, random_state=0
            ).fit(X)
            rows = Rows(X, np.random.default_rng(5).random(len(X)), model._fitted_frame)
            found = []
            for geometry in (
                Patterns(3, kind == "tied"),
                Incomplete(3, kind == "tied"),
            ):
                part = model._fitted_model.with_geometry(geometry)
                q = MixturePosterior(
                    model._fitted_q.weights, model._fitted_q.components, geometry
                )
                found.append(part.statistics(q, (rows, slice(0, len(X)))))
            one, other = found
            assert one.entropy == pytest.approx(other.entropy, rel=1e-12)
            for name, value in one.values.items():
                np.testing.assert_allclose(value, other.values[name], rtol=1e-9)


@pytest.mark.parametrize("kind", ["full", "tied"])
@pytest.mark.parametrize("narrow", [1e-2, 1e-3, 3e-4])
def test_float32_does_not_cost_nearly_collinear_columns_their_digits(kind, narrow):
    z = np.random.default_rng(0).standard_normal((3, 3000))
    X = np.c_[z[0], z[0] + narrow * z[1], z[2]].astype(np.float32)
    params = {"n_components": 2, "covariance_type": kind, "random_state": 0}
    single = VariationalGaussianMixture(**params).fit(X)
    double = VariationalGaussianMixture(**params).fit(X.astype(np.float64))
    assert abs(single.elbo_ - double.elbo_) < 1e-3 * len(X)


def test_more_wrong_arguments_get_clear_errors():
    X = three_groups(40, 2)
    model = VariationalGaussianMixture(n_components=2, random_state=0).fit(X)
    law = model.conditional(X, [1])
    with pytest.raises(ValueError, match=r"values has shape \(40, 2\)"):
        law.log_density(X)
    assert law.log_density(X[:, 1]).shape == (40,)
    with pytest.raises(ValueError, match="probabilities"):
        law.quantile([2.0])
    with pytest.raises(ValueError, match="egative"):
        model.score(X, sample_weight=-np.ones(40))
    with pytest.raises(ValueError, match="Measure X in other units"):
        VariationalGaussianMixture().fit(X * 1e-300)
    one = VariationalGaussianMixture(covariance_prior=2.0).fit(X)
    np.testing.assert_array_equal(one.covariance_prior_, 2.0 * np.eye(2))


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("emission", ["gaussian", "student_t"])
def test_the_models_own_log_joint_gives_the_bound(kind, emission):
    X = three_groups(24, 2)
    fit = VariationalGaussianMixture(
        n_components=2, covariance_type=kind, emission=emission, random_state=0
    ).fit(X)
    frame, q, model = fit._fitted_frame, fit._fitted_q, fit._fitted_model
    rows, draw = Rows(X, None, frame), np.random.default_rng(1)
    z = q.sample(1500, draw)
    z.update(local.sample(model, q, rows, 1500, draw))
    log_q = q.log_density(z) + local.log_density(model, q, rows, z)
    samples = model.log_joint(z, frame.inward(X)) - log_q
    samples -= len(X) * np.log(frame.unit).sum()
    error = samples.std() / np.sqrt(len(samples))
    assert error < 0.1
    assert abs(samples.mean() - fit.elbo_) < 5 * error + 1e-6
    new, variables = model.sample_prior_predictive(7, draw)
    assert new.shape == (7, 2)
    assert np.isfinite(model.log_joint(variables, new)).all()
