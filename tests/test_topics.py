"""What is particular to VariationalTopicModel; the rest is the contract's."""

import itertools
import pickle
import tracemalloc
import warnings
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, sparse, special, stats
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

import twins
from cases import assignment_probabilities, cell_probabilities, tokens_of
from conftest import data_path
from skvi import VariationalTopicModel
from skvi.callbacks import ScoringMonitor, StopWhen
from skvi.kernels import dirichlet, documents
from skvi.models.topics.completion import halves
from skvi.models.topics.expectations import Laws
from skvi.models.topics.priors import maximum_likelihood, symmetric_maximum_likelihood

POSTERIORS = ("structured", "mean_field")
FORMS = {  # the two posteriors, one of them in two forms
    "structured": {"posterior": "structured"},
    "streaming": {"posterior": "structured", "memory_budget": 0.0},
    "mean_field": {"posterior": "mean_field"},
}
each_posterior = pytest.mark.parametrize("posterior", POSTERIORS)
each_form = pytest.mark.parametrize("form", FORMS)
each_dtype = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def topic_model(K=3, form="structured", **params):
    params = {"random_state": 0, **FORMS[form], **params}
    return VariationalTopicModel(n_components=K, **params)


def drawn_corpus(D=120, V=30, K=3, length=40, alpha=0.3, seed=0, sharp=True):
    """Counts, and the topics and proportions that they were drawn from."""
    rng = np.random.default_rng(seed)
    topics = rng.dirichlet(np.full(V, 0.5), size=K)
    if sharp:  # each topic has words that are mostly its own
        topics = 0.1 * topics + 0.9 * np.kron(np.eye(K), np.ones(V // K)) / (V // K)
    theta = rng.dirichlet(np.broadcast_to(alpha, K).astype(float), size=D)
    words = theta @ topics
    words /= words.sum(axis=1, keepdims=True)
    lengths = rng.poisson(length, size=D) if length > 1 else np.ones(D, dtype=int)
    X = np.array([rng.multinomial(n, p) for n, p in zip(lengths, words)], dtype=float)
    return X, topics, theta


X, TOPICS, THETA = drawn_corpus()
TINY = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]])


def quiet(estimator, *args, method="fit"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return getattr(estimator, method)(*args)


def tokens(rows, q):
    """Expected tokens of each topic in each document, (D, K)."""
    return np.einsum("dw,dwk->dk", rows, q)


def priors_of(model, n_words):
    """(alpha (K,), eta (K, V)) of a fit."""
    alpha = np.asarray(model.doc_topic_prior_)
    return alpha, np.broadcast_to(model.topic_word_prior_, (len(alpha), n_words))


# -- the bound, by sums over all assignments -------------------------------------------


def log_joint_of_assignments(X, alpha, eta):
    """All assignments (n, n_tokens), log p(w, z) and log p(z): the rest integrated."""
    document, word = tokens_of(X)
    K = len(alpha)
    every = np.array(list(itertools.product(range(K), repeat=len(word))))
    total = np.zeros(len(every))
    of_topic = every[:, :, None] == np.arange(K)  # (n, n_tokens, K)

    def rising(a, n):
        return special.gammaln(a + n) - special.gammaln(a)

    for d in range(len(X)):
        n = of_topic[:, document == d].sum(axis=1)
        total += rising(alpha, n).sum(axis=1)
        total -= rising(alpha.sum(), n.sum(axis=1))
    log_p_z = total.copy()
    for w in range(X.shape[1]):
        total += rising(eta[:, w], of_topic[:, word == w].sum(axis=1)).sum(axis=1)
    total -= rising(eta.sum(axis=1), of_topic.sum(axis=1)).sum(axis=1)
    return every, total, log_p_z


PRIORS = [
    {"doc_topic_prior": 0.5, "topic_word_prior": 0.5},
    {"doc_topic_prior": 0.01, "topic_word_prior": 0.001},
    {"doc_topic_prior": [0.2, 3.0], "topic_word_prior": [0.3, 2.0, 0.7]},
    {"doc_topic_prior": 20.0, "topic_word_prior": [[9.0, 1.0, 1.0], [0.1, 1.0, 2.0]]},
]


@each_form
@pytest.mark.parametrize("priors", PRIORS)
@pytest.mark.parametrize("shape", ["two documents", "one document", "short documents"])
def test_the_bound_is_that_of_all_assignments(form, priors, shape):
    rows = {
        "two documents": TINY,
        "one document": TINY[:1] + TINY[1:],
        "short documents": np.array([[1.0, 0, 0], [0, 0, 0], [0, 1, 1], [0, 0, 2]]),
    }[shape]
    start = {"components_init": [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]}
    model = quiet(topic_model(2, form, **priors, **start), rows)
    alpha, eta = priors_of(model, 3)
    every, log_p, log_p_z = log_joint_of_assignments(rows, alpha, eta)
    evidence = special.logsumexp(log_p)
    assert model.elbo_ <= evidence + 1e-9
    q = np.log(assignment_probabilities(model, rows))
    log_q = q[np.arange(q.shape[0]), every].sum(axis=1)
    if form != "mean_field":
        exact = np.exp(log_q) @ (log_p - log_q)
        assert model.elbo_ == pytest.approx(exact, abs=1e-6)
        terms = model.elbo_terms_
        assert terms["log_prior"] == pytest.approx(np.exp(log_q) @ log_p_z, abs=1e-6)
        assert terms["entropy"] == pytest.approx(-np.exp(log_q) @ log_q, abs=1e-6)
    else:
        # theta and phi are not integrated out, so there is more to lose.
        assert model.elbo_ <= np.exp(log_q) @ (log_p - log_q) + 1e-9


@pytest.mark.parametrize("priors", PRIORS)
def test_twins_of_the_bound_agree_with_all_assignments(priors):
    alpha = np.broadcast_to(priors["doc_topic_prior"], 2).astype(float)
    eta = np.broadcast_to(priors["topic_word_prior"], (2, 3)).astype(float)
    every, log_p, _ = log_joint_of_assignments(TINY, alpha, eta)
    r = np.random.default_rng(0).dirichlet([1.0, 1.0], size=TINY.shape)
    r *= (TINY > 0)[..., None]
    log_q = np.log(r[tokens_of(TINY)])[np.arange(every.shape[1]), every].sum(axis=1)
    exact = np.exp(log_q) @ (log_p - log_q)
    assert twins.collapsed_bound(TINY, r, alpha, eta) == pytest.approx(exact)


@each_form
@pytest.mark.parametrize(
    "priors",
    [
        {},
        {"doc_topic_prior": [0.1, 0.5, 2.0], "topic_word_prior": 0.05},
        {"doc_topic_prior": "auto", "topic_word_prior": "auto"},
    ],
)
@each_dtype
def test_the_bound_is_its_twin(form, priors, dtype):
    rows = X[:7]
    model = quiet(topic_model(3, form, max_iter=20, **priors), rows.astype(dtype))
    alpha, eta = priors_of(model, rows.shape[1])
    q = cell_probabilities(model, rows.astype(dtype))
    if form == "mean_field":
        expected = twins.mean_field_bound(
            rows,
            q,
            alpha + tokens(rows, q),
            model.topic_word_.concentration,
            alpha,
            eta,
        )
    else:
        expected = twins.collapsed_bound(rows, q, alpha, eta)
    tolerance = 1e-8 if dtype == np.float64 else 1e-6
    assert model.elbo_ == pytest.approx(expected, rel=tolerance)


@each_form
@pytest.mark.parametrize("eta", [0.01, 1.0, "array"])
def test_one_topic_has_the_exact_evidence(form, eta):
    if eta == "array":
        eta = np.linspace(0.1, 2.0, 30)
    model = topic_model(1, form, topic_word_prior=eta, doc_topic_prior=0.3).fit(X)
    eta, n = np.broadcast_to(eta, 30).astype(float), X.sum(axis=0)
    evidence = special.gammaln(eta.sum()) - special.gammaln(eta.sum() + n.sum())
    evidence += np.sum(special.gammaln(eta + n) - special.gammaln(eta))
    assert model.elbo_ == pytest.approx(evidence, rel=1e-9)
    assert model.converged_
    np.testing.assert_array_equal(model.transform(X), np.ones((len(X), 1)))
    mean = (eta + n) / np.sum(eta + n)
    np.testing.assert_allclose(model.components_, [mean], rtol=1e-9)
    std = np.sqrt(mean * (1 - mean) / (np.sum(eta + n) + 1.0))
    np.testing.assert_allclose(model.components_std_, [std], rtol=1e-6)


@pytest.mark.parametrize("budget", [128.0, 0.0])
def test_structured_climbs_from_mean_field(budget):
    small = topic_model(4, "mean_field").fit(X)
    large = deepcopy(small).set_params(
        posterior="structured", warm_start=True, memory_budget=budget
    )
    large.fit(X)
    assert large.elbo_ >= small.elbo_
    assert large.assignments_ == ("stored" if budget else "streaming")


def test_the_number_of_topics_is_found():
    rows, _, _ = drawn_corpus(200, 60, 4, 60, 0.2)
    for form in FORMS:
        best = [topic_model(K, form, n_init=2).fit(rows).elbo_ for K in (2, 3, 4, 5, 8)]
        assert np.argmax(best) in (1, 2, 3)


# -- counts that are sums of binomials -------------------------------------------------


def laws():
    """(counts, probabilities) of sums of binomials that differ in every respect."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 30, 300, 2_000):
        counts = rng.integers(1, 4, size=n)
        for name, p in {
            "tiny": np.full(n, 1e-9),
            "sure": np.full(n, 1.0 - 1e-9),
            "mixed": rng.choice([1e-9, 1e-3, 0.5, 1.0 - 1e-9], size=n),
            "spread": 10.0 ** rng.uniform(-9.0, 0.0, size=n),
            "sparse": rng.beta(0.1, 1.0, size=n).clip(1e-9, 1.0 - 1e-9),
            "half": np.full(n, 0.5),
        }.items():
            yield pytest.param(counts, p, id=f"{name}-{n}")


A = np.array([0.001, 0.01, 0.1, 1.0, 7.0, 50.0])
each_law = pytest.mark.parametrize(("counts", "probabilities"), list(laws()))


def laws_of(counts, probabilities, dtype=np.float64):
    """One group, with the same probabilities for every a in A."""
    shares = np.repeat(probabilities[:, None], len(A), axis=1).astype(dtype)
    return Laws([0, len(counts)], counts, np.ascontiguousarray(shares))


@each_law
def test_expectations_over_counts_are_exact(counts, probabilities):
    value, slope = laws_of(counts, probabilities).expect(A[None])
    law = twins.law_of_count(counts, probabilities)
    n = np.arange(len(law))[:, None]
    tolerance = 3e-8 * (1.0 + counts @ probabilities)
    exact = law @ (special.gammaln(A + n) - special.gammaln(A))
    np.testing.assert_allclose(value, exact, rtol=0.0, atol=tolerance)
    exact = law @ (special.digamma(A + n) - special.digamma(A))
    np.testing.assert_allclose(slope, exact, rtol=0.0, atol=tolerance)


@each_law
def test_expectations_without_one_token_are_exact(counts, probabilities):
    out = np.zeros((len(counts), len(A)))
    laws_of(counts, probabilities).add_log_counts(A[None], out)
    extremes = np.argmin(probabilities), np.argmax(probabilities), len(counts) - 1
    for i in set(extremes):
        left = counts.copy()
        left[i] -= 1
        law = twins.law_of_count(left, probabilities)
        exact = law @ np.log(A + np.arange(len(law))[:, None])
        tolerance = 3e-8 * (1.0 + left @ probabilities)
        np.testing.assert_allclose(out[i], exact, rtol=0.0, atol=tolerance)


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.9])
@pytest.mark.parametrize("n", [1, 30, 150, 1_000])
def test_expectations_of_large_priors(n, p):
    """As V eta is for topics, and learnt priors of documents that are alike."""
    a = np.array([100.0, 1e3, 1e4, 1e5])
    laws = Laws([0, n], np.ones(n), np.full((n, 4), p))
    value, slope = laws.expect(a[None])
    out = np.zeros((n, 4))
    laws.add_log_counts(a[None], out)
    count = np.arange(n + 1)[:, None]
    law = stats.binom.pmf(count[:, 0], n, p)
    exact = law @ (special.gammaln(a + count) - special.gammaln(a))
    np.testing.assert_allclose(value, exact, rtol=0.0, atol=3e-8 * (1.0 + n * p))
    exact = law @ (special.digamma(a + count) - special.digamma(a))
    np.testing.assert_allclose(slope, exact, rtol=0.0, atol=3e-8)
    exact = stats.binom.pmf(count[:-1, 0], n - 1, p) @ np.log(a + count[:-1])
    np.testing.assert_allclose(out[0], exact, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize(("n", "p"), [(12_000, 0.9), (200_000, 0.1), (30_000, 1.0)])
def test_expectations_of_huge_counts(n, p):
    a = np.array([0.001, 1.0, 100.0, 1e4])
    laws = Laws([0, 2], [n - 7, 7], np.full((2, 4), p))
    value, slope = laws.expect(a[None])
    out = np.zeros((2, 4))
    laws.add_log_counts(a[None], out)
    count = np.arange(n + 1)[:, None]
    law = stats.binom.pmf(count[:, 0], n, p)
    exact = law @ (special.gammaln(a + count) - special.gammaln(a))
    np.testing.assert_allclose(value, exact, rtol=0.0, atol=1e-8 * n * p)
    exact = law @ (special.digamma(a + count) - special.digamma(a))
    np.testing.assert_allclose(slope, exact, rtol=0.0, atol=1e-8)
    exact = stats.binom.pmf(count[:-1, 0], n - 1, p) @ np.log(a + count[:-1])
    np.testing.assert_allclose(out, [exact, exact], rtol=0.0, atol=1e-6)


def test_groups_of_cells_add_up():
    rng = np.random.default_rng(0)
    sizes = np.array([3, 0, 1, 40])
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    tokens = rng.integers(1, 5, size=44)
    shares = rng.dirichlet(np.full(len(A), 0.2), size=44).clip(1e-30)
    prior = rng.gamma(1.0, size=(4, len(A)))
    whole = Laws(indptr, tokens, shares)
    value, slope = whole.expect(prior)
    out, total = np.zeros(shares.shape), np.zeros((2, len(A)))
    whole.add_log_counts(prior, out, sign=-1.0)
    for g in range(4):
        cells = slice(indptr[g], indptr[g + 1])
        part = Laws([0, sizes[g]], tokens[cells], shares[cells])
        total += part.expect(prior[g : g + 1])
        each = np.zeros((sizes[g], len(A)))
        part.add_log_counts(prior[g : g + 1], each)
        np.testing.assert_allclose(-out[cells], each, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose([value, slope], total, rtol=1e-12)
    entropy = np.sum(tokens[:, None] * twins.negative_xlogx(shares))
    assert whole.entropy == pytest.approx(entropy, rel=1e-12)


@each_dtype
def test_a_token_that_is_sure_of_its_topic_is_no_special_case(dtype):
    """Shares of exactly 1 and 0, as float32 makes them."""
    for counts in ([1], [1, 1], [3, 2], [1, 4, 1]):
        counts = np.array(counts)
        for p in itertools.product([0.0, 1e-30, 0.3, 1.0], repeat=len(counts)):
            p = np.array(p, dtype=dtype)
            laws = laws_of(counts, p, dtype)
            value, slope = laws.expect(A[None])
            law = twins.law_of_count(counts, p.astype(float))
            n = np.arange(len(law))[:, None]
            exact = law @ (special.gammaln(A + n) - special.gammaln(A))
            np.testing.assert_allclose(value, exact, rtol=0.0, atol=1e-7)
            exact = law @ (special.digamma(A + n) - special.digamma(A))
            np.testing.assert_allclose(slope, exact, rtol=1e-7, atol=1e-7)
            out = np.zeros((len(counts), len(A)))
            laws.add_log_counts(A[None], out)
            for i in range(len(counts)):
                left = counts.copy()
                left[i] -= 1
                law = twins.law_of_count(left, p.astype(float))
                exact = law @ np.log(A + np.arange(len(law))[:, None])
                np.testing.assert_allclose(out[i], exact, rtol=0.0, atol=1e-7)


# -- kernels ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reference", "x"),
    [
        ("digamma", special.digamma, np.logspace(-100, 100, 2_001)),
        ("gammaln", special.gammaln, np.logspace(-100, 100, 2_001)),
        ("gammaln", special.gammaln, np.linspace(0.5, 20.0, 2_001)),
        ("log", np.log, np.logspace(-300, 300, 2_001)),
        ("exp", np.exp, np.linspace(-690.0, 690.0, 2_001)),
        ("exp", np.exp, np.linspace(-1e-3, 1e-3, 2_001)),
    ],
)
def test_elementary_functions(name, reference, x):
    out = np.empty_like(x)
    getattr(dirichlet, name)(x, out)
    np.testing.assert_allclose(out, reference(x), rtol=5e-14, atol=2e-14)


def block_of(rows, K, dtype, seed=0):
    """Arguments of the document kernels: cells, topics and where documents start."""
    rng = np.random.default_rng(seed)
    csr = sparse.csr_array(rows)
    csr.sort_indices()
    cells = csr.indptr.astype(np.int32), csr.indices.astype(np.int32)
    cells = *cells, csr.data.astype(dtype)
    topics = rng.gamma(0.3, size=(rows.shape[1], K)) + 1e-4
    start = 0.1 + rng.gamma(1.0, size=(len(rows), K))
    return cells, topics.astype(dtype), start


WITH_EMPTY = np.concatenate([X[:7], np.zeros((1, 30)), X[7:9]])
SINGLE, DOUBLE = {"rtol": 2e-4, "atol": 1e-4}, {"rtol": 1e-10, "atol": 1e-12}


def closeness(dtype):
    return SINGLE if dtype == np.float32 else DOUBLE


@each_dtype
@pytest.mark.parametrize(("max_iter", "tol"), [(1, 0.0), (2, 0.0), (5, 0.0), (50, 0.1)])
@pytest.mark.parametrize(("K", "width"), [(1, 1), (3, 3), (3, 8), (17, 24)])
def test_mean_field_kernel_is_its_twin(dtype, max_iter, tol, K, width):
    cells, topics, start = block_of(WITH_EMPTY, K, dtype)
    prior = np.linspace(0.1, 0.5, K)
    n_docs, n_words = WITH_EMPTY.shape
    wide = np.pad(topics, ((0, 0), (0, width - K)))
    got, assigned = start.copy(), np.zeros((n_words, width))
    terms = np.empty((n_docs, 2))
    work = np.empty(K), np.empty((2, width), dtype)
    n_iter = documents.mean_field(
        *cells, wide, prior, got, max_iter, tol, 1e-30, assigned, terms, *work
    )
    expected = twins.documents_mean_field(
        WITH_EMPTY, topics.astype(float), prior, start, max_iter, tol
    )
    assert np.all(assigned[:, K:] == 0.0)
    for a, b in zip((got, assigned[:, :K], terms), expected):
        np.testing.assert_allclose(a, b, **closeness(dtype))
    assert n_iter == expected[-1] or K == 1
    assert assigned.sum() == pytest.approx(WITH_EMPTY.sum(), rel=1e-6)


@each_dtype
@pytest.mark.parametrize(("max_iter", "tol"), [(1, 0.0), (2, 0.0), (5, 0.0), (50, 0.1)])
@pytest.mark.parametrize(("K", "width"), [(1, 1), (3, 3), (3, 8), (17, 24)])
def test_tied_kernel_is_its_twin(dtype, max_iter, tol, K, width):
    cells, topics, start = block_of(WITH_EMPTY, K, dtype)
    prior = np.linspace(0.1, 0.5, K)
    wide, got = np.pad(topics, ((0, 0), (0, width - K))), start.copy()
    assigned, squares = sums = np.zeros((2, WITH_EMPTY.shape[1], width))
    by_document, work = np.empty((2, *start.shape)), np.empty((3, width), dtype)
    documents.tied(
        *cells, wide, prior, got, max_iter, tol, assigned, squares, by_document, work
    )
    expected = twins.documents_tied(
        WITH_EMPTY, topics.astype(float), prior, start, max_iter, tol
    )
    assert np.all(sums[..., K:] == 0.0)
    for a, b in zip((got, *sums[..., :K], by_document), expected):
        np.testing.assert_allclose(a, b, **closeness(dtype))


def shares_and_counts(rows, K, alpha, eta):
    """q(z) of cells (D, V, K), and expected counts with the priors in them."""
    q = np.random.default_rng(1).dirichlet(np.full(K, 0.5), size=rows.shape)
    q *= (rows > 0)[..., None]
    weighted = rows[..., None] * q
    return q, alpha + weighted.sum(axis=1), eta + weighted.sum(axis=0)


@each_dtype
@pytest.mark.parametrize("K", [1, 3, 17])
def test_sweep_kernel_is_its_twin(dtype, K):
    cells, _, _ = block_of(WITH_EMPTY, K, dtype)
    q, of_documents, of_words = shares_and_counts(WITH_EMPTY, K, 0.2, 0.1)
    inverse_total = 1.0 / of_words.sum(axis=0)
    used = tuple(np.nonzero(WITH_EMPTY))
    got = [value.astype(dtype) for value in (of_words, of_documents, q[used])]
    documents.sweep(*cells, inverse_total.astype(dtype), *got, np.empty(K, dtype))
    twins.documents_sweep(WITH_EMPTY, inverse_total, of_words, of_documents, q)
    for a, b in zip(got, (of_words, of_documents, q[used])):
        np.testing.assert_allclose(a, b, **closeness(dtype))


# -- learnt priors ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "alpha", [[1.0, 1.0], [0.01, 0.5, 3.0], [20.0, 50.0, 1.0], [0.003, 0.002], [900.0]]
)
@pytest.mark.parametrize("start", [1e-3, 1.0, 1e3])
def test_maximum_likelihood_finds_a_dirichlet_again(alpha, start):
    alpha = np.array(alpha)
    mean_log = special.digamma(alpha) - special.digamma(alpha.sum())
    found = maximum_likelihood(mean_log, np.full(len(alpha), start))
    if len(alpha) > 1:
        np.testing.assert_allclose(found, alpha, rtol=1e-5)
    value = special.digamma(0.07) - special.digamma(50 * 0.07)
    found = symmetric_maximum_likelihood(value, 50, start)
    assert found == pytest.approx(0.07, rel=1e-5)


@each_form
def test_an_asymmetric_prior_is_learnt(form):
    """Topics have words of their own, so counts of topics are known: all but exactly,
    the bound is the likelihood of alpha, a product of Dirichlet-multinomials.
    """
    alpha = np.array([1.2, 0.4, 0.15])
    topics = np.kron(np.eye(3), np.full(10, 0.1))
    rng = np.random.default_rng(0)
    theta = rng.dirichlet(alpha, size=400)
    rows = np.array([rng.multinomial(60, p) for p in theta @ topics], dtype=float)
    start = {"components_init": topics, "topic_word_prior": 0.01}
    model = topic_model(3, form, doc_topic_prior="auto", **start).fit(rows)
    n = rows.reshape(400, 3, 10).sum(axis=2)

    def loss(log_alpha):
        a = np.exp(log_alpha)
        return -stats.dirichlet_multinomial.logpmf(n, a, 60).sum()

    best = np.exp(optimize.minimize(loss, np.zeros(3), tol=1e-10).x)
    np.testing.assert_allclose(best, alpha, rtol=0.25)
    np.testing.assert_allclose(model.doc_topic_prior_, best, rtol=0.1)
    symmetric = topic_model(3, form, **start).fit(rows)
    assert model.elbo_ > symmetric.elbo_ + 10.0


@each_form
def test_the_bound_is_stationary_in_learnt_priors(form):
    rows = X[:8]
    learnt = {"doc_topic_prior": "auto", "topic_word_prior": "auto"}
    model = topic_model(3, form, tol=1e-9, max_iter=5_000, **learnt).fit(rows)
    alpha, eta = priors_of(model, rows.shape[1])
    q = cell_probabilities(model, rows)
    laws = ()
    if form == "mean_field":
        laws = alpha + tokens(rows, q), model.topic_word_.concentration
    bound = twins.mean_field_bound if form == "mean_field" else twins.collapsed_bound

    def slope(k):
        step = 1e-3

        def at(move):
            moved = np.append(alpha, 1.0)
            moved[k] *= np.exp(move)
            return bound(rows, q, *laws, moved[:-1], eta * moved[-1])

        return (at(step) - at(-step)) / (2.0 * step)

    assert model.elbo_ == pytest.approx(bound(rows, q, *laws, alpha, eta), rel=1e-8)
    for k in range(4):
        assert abs(slope(k)) < 0.05


def test_a_topic_without_tokens_learns_its_prior():
    rows = np.array([[0, 0], [1, 1], [0, 0], [0, 1], [0, 3], [0, 0], [0, 0]], float)
    params = {"doc_topic_prior": "auto", "topic_word_prior": 4e-4, "tol": 1e-7}
    small = quiet(topic_model(5, "mean_field", max_iter=60, **params), rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        large = deepcopy(small).set_params(posterior="structured", warm_start=True)
        large.set_params(max_iter=5_000).fit(rows)
    assert large.elbo_ >= small.elbo_
    assert np.all(np.isfinite(large.doc_topic_prior_) & (large.doc_topic_prior_ > 0.0))


# -- what may come as X ----------------------------------------------------------------


@each_form
@each_dtype
def test_every_way_of_writing_counts_is_the_same(form, dtype):
    model = topic_model(3, form, tol=1e-4).fit(X.astype(dtype))
    theta = model.transform(X.astype(dtype))
    assert theta.dtype == dtype
    csr = sparse.csr_array(X.astype(dtype))
    rows = csr.tocoo()
    rng = np.random.default_rng(0)
    order = rng.permutation(rows.nnz)
    half = np.floor(rows.data / 2.0)
    entries = np.concatenate([(rows.data - half)[order], half])
    where = [np.concatenate([axis[order], axis]) for axis in rows.coords]
    # unsorted, with duplicates (half of them zeros)
    twice = sparse.coo_array((entries, where), shape=X.shape)
    unsorted = sparse.csr_array(X.shape, dtype=dtype)
    by_row = np.argsort(where[0], kind="stable")
    unsorted = sparse.csr_array(
        (
            entries[by_row],
            where[1][by_row],
            np.concatenate([[0], np.cumsum(np.bincount(where[0], minlength=len(X)))]),
        ),
        shape=X.shape,
    )
    before = unsorted.copy()
    for other in (
        csr,
        csr.tocsc(),
        sparse.csr_matrix(csr),
        twice,
        unsorted,
        np.asfortranarray(X.astype(dtype)),
        pd.DataFrame(X.astype(dtype)),
        X.astype(np.float64 if dtype == np.float64 else np.float32).tolist()
        if dtype == np.float64
        else csr,
    ):
        same = clone(model).fit(other)
        assert same.elbo_ == model.elbo_
        np.testing.assert_array_equal(same.components_, model.components_)
        np.testing.assert_allclose(same.transform(other), theta, rtol=2e-7)
        assert same.score(other) == model.score(X.astype(dtype))
    # X is the caller's
    assert unsorted.nnz == before.nnz
    np.testing.assert_array_equal(unsorted.indices, before.indices)
    np.testing.assert_array_equal(unsorted.data, before.data)


@each_form
def test_whole_numbers_are_numbers(form):
    model = topic_model(3, form, tol=1e-4).fit(X)
    for dtype in (np.int32, np.int64, np.uint8):
        same = clone(model).fit(X.astype(dtype))
        assert same.elbo_ == model.elbo_
        sparse_same = clone(model).fit(sparse.csr_array(X.astype(dtype)))
        assert sparse_same.elbo_ == model.elbo_


@each_form
def test_empty_documents_give_the_prior(form):
    alpha = np.array([0.2, 0.5, 1.3])
    rows = np.concatenate([X, np.zeros((2, 30))])
    start = {"components_init": TOPICS, "doc_topic_prior": alpha}
    without = topic_model(3, form, **start).fit(X)
    model = topic_model(3, form, **start).fit(rows)
    np.testing.assert_allclose(model.transform(rows)[-2:], [alpha / alpha.sum()] * 2)
    law = model.doc_topic_posterior(rows[-1:])
    np.testing.assert_allclose(law.concentration, [alpha])
    assert model.elbo_ == pytest.approx(without.elbo_, rel=1e-10)
    np.testing.assert_allclose(model.components_, without.components_, rtol=1e-9)
    assert model.score(rows) == pytest.approx(model.score(X), rel=1e-12)
    assert model.perplexity(rows, method="elbo") == pytest.approx(
        model.perplexity(X, method="elbo"), rel=1e-9
    )
    assert model.responsibilities(rows[-1]).shape == (0, 3)


@each_form
def test_a_word_that_no_document_has_keeps_its_prior(form):
    rows = np.c_[X, np.zeros(len(X))]
    model = topic_model(3, form, topic_word_prior=0.2).fit(rows)
    total = 31 * 0.2 * 3 + X.sum()
    size = 0.2 / model.components_[:, -1]  # E phi = eta / total where nothing is known
    assert size.sum() == pytest.approx(total, rel=1e-3)
    assert np.all(np.isfinite(model.components_std_)) and np.isfinite(model.elbo_)


@each_form
def test_more_topics_than_documents_or_words(form):
    learnt = {"doc_topic_prior": "auto", "topic_word_prior": "auto"}
    every = X[:2], X[:1], X[:, :1], TINY, np.array([[3.0]])
    for rows, params in itertools.product(every, ({}, learnt)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = topic_model(8, form, **params, max_iter=5_000).fit(rows)
            intervals = model.topic_word_.interval(0.9)
        assert np.all((intervals >= 0.0) & (intervals <= 1.0 + 1e-12))
        assert model.converged_ and np.isfinite(model.elbo_)
        np.testing.assert_allclose(model.components_.sum(axis=1), 1.0)
        np.testing.assert_allclose(model.transform(rows).sum(axis=1), 1.0)
        assert np.isfinite(model.perplexity(rows, method="elbo"))


@each_form
@each_dtype
@pytest.mark.parametrize("eta", [0.01, 0.1])
def test_no_token_is_lost(form, dtype, eta):
    """Half of the words occur once: exp E log phi of these spans hundreds of nats."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([drawn_corpus(60, 30, 3, 30)[0], np.zeros((60, 200))], axis=1)
    rows[rng.integers(0, 60, 200), 30 + np.arange(200)] = 1.0
    model = topic_model(12, form, topic_word_prior=eta, max_iter=60)
    quiet(model, rows.astype(dtype))
    counts = expected_word_counts(model)
    np.testing.assert_allclose(counts.sum(axis=0), rows.sum(axis=0), rtol=1e-5)
    assert counts.sum() == pytest.approx(rows.sum(), rel=1e-6)
    assert np.all(counts >= -1e-6)
    if form == "mean_field":
        a = model.doc_topic_posterior(rows.astype(dtype)).concentration
        n = a.sum(axis=1) - model.doc_topic_prior_.sum()
        np.testing.assert_allclose(n, rows.sum(axis=1), rtol=1e-5)


def expected_word_counts(model):
    """E n_kw of a fit, (K, V)."""
    return model._fitted_q.expected_counts().mean.T


# -- proportions, scores and perplexity ------------------------------------------------


@each_form
def test_proportions_are_those_of_their_law(form):
    model = topic_model(3, form).fit(X)
    theta = model.transform(X)
    np.testing.assert_allclose(theta.sum(axis=1), 1.0, rtol=1e-12)
    law = model.doc_topic_posterior(X)
    np.testing.assert_allclose(law.mean, theta, rtol=1e-12)
    a = law.concentration
    np.testing.assert_allclose(law.mean, a / a.sum(axis=1, keepdims=True))
    interval = law.interval(0.8)
    assert interval.shape == (len(X), 3, 2)
    exact = stats.beta(a, a.sum(axis=1, keepdims=True) - a).interval(0.8)
    np.testing.assert_allclose(interval, np.stack(exact, axis=-1), atol=1e-9)
    # what they were drawn from, by the best match of topics
    order = matched(model.components_, TOPICS)
    assert np.mean(np.abs(theta[:, order] - THETA)) < 0.08
    # one document at a time, and in any order
    for d in (0, 5, 17):
        np.testing.assert_allclose(
            model.transform(X[d : d + 1])[0], theta[d], atol=2e-4
        )
    np.testing.assert_array_equal(clone(model).fit_transform(X).shape, theta.shape)


def matched(components, topics):
    """Index of the component that is nearest to each topic."""
    order = [int(np.argmin(np.abs(components - t).sum(axis=1))) for t in topics]
    assert sorted(order) == list(range(len(topics)))
    return order


@each_form
def test_topics_are_found(form):
    rows, topics, _ = drawn_corpus(400, 30, 3, 80)
    model = topic_model(3, form, n_init=2).fit(rows)
    order = matched(model.components_, topics)
    assert np.max(np.abs(model.components_[order] - topics).sum(axis=1)) < 0.15


@each_form
def test_a_score_is_a_matter_of_one_document(form):
    model = topic_model(3, form).fit(X)
    before = pickle.dumps(model)
    new = drawn_corpus(seed=0, D=130)[0][120:]
    alone = np.array([model.score(row[None]) for row in new])
    assert np.all(np.isfinite(alone)) and np.all(alone < 0.0)
    both = model.score(new[:2])
    assert min(alone[:2]) <= both <= max(alone[:2])
    # the weights of documents in the score of several: whole tokens
    share = (both - alone[1]) / (alone[0] - alone[1])
    lengths = new[:2].sum(axis=1)
    assert share == pytest.approx(lengths[0] / lengths.sum(), abs=0.03)
    many = np.concatenate([new] * 3)
    assert model.score(many) == pytest.approx(model.score(new), rel=1e-12)
    assert model.score(new[::-1]) == pytest.approx(model.score(new), rel=1e-12)
    for d, row in enumerate(new):
        assert model.perplexity(row[None]) == pytest.approx(np.exp(-alone[d]))
        one = model.perplexity(row[None], method="elbo")
        assert 1.0 < one < 1e4
        twice = model.perplexity(np.tile(row, (5, 1)), method="elbo")
        assert one == pytest.approx(twice, rel=1e-9)
    assert pickle.dumps(model) == before


@each_form
def test_scores_are_predictive(form):
    """Better than word frequencies, and no better than the truth, in nats a token."""
    rows, topics, theta = drawn_corpus(400, 30, 3, 60, 0.1)
    model = topic_model(3, form, n_init=2).fit(rows[:300])
    new = rows[300:]
    frequency = (rows[:300].sum(axis=0) + 0.5) / (rows[:300].sum() + 15.0)
    plain = np.sum(new @ np.log(frequency)) / new.sum()
    truth = np.sum(new * np.log(theta[300:] @ topics)) / new.sum()
    assert plain + 0.3 < model.score(new) < truth + 0.02
    assert model.score(new) > truth - 0.1
    assert model.perplexity(new) == pytest.approx(np.exp(-model.score(new)))
    # of the bound: that of theta, too, is paid for
    assert model.perplexity(new) < model.perplexity(new, method="elbo")
    assert model.perplexity(new, method="elbo") < np.exp(-plain)
    with pytest.raises(ValueError, match="method"):
        model.perplexity(new, method="sampling")


@each_form
def test_the_perplexity_of_the_bound_is_that_of_its_twin(form):
    model = topic_model(3, form, tol=1e-6).fit(X)
    new = drawn_corpus(seed=0, D=130)[0][120:]
    alpha, _ = priors_of(model, X.shape[1])
    if form == "mean_field":
        q = cell_probabilities(model, new)
        # the topics are held: their own part of the bound is none
        laws = alpha + tokens(new, q), model.topic_word_.concentration
        expected = twins.mean_field_bound(new, q, *laws, alpha, laws[1])
    else:
        q = responsibilities(model, new)
        energy = q * np.log(model.components_.T) + twins.negative_xlogx(q)
        expected = np.sum(new[..., None] * energy)
        for row, r in zip(new, q):
            n = row.sum()
            expected -= special.gammaln(alpha.sum() + n) - special.gammaln(alpha.sum())
            for k in range(3):
                expected += twins.log_rising(alpha[k], row.astype(int), r[:, k])
    found = -np.log(model.perplexity(new, method="elbo")) * new.sum()
    # E phi of structured is right to second order only
    assert found == pytest.approx(expected, rel=1e-5)


def responsibilities(model, rows):
    """q(z) of the cells of documents, one by one: (D, V, K), zero where no word is."""
    q = np.zeros((*rows.shape, model.n_components))
    for d, row in enumerate(rows):
        q[d, row > 0] = model.responsibilities(row)
    return q


@pytest.mark.parametrize("form", ["structured", "streaming"])
def test_proportions_of_structured_have_exact_moments(form):
    """theta given z is a Dirichlet, and a document's number of tokens is known."""
    alpha = np.array([0.2, 0.5, 1.3])
    model = topic_model(3, form, doc_topic_prior=alpha).fit(X)
    rows = X[:20]
    q = responsibilities(model, rows)
    total = alpha.sum() + rows.sum(axis=1)[:, None]
    mean = (alpha + tokens(rows, q)) / total
    between = tokens(rows, q * (1.0 - q)) / (total * (total + 1.0))
    variance = mean * (1.0 - mean) / (total + 1.0) + between
    law = model.doc_topic_posterior(rows)
    np.testing.assert_allclose(law.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(
        law.variance().sum(axis=1), variance.sum(axis=1), rtol=1e-5
    )
    # of draws, too, and of each: a Dirichlet has one number for all of them
    rng = np.random.default_rng(0)
    for row, r, m, v in zip(rows[:3], q, mean, variance):
        counts = sum(rng.multinomial(int(c), p, size=20_000) for c, p in zip(row, r))
        theta = rng.standard_gamma(alpha + counts)
        theta /= theta.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(theta.mean(axis=0), m, atol=0.003)
        np.testing.assert_allclose(theta.var(axis=0), v, rtol=0.06)


@each_form
def test_a_score_is_of_tokens_that_were_not_seen(form):
    model = topic_model(3, form).fit(X)
    new = drawn_corpus(seed=0, D=130)[0][120:]
    new[3] = 0.0
    new[4] = np.eye(30)[7]
    observed, hidden = (half.toarray() for half in halves(sparse.csr_array(new)))
    np.testing.assert_array_equal(observed + hidden, new)
    np.testing.assert_allclose(hidden, np.abs(np.round(hidden)), rtol=1e-12)
    np.testing.assert_allclose(hidden.sum(axis=1), new.sum(axis=1) // 2)
    # every token as often as any other: of all that could be hidden, about half
    many = halves(sparse.csr_array(X))[1].toarray()
    np.testing.assert_allclose(many.sum(axis=0) / X.sum(axis=0), 0.5, atol=0.15)
    p = model.transform(observed) @ model.components_
    naive = np.sum(hidden * np.log(p)) / hidden.sum()
    assert model.score(new) == pytest.approx(naive, rel=1e-9)
    assert model.score(sparse.csc_array(new[::-1])) == pytest.approx(naive, rel=1e-9)


# -- words -----------------------------------------------------------------------------


def naive_coherence(X, words):
    """Mean NPMI over pairs of words, by the documents that have both."""
    present = X > 0
    total = []
    for i, j in itertools.combinations(words, 2):
        a, b = present[:, i].mean(), present[:, j].mean()
        both = np.mean(present[:, i] & present[:, j])
        if both == 0.0:
            total.append(-1.0)
        elif both == 1.0:
            total.append(1.0)
        else:
            total.append(np.log(both / (a * b)) / -np.log(both))
    return np.mean(total)


@each_posterior
def test_words_of_topics(posterior):
    names = [f"word{w}" for w in range(30)]
    frame = pd.DataFrame(X, columns=names)
    model, named = topic_model(3, posterior).fit(X), topic_model(3, posterior)
    named.fit(frame)
    order = np.argsort(-model.components_, axis=1, kind="stable")
    top = model.top_words(5)
    assert len(top) == 3 and all(len(words) == 5 for words in top)
    assert [[int(w) for w in words] for words in top] == order[:, :5].tolist()
    expected = [[names[w] for w in row] for row in order[:, :4]]
    assert named.top_words(4) == expected
    assert model.top_words(4, feature_names=names) == expected
    assert model.top_words(4, feature_names=np.array(names)) == expected
    assert [len(words) for words in model.top_words(100)] == [30] * 3
    assert model.top_words()[0] == model.top_words(10)[0]
    with pytest.raises(ValueError, match="feature_names"):
        model.top_words(4, feature_names=names[:-1])
    with pytest.raises(ValueError, match="n=0"):
        model.top_words(0)


@each_posterior
def test_topics_are_columns_with_names(posterior):
    model = topic_model(3, posterior).fit(X)
    names = [f"variationaltopicmodel{k}" for k in range(3)]
    assert model.get_feature_names_out().tolist() == names
    frame = model.set_output(transform="pandas").transform(X[:4])
    assert frame.columns.tolist() == names and frame.shape == (4, 3)


@each_posterior
def test_coherence_is_the_naive_one(posterior):
    model = topic_model(3, posterior).fit(X)
    order = np.argsort(-model.components_, axis=1, kind="stable")
    for rows in (X, X[:7], X[:1]):
        for n in (2, 4, 10):
            expected = [naive_coherence(rows, words[:n]) for words in order]
            for counts in (rows, sparse.csr_array(rows)):
                np.testing.assert_allclose(
                    model.coherence(counts, n), expected, atol=1e-12
                )
    shuffled = deepcopy(model)
    assert shuffled.coherence(X).shape == (3,)


@each_form
def test_responsibilities_are_shares_of_words(form):
    model = topic_model(3, form, tol=1e-6).fit(X)
    for d in (0, 3):
        words = np.flatnonzero(X[d])
        r = model.responsibilities(X[d])
        assert r.shape == (len(words), 3)
        np.testing.assert_allclose(r.sum(axis=1), 1.0, rtol=1e-6)
        for row in (X[d : d + 1], sparse.csr_array(X[d : d + 1])):
            np.testing.assert_array_equal(model.responsibilities(row), r)
        # they add up to the proportions
        theta = model.doc_topic_prior_ + X[d, words] @ r
        np.testing.assert_allclose(
            model.transform(X[d : d + 1])[0],
            theta / theta.sum(),
            atol=1e-6,
        )
    with pytest.raises(ValueError, match="one"):
        model.responsibilities(X[:2])


# -- the posterior ---------------------------------------------------------------------


@each_form
def test_moments_and_intervals_of_topics_are_those_of_draws(form):
    model = topic_model(3, form).fit(X[:20])
    draws = model.sample_posterior(20_000, random_state=1)["topics"]
    law = model.topic_word_
    np.testing.assert_allclose(law.mean, model.components_, rtol=1e-12)
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(axis=0) - law.mean) < 6.0 * error)
    np.testing.assert_allclose(np.sqrt(law.variance()), model.components_std_)
    np.testing.assert_allclose(draws.std(axis=0), model.components_std_, rtol=0.06)
    interval = law.interval(0.9)
    assert interval.shape == (3, 30, 2)
    inside = (draws >= interval[..., 0]) & (draws <= interval[..., 1])
    np.testing.assert_allclose(inside.mean(axis=0), 0.9, atol=0.04)


@each_form
@pytest.mark.parametrize("prior", [1e-4, 4e-3, 50.0])
def test_intervals_are_numbers(form, prior):
    rng = np.random.default_rng(0)
    params = {"topic_word_prior": prior, "doc_topic_prior": prior}
    for K in (1, 3, 3, 3, 3):
        rows = rng.poisson(1.0, (5, 6)).astype(float)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = topic_model(K, form, **params).fit(rows)
            for law in (model.topic_word_, model.doc_topic_posterior(rows)):
                low, high = np.moveaxis(law.interval(0.9), -1, 0)
                assert np.all((0.0 <= low) & (low <= high) & (high <= 1.0))


@each_form
def test_draws_belong_to_their_documents(form):
    rows = WITH_EMPTY
    model = topic_model(3, form).fit(rows)
    draws = model.sample_posterior(4_000, random_state=0, X=rows)
    document, word = tokens_of(rows)
    assert draws["assignments"].shape == (4_000, len(word))
    assert draws["proportions"].shape == (4_000, len(rows), 3)
    share = (draws["assignments"][..., None] == np.arange(3)).mean(axis=0)
    r = assignment_probabilities(model, rows)
    assert np.all(np.abs(share - r) < 5.0 * np.sqrt(r * (1 - r) / 4_000) + 1e-3)
    again = model.sample_posterior(4_000, random_state=0, X=sparse.csr_array(rows))
    for name, value in draws.items():
        np.testing.assert_array_equal(again[name], value)
    theta = draws["proportions"]
    alpha = np.asarray(model.doc_topic_prior_)
    expected = np.tile(alpha, (len(rows), 1))
    np.add.at(expected, document, r)
    expected /= expected.sum(axis=1, keepdims=True)
    error = theta.std(axis=0) / np.sqrt(4_000)
    assert np.all(np.abs(theta.mean(axis=0) - expected) < 6.0 * error)


def coverage(form, rows, topics, theta, alpha):
    """Shares of proportions inside intervals of 50 and 90 %, in new documents."""
    model = topic_model(3, form, doc_topic_prior=alpha, components_init=topics)
    law = model.fit(rows[:500]).doc_topic_posterior(rows[500:])
    ends = np.stack([law.interval(level) for level in (0.5, 0.9)])
    inside = (theta[500:] >= ends[..., 0]) & (theta[500:] <= ends[..., 1])
    return inside.mean(axis=(1, 2))


def test_intervals_of_proportions_cover():
    """Under their own prior; as nominal where words tell topics apart."""
    alpha = np.array([0.6, 0.4, 0.3])
    topics = np.kron(np.eye(3), np.full(10, 0.1))
    rng = np.random.default_rng(0)
    theta = rng.dirichlet(alpha, size=1_000)
    rows = np.array([rng.multinomial(50, p) for p in theta @ topics], dtype=float)
    for form in FORMS:
        covered = coverage(form, rows, topics, theta, alpha)
        np.testing.assert_allclose(covered, [0.5, 0.9], atol=0.04)
    # Where words are shared, independent q(z) are too sure, mean field most of all.
    shared = drawn_corpus(1_000, 30, 3, 50, alpha)
    covered = {form: coverage(form, *shared, alpha) for form in FORMS}
    for form in ("structured", "streaming"):
        assert np.all(covered[form] > covered["mean_field"])
        assert np.all(covered[form] > [0.4, 0.8])


# -- going on --------------------------------------------------------------------------


@each_form
def test_the_number_of_threads_does_not_matter(form):
    rows = drawn_corpus(150)[0].astype(np.float32)
    fits = [
        topic_model(5, form, n_jobs=n_jobs, block_size=16, n_init=2, tol=1e-4).fit(rows)
        for n_jobs in (None, 1, 2, 3)
    ]
    for other in fits[1:]:
        assert other.elbo_ == fits[0].elbo_
        np.testing.assert_array_equal(other.components_, fits[0].components_)
        np.testing.assert_array_equal(other.elbo_path_, fits[0].elbo_path_)
        np.testing.assert_array_equal(other.transform(rows), fits[0].transform(rows))
        assert other.score(rows) == fits[0].score(rows)
    parts = [
        quiet(
            topic_model(5, form, n_jobs=n_jobs, block_size=16),
            rows,
            method="partial_fit",
        )
        for n_jobs in (1, 2)
    ]
    np.testing.assert_array_equal(parts[0].components_, parts[1].components_)


@each_form
def test_a_fit_repeats_itself(form):
    a, b = (topic_model(4, form, tol=1e-4).fit(X) for _ in range(2))
    np.testing.assert_array_equal(a.components_, b.components_)
    assert a.elbo_ == b.elbo_
    other = topic_model(4, form, tol=1e-4, random_state=1).fit(X)
    assert other.elbo_ != a.elbo_


@each_form
def test_more_starts_are_not_worse(form):
    one = topic_model(4, form).fit(X)
    many = topic_model(4, form, n_init=4).fit(X)
    assert many.elbo_ >= one.elbo_ - 1e-9 * abs(one.elbo_)


@each_form
def test_warm_starts_go_on(form):
    whole = topic_model(3, form).fit(X)
    parts = topic_model(3, form, max_iter=2, warm_start=True)
    last = -np.inf
    for _ in range(6):
        quiet(parts, X)
        assert parts.elbo_ >= last - 1e-9 * abs(last)
        last = parts.elbo_
    parts.set_params(max_iter=500).fit(X)
    assert parts.converged_
    # other documents, from the same topics
    other = drawn_corpus(60, seed=0)[0]
    on = deepcopy(whole).fit(other)
    again = deepcopy(whole).set_params(warm_start=True).fit(other)
    assert again.n_iter_ <= on.n_iter_
    assert matched(again.components_, whole.components_) == [0, 1, 2]
    with pytest.raises(ValueError, match="n_components=4"):
        parts.set_params(n_components=4).fit(X)
    parts.set_params(n_components=3)
    with pytest.raises(ValueError, match="on 29 words"):
        parts.fit(X[:, :-1])


@each_form
def test_learnt_priors_are_where_a_warm_start_begins(form):
    learnt = {"doc_topic_prior": "auto", "topic_word_prior": "auto"}
    model = topic_model(3, form, tol=1e-6, max_iter=2_000, **learnt).fit(X)
    on = quiet(deepcopy(model).set_params(warm_start=True, max_iter=1), X)
    assert on.elbo_ >= model.elbo_ - 1e-9 * abs(model.elbo_)
    np.testing.assert_allclose(on.doc_topic_prior_, model.doc_topic_prior_, rtol=0.05)
    np.testing.assert_allclose(on.topic_word_prior_, model.topic_word_prior_, rtol=0.05)


@each_form
def test_topics_given_to_start_from_keep_their_places(form):
    for order in ([0, 1, 2], [2, 0, 1]):
        model = topic_model(3, form, components_init=7.0 * TOPICS[order])
        model.fit(X)
        assert matched(model.components_, TOPICS[order]) == [0, 1, 2]
        # zeros are allowed: the prior fills them
        seeds = (TOPICS[order] > 0.05).astype(int)
        seeded = topic_model(3, form, components_init=seeds).fit(X)
        assert matched(seeded.components_, TOPICS[order]) == [0, 1, 2]


@each_form
def test_seeded_priors_keep_topics_in_place(form):
    eta = np.where(TOPICS > 0.05, 2.0, 0.05)[[1, 2, 0]]
    model = topic_model(3, form, topic_word_prior=eta, n_init=3).fit(X)
    np.testing.assert_array_equal(priors_of(model, 30)[1], eta)
    assert matched(model.components_, TOPICS[[1, 2, 0]]) == [0, 1, 2]


@each_form
def test_partial_fit_follows_a_stream(form):
    rows, topics, _ = drawn_corpus(1_200, 30, 3, 40)
    new, rows = rows[1_000:], rows[:1_000]
    model = topic_model(3, form, learning_offset=1.0)
    seen = 0
    for block in np.array_split(rows, 20):
        model.partial_fit(block)
        seen += len(block)
        assert model.n_samples_seen_ == seen
        assert np.isfinite(model.elbo_)
    whole = topic_model(3, form, n_init=2).fit(rows)
    assert model.score(new) > whole.score(new) - 0.05
    matched(model.components_, topics)
    assert model.elbo_ == pytest.approx(whole.elbo_, rel=0.05)
    counts = expected_word_counts(model)
    assert counts.sum() == pytest.approx(rows.sum(), rel=0.1)
    # a fit to all of it may be gone on with
    whole.partial_fit(rows[:50])
    assert whole.n_samples_seen_ == 1_050
    assert whole.score(new) > model.score(new) - 0.05
    with pytest.raises(ValueError, match="n_components=4"):
        model.set_params(n_components=4).partial_fit(rows)


@each_form
def test_partial_fit_is_its_twin(form):
    """Documents from the beginning against the topics of the moment; S <- blend."""
    params = {"doc_topic_prior": 0.3, "topic_word_prior": 0.2, "learning_offset": 2.0}
    start = {"components_init": TOPICS, "total_samples": 600}
    model = topic_model(3, form, **params, **start)
    blocks = X[:40], X[40:100], X[100:]
    prior, rounds = np.full(3, 0.3), 30
    mean, squares = TOPICS.T * blocks[0].sum() / 3.0, np.zeros((30, 3))
    for step, rows in enumerate(blocks):
        model.partial_fit(rows)
        weights = prior + np.repeat(rows.sum(axis=1)[:, None] / 3.0, 3, axis=1)
        if form == "mean_field":
            topics = np.exp(twins.mean_log((0.2 + mean).T).T)
            found = twins.documents_mean_field(
                rows, topics, prior, weights, rounds, 0.0
            )
            new = found[1], squares
        else:
            own = np.divide(squares, mean, out=np.zeros_like(mean), where=mean > 0.0)
            topics = np.maximum(0.2 + mean - own, 0.2) / (6.0 + mean.sum(axis=0))
            new = twins.documents_tied(rows, topics, prior, weights, rounds, 0.0)[1:3]
        before = sum(len(block) for block in blocks[:step])  # as blocks of this size
        after = max(step, round(before / len(rows)))
        rho = 1.0 if step == 0 else (2.0 + after) ** -0.7
        scale = 600 / len(rows)
        mean = (1.0 - rho) * mean + rho * scale * new[0]
        squares = (1.0 - rho) * squares + rho * scale * new[1]
        np.testing.assert_allclose(expected_word_counts(model), mean.T, rtol=1e-3)


@each_form
def test_partial_fit_scales_up_to_all_documents(form):
    known = topic_model(3, form, total_samples=6_000, topic_word_prior=0.1)
    known.partial_fit(X)
    counts = expected_word_counts(known)
    assert counts.sum() == pytest.approx(X.sum() * 6_000 / len(X), rel=1e-6)
    running = topic_model(3, form, topic_word_prior=0.1).partial_fit(X)
    counts = expected_word_counts(running)
    assert counts.sum() == pytest.approx(X.sum(), rel=1e-6)
    # more is known of topics of more documents
    assert np.mean(known.components_std_) < 0.5 * np.mean(running.components_std_)
    running.partial_fit(X[:60])
    counts = expected_word_counts(running)
    assert counts.sum() == pytest.approx(X.sum() * 1.5, rel=0.1)
    running.partial_fit(np.concatenate([X[:1], np.zeros((3, 30))]))
    assert running.n_samples_seen_ == len(X) + 64


def test_a_fit_that_stops_early_says_so_at_the_line_that_called_it():
    for form in FORMS:
        for call in ("fit", "fit_transform"):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                getattr(topic_model(5, form, max_iter=1), call)(X)
            (warning,) = caught
            assert issubclass(warning.category, ConvergenceWarning)
            assert "max_iter=1" in str(warning.message)
            if call == "fit":
                assert warning.filename == __file__


@each_form
@pytest.mark.parametrize("max_iter", [1, 2, 5, 29, 60])
def test_max_iter_is_a_limit(form, max_iter):
    for n_init in (1, 2):
        model = topic_model(4, form, max_iter=max_iter, tol=0.0, n_init=n_init)
        assert 1 <= quiet(model, X).n_iter_ <= max_iter


def test_verbose_counts_iterations(capsys):
    topic_model(3, "mean_field", verbose=True).fit(X)
    out = capsys.readouterr().out
    assert "[VariationalTopicModel] iteration 1: elbo -" in out
    topic_model(3, "structured", verbose=True).fit(X)
    assert "[VariationalTopicModel] iteration" in capsys.readouterr().out


@each_form
def test_callbacks_see_fits_and_stop_them(form):
    held_out, seen = drawn_corpus(seed=0, D=130)[0][120:], []

    def enough(fitted):
        seen.append((fitted.elbo_, fitted.perplexity(held_out), fitted.n_iter_))
        return len(seen) == 3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = topic_model(5, form).set_callbacks(StopWhen(enough)).fit(X)
    assert len(seen) == 3
    assert model.elbo_ == pytest.approx(seen[-1][0], rel=0.05)
    assert model.n_iter_ <= topic_model(5, form).fit(X).n_iter_
    np.testing.assert_allclose(model.components_.sum(axis=1), 1.0)


def test_callbacks_score_every_iteration():
    for form in FORMS:
        monitor = ScoringMonitor(scoring=None)
        model = topic_model(3, form).set_callbacks(monitor).fit(X)
        log = monitor.get_logs().data_as_pandas
        assert len(log) > 0 and model.converged_


# -- memory ----------------------------------------------------------------------------


@each_dtype
def test_the_memory_budget_chooses_the_form(dtype):
    rows = X.astype(dtype)
    size = 3 * dtype().itemsize * np.count_nonzero(X) * 4 / 2.0**20
    for share, form in ((1.01, "stored"), (0.99, "streaming")):
        model = topic_model(4, memory_budget=share * size, max_iter=40)
        assert quiet(model, rows).assignments_ == form


def test_streaming_does_not_keep_what_every_word_is():
    rng = np.random.default_rng(0)
    words = rng.integers(0, 500, size=(3_000, 60))
    rows = sparse.csr_array(
        (np.ones(words.size), words.ravel(), 60 * np.arange(3_001)), shape=(3_000, 500)
    )
    size = rows.nnz * 50 * 8  # of one q(z) of every word of every document
    for form in ("streaming", "mean_field"):
        estimator = topic_model(50, form, max_iter=25)
        tracemalloc.start()
        try:
            quiet(estimator, rows)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 0.5 * size


# -- what a user is told ---------------------------------------------------------------


BAD = [
    ({"n_components": 0}, "'n_components'.*Got 0"),
    ({"n_components": 2.5}, "'n_components'.*Got 2.5"),
    ({"posterior": "collapsed"}, "'posterior'.*'collapsed'"),
    ({"doc_topic_prior": 0.0}, "doc_topic_prior"),
    ({"doc_topic_prior": -1.0}, "doc_topic_prior"),
    ({"doc_topic_prior": "learn"}, "doc_topic_prior"),
    ({"doc_topic_prior": [1.0, 1.0]}, r"doc_topic_prior.*\(2,\).*\(3,\)"),
    ({"doc_topic_prior": [1.0, 0.0, 1.0]}, "doc_topic_prior.*positive"),
    ({"doc_topic_prior": [1.0, np.nan, 1.0]}, "doc_topic_prior"),
    ({"doc_topic_prior": ["a", "b", "c"]}, "doc_topic_prior"),
    ({"topic_word_prior": 0.0}, "topic_word_prior"),
    ({"topic_word_prior": "learn"}, "topic_word_prior"),
    ({"topic_word_prior": np.ones(29)}, r"topic_word_prior.*\(29,\)"),
    ({"topic_word_prior": np.ones((2, 30))}, r"topic_word_prior.*\(2, 30\)"),
    ({"topic_word_prior": np.zeros((3, 30))}, "topic_word_prior.*positive"),
    ({"topic_word_prior": np.full(30, np.inf)}, "topic_word_prior"),
    ({"components_init": np.ones((2, 30))}, r"components_init.*\(2, 30\).*\(3, 30\)"),
    ({"components_init": -np.ones((3, 30))}, "components_init"),
    ({"components_init": np.full((3, 30), np.nan)}, "components_init"),
    ({"components_init": np.zeros((3, 30))}, "components_init"),
    ({"components_init": "random"}, "components_init"),
    ({"n_init": 0}, "'n_init'.*Got 0"),
    ({"max_iter": 0}, "'max_iter'.*Got 0"),
    ({"max_doc_iter": 0}, "'max_doc_iter'.*Got 0"),
    ({"tol": -1.0}, "'tol'.*Got -1.0"),
    ({"block_size": 0}, "'block_size'.*Got 0"),
    ({"memory_budget": -1.0}, "'memory_budget'.*Got -1.0"),
    ({"total_samples": 0}, "'total_samples'.*Got 0"),
    ({"learning_decay": 0.4}, "'learning_decay'.*Got 0.4"),
    ({"learning_offset": 0.0}, "'learning_offset'.*Got 0.0"),
]


@pytest.mark.parametrize(("params", "message"), BAD)
def test_parameters_that_make_no_sense(params, message):
    estimator = VariationalTopicModel(**{"n_components": 3, **params})
    for method in (estimator.fit, estimator.partial_fit):
        with pytest.raises(ValueError, match=message):
            method(X)
    assert not hasattr(estimator, "components_")


@each_form
def test_rows_that_make_no_sense(form):
    model = topic_model(3, form).fit(X)
    for value, message in ((np.nan, "NaN"), (np.inf, "infinity"), (-1.0, "egative")):
        bad = X.copy()
        bad[3, 4] = value
        for rows in (bad, sparse.csr_array(bad)):
            for method in (
                model.fit,
                model.partial_fit,
                model.transform,
                model.score,
                model.perplexity,
                model.doc_topic_posterior,
                model.coherence,
            ):
                with pytest.raises(ValueError, match=message):
                    method(rows)
    nothing = np.zeros((4, 30))
    for rows in (nothing, sparse.csr_array(nothing)):
        with pytest.raises(ValueError, match="no word"):
            model.fit(rows)
        for method in (model.score, model.perplexity):
            with pytest.raises(ValueError, match="none of two words"):
                method(rows)
        with pytest.raises(ValueError, match="no word"):
            model.perplexity(rows, method="elbo")
    np.testing.assert_allclose(model.transform(nothing), 1.0 / 3.0)
    for method in (model.transform, model.score, model.coherence):
        with pytest.raises(ValueError, match="29 features"):
            method(X[:, :-1])
    with pytest.raises(ValueError, match="n_samples=0"):
        model.sample_posterior(0)
    if form != "mean_field":
        # topics and tokens are drawn together
        with pytest.raises(ValueError, match="not the corpus that was fitted"):
            model.sample_posterior(5, X=X[:5])
    with pytest.raises(ValueError, match="not whole numbers"):
        clone(model).fit(X / 3.0).sample_posterior(5, X=X / 3.0)


# -- the engine's model ----------------------------------------------------------------


# -- real documents --------------------------------------------------------------------


@pytest.fixture(scope="module")
def ap():
    counts = sparse.load_npz(data_path("text", "ap.npz")).tocsr()[:400]
    words = data_path("text", "ap_vocab.txt").read_text(encoding="utf-8").split("\n")
    common = np.asarray((counts > 0).sum(axis=0)).ravel() >= 5
    names = np.array([word for word in words if word])
    return counts[:, common], names[common]


def test_news_agency_texts(ap):
    counts, names = ap
    train, new = counts[:350], counts[350:]
    params = {"doc_topic_prior": 0.1, "topic_word_prior": 0.05}
    small = quiet(topic_model(10, "mean_field", max_iter=60, **params), train)
    scores = {"mean_field": small.score(new)}
    for form in ("structured", "streaming"):
        large = deepcopy(small).set_params(**FORMS[form], warm_start=True, max_iter=40)
        quiet(large, train)
        assert large.elbo_ >= small.elbo_
        alone = quiet(topic_model(10, form, max_iter=60, **params), train)
        assert alone.elbo_ > small.elbo_
        scores[form] = alone.score(new)
        assert alone.transform(new).shape == (50, 10)
    frequency = (np.asarray(train.sum(axis=0)).ravel() + 0.5) / (
        train.sum() + 0.5 * len(names)
    )
    plain = (new @ np.log(frequency)).sum() / new.sum()
    assert all(score > plain + 0.1 for score in scores.values())
    # words of a topic go together more than words of several do
    top = alone.top_words(5, feature_names=names)
    assert len({word for words in top for word in words}) > 25
    shuffled = np.random.default_rng(0).permutation(len(names))
    mixed = deepcopy(alone)
    mixed.components_ = alone.components_[:, shuffled]
    assert np.median(alone.coherence(train)) > np.median(mixed.coherence(train)) + 0.05
