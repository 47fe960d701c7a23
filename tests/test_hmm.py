"""What is particular to VariationalHMM; the rest is the contract's."""

import pickle
import warnings
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pandas as pd
import polars as pl
import pytest
from joblib import parallel_config
from scipy import optimize, special, stats
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skvi
import twins
from cases import (
    HMM_EMISSIONS,
    chains_of_steps,
    expected_log_densities,
    explicit_priors,
    hmm_bound,
    hmm_log_joint,
    hmm_posterior,
    sequences_of,
)
from conftest import data_path
from skvi import VariationalHMM, sequence_ids
from skvi.callbacks import StopWhen
from skvi.metrics import elbo_scorer, log_predictive_density_scorer
from skvi.models.hmm.markov import MarkovChain
from skvi.models.hmm.messages import ChainWeights, filtered, smoothed
from skvi.models.hmm.model import FAMILIES, Block
from skvi.models.sequences import Sequences

KINDS = tuple(HMM_EMISSIONS)
GAUSSIAN = KINDS[:4]
COUNTS = KINDS[4:]
POSTERIORS = ("structured", "mean_field")
each_kind = pytest.mark.parametrize("kind", KINDS)
each_gaussian = pytest.mark.parametrize("kind", GAUSSIAN)
each_posterior = pytest.mark.parametrize("posterior", POSTERIORS)


def hmm(K=2, kind="diag", **params):
    params = {"random_state": 0, "init_params": "kmeans", **params}
    return VariationalHMM(n_components=K, **{**HMM_EMISSIONS[kind], **params})


def walk(lengths, K, stay, rng):
    """States of sequences that stay where they are with this probability."""
    states = []
    for length in lengths:
        states.append(rng.integers(K))
        for _ in range(length - 1):
            moves = rng.random() > stay
            step = rng.integers(1, K) if moves and K > 1 else 0
            states.append((states[-1] + step) % K)
    return np.array(states)


def chains(kind, lengths, K=2, seed=0, stay=0.8, clear=True):
    """Steps of sequences, their ids in the last column; and the states."""
    rng = np.random.default_rng(seed)
    states = walk(lengths, K, stay, rng)
    X = chains_of_steps(kind, clear=clear).emit(states, rng)
    return np.column_stack([X, sequence_ids(lengths)]), states


def with_holes(X, share, seed=0, n_features=2):
    """X with this share of the entries missing, of features only."""
    X = X.copy()
    holes = np.random.default_rng(seed).random((len(X), n_features)) < share
    X[:, :n_features][holes] = np.nan
    return X


def law_of(model):
    return {name: value for name, (_, value) in hmm_posterior(model).items()}


def expected_chain(model, x):
    """(E log densities of steps x, E log startprob, E log transmat) under q."""
    law = law_of(model)
    log_b = expected_log_densities(model, law, x)
    return log_b, twins.mean_log(law["start"]), twins.mean_log(law["trans"])


def plug_in_chain(model, x):
    """... with the parameters' point estimates in place of their laws."""
    x = x[:, None]
    if model.emissions == "gaussian":
        K, dim = model.means_.shape
        C = model.covariances_
        shape = {"diag": (K, dim, 1), "spherical": (K, 1, 1)}.get(model.covariance_type)
        C = np.broadcast_to(C, (K, dim, dim)) if shape is None else C.reshape(shape)
        C = C * np.eye(dim) if shape else C
        laws = [stats.multivariate_normal(m, c) for m, c in zip(model.means_, C)]
        log_b = np.array([law.logpdf(x) for law in laws]).reshape(K, -1).T
    elif model.emissions == "poisson":
        log_b = stats.poisson.logpmf(x, model.rates_).sum(axis=2)
    elif model.emissions == "bernoulli":
        log_b = stats.bernoulli.logpmf(x > 0.0, model.emissionprob_).sum(axis=2)
    else:
        log_b = log_of_categories(model, x[:, 0])
    return log_b, np.log(model.startprob_), np.log(model.transmat_)


def log_of_categories(model, x):
    """Log probabilities of the categories seen, NaN left out: (T, K)."""
    ends = np.cumsum(model.n_categories_)
    tables = np.split(np.log(model.emissionprob_), ends[:-1], axis=1)
    seen = ~np.isnan(x)
    codes = np.where(seen, x, 0.0).astype(int)
    return sum(
        np.where(seen[:, [d]], table[:, codes[:, d]].T, 0.0)
        for d, table in enumerate(tables)
    )


def predictive_chain(model, x):
    """... with predictive laws of the emissions: what score_samples is told of."""
    law = law_of(model)
    if model.emissions == "categorical":
        log_b = log_of_categories(model, x)
    elif model.emissions == "gaussian":
        log_b = _student(model, law, x)
    else:
        x = x[:, None]
        if model.emissions == "poisson":
            p = law["rate"] / (1.0 + law["rate"])
            each = special.xlog1py(x, -p) + law["shape"] * np.log(p)
            each += special.gammaln(law["shape"] + x) - special.gammaln(law["shape"])
            each -= special.gammaln(x + 1.0)
        else:
            each = stats.bernoulli.logpmf(x > 0.0, model.emissionprob_)
        log_b = np.where(np.isnan(x), 0.0, each).sum(axis=2)
    return log_b, np.log(model.startprob_), np.log(model.transmat_)


def _student(model, law, x):
    K, dim = law["location"].shape
    wider = np.broadcast_to((1.0 + 1.0 / law["beta"]).reshape(K, -1), (K, dim))
    df = law["excess"]
    out = np.zeros((len(x), K))
    for k in range(K):
        if model.covariance_type == "diag":
            law_k = stats.t(
                df=np.broadcast_to(df.reshape(K, -1), (K, dim))[k],
                loc=law["location"][k],
                scale=np.sqrt((law["C"] / df.reshape(K, -1))[k] * wider[k]),
            )
            each = law_k.logpdf(x)
            out[:, k] = np.where(np.isnan(x), 0.0, each).sum(axis=1)
            continue
        if model.covariance_type == "spherical":
            shape, df_k = np.diag(law["C"][k] / df[k] * wider[k]), df[k]
        else:
            df_k = np.broadcast_to(df, K)[k]
            C = np.broadcast_to(law["C"], (K, dim, dim))[k]
            shape = C / df_k * wider[k, 0]
        for t, row in enumerate(x):
            o = ~np.isnan(row)
            if o.any():
                out[t, k] = stats.multivariate_t.logpdf(
                    row[o], law["location"][k][o], shape[np.ix_(o, o)], df_k
                )
    return out


def log_evidence(model, x, labels, weight):
    """log p(x | states) with the emissions' parameters integrated out, exactly.

    Bernardo & Smith (2000), appendix A.2. Steps count as often as their weight says;
    missing entries of matrices are not known here.
    """
    seen = weight[:, None] * ~np.isnan(x)
    x = np.where(np.isnan(x), 0.0, x)
    K = model.n_components
    own = np.eye(K)[labels]
    n = own.T @ seen  # (K, D)
    if model.emissions == "gaussian":
        return _log_evidence_of_normal(model, x, own, seen, n)
    if model.emissions == "categorical":
        total, ends = 0.0, np.cumsum(model.n_categories_)[:-1]
        for d, prior in enumerate(np.split(model.probability_prior_, ends)):
            codes = np.eye(len(prior))[x[:, d].astype(int)]
            counts = own.T @ (seen[:, [d]] * codes)
            total += np.sum(special.gammaln(prior + counts) - special.gammaln(prior))
            total -= np.sum(special.gammaln(prior.sum() + counts.sum(axis=1)))
            total += K * special.gammaln(prior.sum())
        return total
    if model.emissions == "bernoulli":
        one, zero = model.probability_prior_
        ones = own.T @ (seen * (x > 0.0))
        return np.sum(
            special.betaln(one + ones, zero + n - ones) - special.betaln(one, zero)
        )
    a, b = model.rate_prior_
    total = own.T @ (seen * x)
    each = special.gammaln(a + total) - special.gammaln(a)
    each = each + a * np.log(b) - (a + total) * np.log(b + n)
    return each.sum() - np.sum(seen * special.gammaln(x + 1.0))


def _log_evidence_of_normal(model, x, own, seen, n):
    dim = n.shape[1]
    beta, nu = model.mean_precision_prior_, model.degrees_of_freedom_prior_
    C = np.asarray(model.covariance_prior_)
    gap = x - model.mean_prior_
    sums = own.T @ (seen * gap)
    total = 0.5 * np.sum(np.log(beta / (beta + n)) - n * np.log(np.pi))
    if model.covariance_type in ("diag", "spherical"):
        square = own.T @ (seen * gap**2) - sums**2 / (beta + n)
        if model.covariance_type == "spherical":
            square, n = square.sum(axis=1), n.sum(axis=1)
        each = special.gammaln(0.5 * (nu + n)) - special.gammaln(0.5 * nu)
        each = each + 0.5 * (nu * np.log(C) - (nu + n) * np.log(C + square))
        return total + each.sum()
    n = n[:, 0]
    outer = np.einsum("tk,ti,tj->kij", own * seen[:, :1], gap, gap)
    outer -= sums[:, :, None] * sums[:, None] / (beta + n)[:, None, None]
    if model.covariance_type == "tied":
        n, outer = n.sum(keepdims=True), outer.sum(axis=0, keepdims=True)
    each = special.multigammaln(0.5 * (nu + n), dim)
    each = each - special.multigammaln(0.5 * nu, dim)
    each += 0.5 * nu * np.linalg.slogdet(C)[1]
    each -= 0.5 * (nu + n) * np.linalg.slogdet(C + outer)[1]
    return total + each.sum()


def log_evidence_of_paths(model, slices, labels):
    """log p(states), startprob and transmat integrated out."""
    K = model.n_components
    starts, moves = np.zeros(K), np.zeros((K, K))
    for rows in slices:
        path = labels[rows]
        starts[path[0]] += 1.0
        np.add.at(moves, (path[:-1], path[1:]), 1.0)
    total = 0.0
    for prior, counts in (
        (model.startprob_prior_[None], starts[None]),
        (model.transmat_prior_, moves),
    ):
        total += np.sum(special.gammaln(prior + counts) - special.gammaln(prior))
        total += np.sum(special.gammaln(prior.sum(axis=1)))
        total -= np.sum(special.gammaln((prior + counts).sum(axis=1)))
    return total


# -- the bound, and sums over all paths ------------------------------------------------


def test_the_twins_are_sums_over_all_paths():
    rng = np.random.default_rng(0)
    log_b, log_start, log_trans = (
        rng.standard_normal(shape) for shape in ((5, 3), 3, (3, 3))
    )
    paths = twins.all_paths(5, 3)
    weights = twins.log_weights_of_paths(paths, log_b, log_start, log_trans)
    log_z, gamma, xi = twins.forward_backward(log_b, log_start, log_trans)
    assert log_z == pytest.approx(special.logsumexp(weights), rel=1e-12)
    share = special.softmax(weights)
    own = (paths[..., None] == np.arange(3)).astype(float)
    np.testing.assert_allclose(np.einsum("p,ptk->tk", share, own), gamma)
    pairs = np.einsum("p,ptj,ptk->jk", share, own[:, :-1], own[:, 1:])
    np.testing.assert_allclose(xi, pairs)
    path, largest = twins.viterbi(log_b, log_start, log_trans)
    np.testing.assert_array_equal(path, paths[weights.argmax()])
    assert largest == pytest.approx(weights.max())
    q = twins.mean_field_chain(log_b, log_start, log_trans, np.full((5, 3), 1 / 3), 500)
    bound = twins.mean_field_chain_bound(log_b, log_start, log_trans, q)
    assert log_z - 3.0 < bound < log_z


TINY = (6, 4, 1)


@each_kind
@each_posterior
def test_with_parameters_fixed_the_bound_is_a_sum_over_paths(kind, posterior):
    # Fixed by priors on the chain, and by a sequence that counts a hundred thousand
    # times on the emissions: what others add to the bound is log p(others).
    # (an odd number of steps, whose median is that of them all)
    known, _ = chains(kind, (61,), seed=1, clear=False)
    few, _ = chains(kind, TINY, seed=2, stay=0.5, clear=False)
    few[:, -1] += 1.0
    X = np.column_stack([np.concatenate([known, few]), np.ones(len(known) + len(few))])
    X[: len(known), -1] = 1e5
    model = hmm(
        kind=kind,
        posterior=posterior,
        sequence=-2,
        sequence_weight=-1,
        startprob_prior=[6e6, 4e6],
        transmat_prior=[[7e6, 3e6], [2e6, 8e6]],
        tol=1e-13,
        max_iter=2_000,
    ).fit(X[: len(known)])
    whole = deepcopy(model).set_params(warm_start=True).fit(X)
    total, smaller = 0.0, 0.0
    q = whole.predict_proba(X)
    features, slices, _ = sequences_of(whole, X)
    for rows in slices[1:]:
        chain = plug_in_chain(whole, features[rows])
        paths = twins.all_paths(len(chain[0]), 2)
        total += special.logsumexp(twins.log_weights_of_paths(paths, *chain))
        smaller += twins.mean_field_chain_bound(*chain, q[rows])
    added = whole.elbo_ - model.elbo_
    if posterior == "structured":
        assert added == pytest.approx(total, abs=1e-3)
    else:
        assert added == pytest.approx(smaller, abs=1e-3)
        assert total - 5.0 < smaller < total


@each_kind
def test_the_bound_is_below_the_evidence_summed_over_paths(kind):
    X, _ = chains(kind, (5, 3), seed=3, clear=False)
    bounds = {}
    for posterior in POSTERIORS:
        model = hmm(kind=kind, posterior=posterior, sequence=2).fit(X)
        bounds[posterior] = model.elbo_
    features, slices, _ = sequences_of(model, X)
    each = [
        log_evidence(model, features, labels, np.ones(len(X)))
        + log_evidence_of_paths(model, slices, labels)
        for labels in twins.all_paths(len(X), 2)
    ]
    evidence = special.logsumexp(each)
    # Two orders of the states are as good, of which q has one.
    assert bounds["structured"] < evidence - np.log(2.0) + 1e-6 or kind == "tied"
    assert bounds["mean_field"] < bounds["structured"] < evidence
    assert bounds["structured"] > evidence - 6.0


@each_kind
@each_posterior
@pytest.mark.parametrize("missing", [False, True])
def test_the_bound_and_states_are_those_of_all_paths(kind, posterior, missing):
    X, _ = chains(kind, (6, 1, 4), K=3, seed=4, stay=0.6, clear=False)
    if missing:
        X[[1, 8], [0, 1]] = np.nan
        X[3, :2] = np.nan
    model = hmm(
        3, kind, posterior=posterior, sequence=2, tol=1e-12, max_iter=5_000
    ).fit(X)
    features, slices, _ = sequences_of(model, X)
    log_b, log_start, log_trans = expected_chain(model, features)
    proba = model.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-12)
    if posterior == "mean_field":
        bound = hmm_bound(model, X, law_of(model), proba)
        assert model.elbo_ == pytest.approx(bound, rel=1e-9)
        for rows in slices:
            chain = log_b[rows], log_start, log_trans
            again = twins.mean_field_chain(*chain, proba[rows], 1)
            np.testing.assert_allclose(again, proba[rows], atol=1e-5)
        # the most probable path is that of the most probable states
        for method in ("viterbi", "marginal"):
            found = model.predict(X, method=method)
            np.testing.assert_array_equal(found, proba.argmax(axis=1))
        return
    total = hmm_bound(model, X, law_of(model))
    assert model.elbo_ == pytest.approx(total, rel=1e-10)
    for rows in slices:
        chain = log_b[rows], log_start, log_trans
        paths = twins.all_paths(len(log_b[rows]), 3)
        weights = twins.log_weights_of_paths(paths, *chain)
        log_z = twins.forward_backward(*chain)[0]
        assert log_z == pytest.approx(special.logsumexp(weights), rel=1e-12)
        own = (paths[..., None] == np.arange(3)).astype(float)
        expected = np.einsum("p,ptk->tk", special.softmax(weights), own)
        np.testing.assert_allclose(proba[rows], expected, rtol=1e-8, atol=1e-12)
        best = paths[weights.argmax()]
        np.testing.assert_array_equal(model.predict(X)[rows], best)
    np.testing.assert_array_equal(
        model.predict(X, method="marginal"), proba.argmax(axis=1)
    )


# -- the recursion ---------------------------------------------------------------------

FAR = -1e3  # below what a weight of a transition may count as


def transitions(style, K, rng):
    """Expected logs of transitions, whose rows add up to less than one."""
    if style == "forgetful":
        p = rng.dirichlet(np.ones(K), size=K)
    elif style == "sticky":
        p = np.full((K, K), 1e-9) + np.eye(K)
    else:
        turn = np.roll(np.eye(K), style == "turns", axis=1)
        if style == "one way":
            turn = np.triu(np.ones((K, K)))
        return np.where(turn > 0.0, np.log(0.9 / turn.sum(axis=1))[:, None], FAR)
    return np.log(0.99 * p / p.sum(axis=1, keepdims=True))


def slices_of(sequences):
    return [slice(*pair) for pair in pairwise(sequences.bounds.tolist())]


DENSITIES = {
    "weak": lambda rng, shape: 1e-3 * rng.standard_normal(shape),
    "plain": lambda rng, shape: rng.standard_normal(shape),
    "far": lambda rng, shape: -1e4 * rng.random(shape) - 1e5,
}
LENGTHS = {
    "long": [1_100],
    "short": [1] * 20 + [2] * 10 + [7, 1],
    "ragged": [300, 1, 63, 64, 65, 200, 3, 1],
}


@pytest.mark.parametrize("style", ["forgetful", "sticky", "stays", "turns", "one way"])
@pytest.mark.parametrize("densities", DENSITIES)
@pytest.mark.parametrize("K", [1, 3, 9])
def test_messages_are_their_twins(style, densities, K):
    rng = np.random.default_rng(K)
    for lengths in LENGTHS.values():
        sequences = Sequences(np.cumsum([0, *lengths]), rng.random(len(lengths)))
        weights = ChainWeights(
            np.log(0.9 * rng.dirichlet(np.ones(K))), transitions(style, K, rng)
        )
        chain = weights.log_initial, weights.log_trans
        log_b = DENSITIES[densities](rng, (K, sum(lengths)))
        forward, log_scale = filtered(log_b, weights, sequences)
        smooth = np.empty_like(forward)
        counts = smoothed(forward, weights, sequences, smooth)
        np.testing.assert_allclose(forward.sum(axis=0), 1.0, rtol=1e-12)
        paths = MarkovChain().paths(log_b, weights, Block(None, sequences))
        expected = np.zeros((K, K))
        for rows, weight in zip(slices_of(sequences), sequences.weight):
            log_z, gamma, xi = twins.forward_backward(log_b[:, rows].T, *chain)
            expected += weight * xi
            assert log_scale[rows].sum() == pytest.approx(log_z, rel=1e-11, abs=1e-9)
            np.testing.assert_allclose(smooth[:, rows].T, gamma, atol=1e-8)
            steps = np.arange(rows.start, rows.stop)
            score = log_b[paths[rows], steps].sum() + chain[0][paths[rows.start]]
            score += chain[1][paths[steps[:-1]], paths[steps[1:]]].sum()
            best = twins.viterbi(log_b[:, rows].T, *chain)[1]
            assert score == pytest.approx(best, rel=1e-11, abs=1e-9)
        np.testing.assert_allclose(counts, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("style", ["forgetful", "sticky", "turns"])
def test_messages_of_many_groups_and_threads(style, monkeypatch):
    monkeypatch.setattr("skvi.models.sequences.GROUP_STEPS", 1_000)
    rng = np.random.default_rng(0)
    K, lengths = 3, [6_500, 1, 2_000]
    sequences = Sequences(np.cumsum([0, *lengths]))
    weights = ChainWeights(np.log(np.full(K, 0.3)), transitions(style, K, rng))
    log_b = 0.3 * rng.standard_normal((K, sum(lengths)))
    forward, log_scale = filtered(log_b, weights, sequences)
    smooth = np.empty_like(forward)
    counts = smoothed(forward, weights, sequences, smooth)
    assert len(sequences.stretches[0]) > 4
    two, two_scale = filtered(log_b, weights, sequences, n_jobs=2)
    np.testing.assert_array_equal(two, forward)
    np.testing.assert_array_equal(two_scale, log_scale)
    out = np.empty_like(forward)
    np.testing.assert_array_equal(smoothed(two, weights, sequences, out, 2), counts)
    np.testing.assert_array_equal(out, smooth)
    total = np.zeros((K, K))
    for rows in slices_of(sequences):
        log_z, gamma, xi = twins.forward_backward(
            log_b[:, rows].T, weights.log_initial, weights.log_trans
        )
        total += xi
        assert log_scale[rows].sum() == pytest.approx(log_z, abs=1e-6)
        np.testing.assert_allclose(smooth[:, rows].T, gamma, atol=1e-8)
    np.testing.assert_allclose(counts, total, rtol=1e-7)


@pytest.mark.parametrize("style", ["forgetful", "sticky", "turns"])
def test_messages_in_single_precision(style):
    rng = np.random.default_rng(0)
    sequences = Sequences([0, 5_000, 5_001, 9_000])
    weights = ChainWeights(np.log(np.full(4, 0.2)), transitions(style, 4, rng))
    log_b = rng.standard_normal((4, 9_000)).astype(np.float32)
    found = []
    for dtype in (np.float32, np.float64):
        forward, log_scale = filtered(log_b.astype(dtype), weights, sequences)
        smooth = np.empty_like(forward)
        counts = smoothed(forward, weights, sequences, smooth)
        found.append((forward, smooth, log_scale.sum(), counts))
    assert found[0][0].dtype == found[0][1].dtype == np.float32
    for single, double in zip(*found):
        np.testing.assert_allclose(single, double, rtol=1e-3, atol=1e-4)


@each_posterior
def test_local_steps_of_independent_states_are_their_twin(posterior):
    rng = np.random.default_rng(0)
    K, lengths = 3, [40, 1, 2, 25]
    sequences = Sequences(np.cumsum([0, *lengths]), np.array([1.0, 2.0, 0.5, 3.0]))
    weights = ChainWeights(
        np.log(rng.dirichlet(np.ones(K))), transitions("forgetful", K, rng)
    )
    log_b = rng.standard_normal((K, sum(lengths)))
    block = Block(None, sequences)
    local = FAMILIES[posterior].local(log_b.copy(), weights, block)
    bound, start = 0.0, np.zeros(K)
    chain = weights.log_initial, weights.log_trans
    for rows, weight in zip(slices_of(sequences), sequences.weight):
        gamma = local.shares[:, rows].T
        start += weight * gamma[0]
        if posterior == "structured":
            bound += weight * twins.forward_backward(log_b[:, rows].T, *chain)[0]
            continue
        again = twins.mean_field_chain(log_b[:, rows].T, *chain, gamma, 1)
        np.testing.assert_allclose(again, gamma, atol=1e-7)
        bound += weight * twins.mean_field_chain_bound(log_b[:, rows].T, *chain, gamma)
    assert local.bound == pytest.approx(bound, rel=1e-10)
    np.testing.assert_allclose(local.start, start)


# -- the evidence of one state ---------------------------------------------------------


@each_kind
@each_posterior
@pytest.mark.parametrize("variant", ["plain", "missing", "weights", "priors"])
def test_one_state_has_the_exact_evidence(kind, posterior, variant):
    X, _ = chains(kind, (9, 1, 7, 4))
    weights = np.ones(4)
    params = {}
    if variant == "missing":
        X[3, :2] = np.nan  # a whole step; entries of matrices are latent
        if kind not in ("full", "tied"):
            X = np.column_stack([with_holes(X, 0.3)[:, :2], X[:, 2]])
    if variant == "weights":
        weights = np.array([2.0, 0.5, 1.0, 3.25])
        params["sequence_weight"] = 3
    if variant == "priors":
        params = explicit_priors(kind)
        params.update(startprob_prior=0.3, transmat_prior=2.0, stickiness=5.0)
    ids = X[:, 2].astype(int)
    X = np.column_stack([X, weights[ids]])
    if variant != "weights":
        X = X[:, :3]
    model = hmm(1, kind, posterior=posterior, sequence=2, **params).fit(X)
    evidence = log_evidence(model, X[:, :2], np.zeros(len(X), int), weights[ids])
    assert model.elbo_ == pytest.approx(evidence, rel=1e-10)
    np.testing.assert_array_equal(model.startprob_, [1.0])
    np.testing.assert_array_equal(model.transmat_, [[1.0]])
    np.testing.assert_array_equal(model.predict_proba(X), np.ones((len(X), 1)))
    np.testing.assert_array_equal(model.predict(X), np.zeros(len(X)))


# -- predictive densities --------------------------------------------------------------


@each_kind
@each_posterior
@pytest.mark.parametrize("missing", [False, True])
def test_scores_are_sums_over_all_paths(kind, posterior, missing):
    X, _ = chains(kind, (40, 30), clear=False)
    model = hmm(kind=kind, posterior=posterior, sequence=2).fit(X)
    new, _ = chains(kind, (5, 1, 4), seed=6, clear=False)
    if missing:
        new[[1, 5], [0, 1]] = np.nan
        new[7, :2] = np.nan
    features, slices, _ = sequences_of(model, new)
    scores = model.score_samples(new)
    for rows in slices:
        log_b, *chain = predictive_chain(model, features[rows])
        so_far = [
            special.logsumexp(
                twins.log_weights_of_paths(twins.all_paths(t, 2), log_b[:t], *chain)
            )
            for t in range(1, len(log_b) + 1)
        ]
        np.testing.assert_allclose(np.cumsum(scores[rows]), so_far, rtol=1e-9)
    assert model.score(new) == pytest.approx(scores.mean(), rel=1e-12)


def all_sequences(values, n_steps):
    """Every sequence of so many steps, steps being rows of values; ids last."""
    index = twins.all_paths(n_steps, len(values))
    X = np.asarray(values, dtype=float)[index.ravel()]
    return np.column_stack([X, np.repeat(np.arange(len(index)), n_steps)])


def total_probability(model, X, n_steps):
    log_p = model.score_samples(X).reshape(-1, n_steps).sum(axis=1)
    return np.exp(log_p).sum()


@each_posterior
def test_probabilities_of_all_sequences_add_up_to_one(posterior):
    params = {"posterior": posterior, "sequence": -1}
    pairs = np.array([[a, b] for a in range(3) for b in range(2)])
    model = hmm(kind="categorical", **params).fit(chains("categorical", (20, 9))[0])
    assert total_probability(model, all_sequences(pairs, 3), 3) == pytest.approx(1.0)
    model = hmm(kind="bernoulli", **params).fit(chains("bernoulli", (20, 9))[0])
    bits = [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert total_probability(model, all_sequences(bits, 3), 3) == pytest.approx(1.0)
    X = chains("poisson", (60, 9))[0]
    model = hmm(kind="poisson", **params).fit(X[:, [0, 2]])
    counts = np.arange(70)[:, None]
    assert total_probability(model, all_sequences(counts, 2), 2) == pytest.approx(1.0)


def quadrature(centre, scale, n=300):
    """Points and weights of an integral over the real line, for fat tails."""
    u, w = np.polynomial.legendre.leggauss(n)
    x = centre + scale * u / (1.0 - u**2)
    return x, w * scale * (1.0 + u**2) / (1.0 - u**2) ** 2


@each_gaussian
@each_posterior
def test_the_density_of_a_next_step_integrates_to_one(kind, posterior):
    X = chains(kind, (30, 12))[0][:, [0, 2]]
    model = hmm(kind=kind, posterior=posterior, sequence=1).fit(X)
    x, w = quadrature(X[:, 0].mean(), X[:, 0].std())
    for before in ([], [X[0, 0]], [X[1, 0], np.nan, 3.0]):
        steps = np.column_stack([np.tile(before, (len(x), 1)), x])
        ids = np.repeat(np.arange(len(x)), steps.shape[1])
        rows = np.column_stack([steps.ravel(), ids])
        last = model.score_samples(rows).reshape(len(x), -1)[:, -1]
        assert w @ np.exp(last) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("kind", ["full", "poisson", "categorical"])
@each_posterior
def test_scores_averaged_over_draws_of_the_parameters(kind, posterior):
    X, _ = chains(kind, (60, 40))
    model = hmm(kind=kind, posterior=posterior, sequence=2).fit(X)
    averaged = model.score(X, n_samples=100, random_state=0)
    assert averaged == model.score(X, n_samples=100, random_state=0)
    each = model.score_samples(X, n_samples=100, random_state=0)
    assert averaged == pytest.approx(each.mean())
    # Sequences are averaged whole: not quite the law with the mean parameters.
    assert abs(averaged - model.score(X)) < 0.15
    n = 200
    draws = model.sample_posterior(n, random_state=1)
    features, slices, _ = sequences_of(model, X)
    rows = slices[1]
    rows = slice(rows.start, rows.start + 4)
    part = X[rows]
    log_p = [
        twins.forward_backward(*drawn_chain(model, features[rows], draws, i))[0]
        for i in range(n)
    ]
    expected = special.logsumexp(log_p) - np.log(n)
    error = np.exp(log_p - expected).std() / np.sqrt(n)
    found = 4 * model.score(part, n_samples=400, random_state=2)
    assert error < 0.1
    assert abs(found - expected) < 5 * error


def drawn_chain(model, x, draws, i):
    """... with one draw of the parameters."""
    if model.emissions == "gaussian":
        K = model.n_components
        P = draws["precisions"][i]
        log_b = np.column_stack(
            [
                stats.multivariate_normal.logpdf(
                    x, draws["means"][i, k], np.linalg.inv(P[k])
                )
                for k in range(K)
            ]
        )
    elif model.emissions == "poisson":
        log_b = stats.poisson.logpmf(x[:, None], draws["rates"][i]).sum(axis=2)
    else:
        columns = (x + np.append(0, model.n_categories_[:-1])).astype(int)
        log_b = np.log(draws["probabilities"][i])[:, columns].sum(axis=2).T
    return log_b, np.log(draws["startprob"][i]), np.log(draws["transmat"][i])


@each_posterior
def test_averaged_scores_are_those_of_a_law(posterior):
    X, _ = chains("categorical", (20, 9))
    model = hmm(kind="categorical", posterior=posterior, sequence=2).fit(X)
    pairs = np.array([[a, b] for a in range(3) for b in range(2)])
    every = all_sequences(pairs, 2)
    total = sum(
        np.exp(2 * model.score(every[i : i + 2], n_samples=7, random_state=3))
        for i in range(0, len(every), 2)
    )
    assert total == pytest.approx(1.0)


@each_posterior
def test_scores_weigh_sequences(posterior):
    X, _ = chains("full", (9, 4, 7))
    weights = np.array([2.0, 0.0, 1.5])[X[:, 2].astype(int)]
    X = np.column_stack([X, weights])
    model = hmm(kind="full", posterior=posterior, sequence=2, sequence_weight=3).fit(X)
    each = model.score_samples(X)
    assert model.score(X) == pytest.approx(np.average(each, weights=weights))
    assert np.all(np.isfinite(each))
    # steps of sequences that do not count are answered all the same
    assert model.predict_proba(X).shape == (20, 2)


# -- weights ---------------------------------------------------------------------------


@each_kind
@each_posterior
def test_weights_count_sequences(kind, posterior):
    X, _ = chains(kind, (9, 4, 7, 5), seed=5)
    weights = np.array([2, 0, 1, 3])
    start = hmm(kind=kind, posterior=posterior, sequence=2, sequence_weight=3)
    ids = X[:, 2].astype(int)
    start.fit(np.column_stack([X, np.ones(len(X))])).set_params(warm_start=True)
    weighted = deepcopy(start).fit(np.column_stack([X, weights[ids]]))
    parts = [X[ids == i] for i in range(4) for _ in range(weights[i])]
    lengths = [len(part) for part in parts]
    repeated = np.concatenate(parts)
    repeated[:, 2] = sequence_ids(lengths)
    repeated = np.column_stack([repeated, np.ones(len(repeated))])
    repeated = deepcopy(start).fit(repeated)
    assert weighted.elbo_ == pytest.approx(repeated.elbo_, rel=1e-10)
    assert weighted.n_iter_ == repeated.n_iter_
    for name, (_, value) in hmm_posterior(weighted).items():
        other = hmm_posterior(repeated)[name][1]
        np.testing.assert_allclose(value, other, rtol=1e-7, err_msg=name)


# -- sequences -------------------------------------------------------------------------


RAGGED = (1, 7, 1, 1, 30, 2, 11, 1)


@each_kind
@each_posterior
def test_ragged_sequences_are_read_one_by_one(kind, posterior):
    X, _ = chains(kind, RAGGED, seed=7)
    model = hmm(kind=kind, posterior=posterior, sequence=2).fit(X)
    assert model.converged_
    assert model.n_steps_seen_ == len(X)
    if posterior == "structured":
        bound = hmm_bound(model, X, law_of(model))
        assert model.elbo_ == pytest.approx(bound, rel=1e-9)
    for rows in sequences_of(model, X)[1]:
        for method in ("predict", "predict_proba", "score_samples"):
            whole = getattr(model, method)(X)[rows]
            np.testing.assert_allclose(
                getattr(model, method)(X[rows]), whole, rtol=1e-9, atol=1e-12
            )


@each_kind
@each_posterior
def test_sequences_of_one_step(kind, posterior):
    X, _ = chains(kind, (1,) * 30)
    model = hmm(kind=kind, posterior=posterior, sequence=2).fit(X)
    # Nothing is seen of the transitions: their posterior is the prior.
    law = law_of(model)
    np.testing.assert_allclose(law["trans"], model.transmat_prior_)
    assert law["start"].sum() == pytest.approx(30 + model.startprob_prior_.sum())
    one = hmm(kind=kind, posterior=posterior).fit(X[:1, :2])
    assert np.isfinite(one.elbo_) and one.converged_
    assert one.forecast(X[:1, :2], 3).state_probabilities.shape == (1, 3, 2)


def test_sequences_are_told_by_ids():
    X, _ = chains("diag", (6, 4))
    with pytest.raises(ValueError, match=r"sequence: id .* comes back at row 9"):
        hmm(sequence=2).fit(X[[0, 1, 2, 3, 4, 5, 6, 7, 8, 0]])
    for call in ("fit", "partial_fit"):
        with pytest.raises((TypeError, ValueError), match="sequence_ids"):
            getattr(hmm(), call)(X[:, :2], lengths=[6, 4])
    bad = X.copy()
    bad[3, 2] = np.nan
    with pytest.raises(ValueError, match="sequence must name a column of ids"):
        hmm(sequence=2).fit(bad)
    with pytest.raises(ValueError, match=r"sequence=7 is out of range"):
        hmm(sequence=7).fit(X)
    with pytest.raises(ValueError, match="already stands in sequence=2"):
        hmm(sequence=2, sequence_weight=-1).fit(X)
    # in predictions, too
    model = hmm(sequence=2).fit(X)
    for method in ("predict", "score_samples", "forecast", "transform", "score"):
        with pytest.raises(ValueError, match="comes back"):
            getattr(model, method)(X[[0, 6, 1]])


def test_weights_are_constant_in_a_sequence():
    X, _ = chains("diag", (6, 4))
    X = np.column_stack([X, np.ones(10)])
    model = hmm(sequence=2, sequence_weight=3)
    for row, value, message in (
        (2, 3.0, "sequence_weight.*(constant|same|one weight)"),
        (slice(6, None), -1.0, "sequence_weight"),
        (slice(6, None), np.nan, "sequence_weight"),
        (slice(None), 0.0, "sequence_weight|weight"),
    ):
        bad = X.copy()
        bad[row, 3] = value
        with pytest.raises(ValueError, match=message):
            model.fit(bad)
    assert not hasattr(model, "means_")
    # without ids all of X is one sequence of one weight
    with pytest.raises(ValueError, match="sequence_weight"):
        bad = X[:, [0, 1, 3]].copy()
        bad[2, 2] = 2.0
        hmm(sequence_weight=2).fit(bad)


@pytest.mark.parametrize("library", [pd, pl])
def test_frames_with_names_of_sequences(library):
    X, _ = chains("full", (7, 1, 5))
    names = np.array(["north", "a station", "south"])[X[:, 2].astype(int)]
    columns = {"station": names, "wind": X[:, 0], "rain": X[:, 1]}
    frame = library.DataFrame(columns)
    model = hmm(kind="full", sequence="station").fit(frame)
    same = hmm(kind="full", sequence=2).fit(X)
    assert model.elbo_ == pytest.approx(same.elbo_, rel=1e-12)
    assert list(model.feature_names_in_) == ["station", "wind", "rain"]
    assert model.n_features_in_ == 3 and model.means_.shape == (2, 2)
    np.testing.assert_array_equal(model.predict(frame), same.predict(X))
    np.testing.assert_allclose(model.score_samples(frame), same.score_samples(X))
    np.testing.assert_allclose(model.forecast(frame, 2).mean, same.forecast(X, 2).mean)
    out = model.set_output(transform="pandas").transform(frame)
    assert list(out.columns) == list(model.get_feature_names_out())
    assert out.shape == (13, 2)
    with pytest.raises(ValueError, match="'city' is not a column of X"):
        hmm(sequence="city").fit(frame)
    named = [name for name in model.summary().names if "wind" in name]
    assert named and not any("station" in name for name in model.summary().names)


# -- inside scikit-learn ---------------------------------------------------------------


def test_cross_validation_by_sequences():
    X, _ = chains("poisson", (12,) * 9, seed=8)
    folds = GroupKFold(3)
    scores = {}
    for K in (1, 2):
        scores[K] = cross_val_score(
            hmm(K, "poisson", sequence=2), X, groups=X[:, 2], cv=folds
        )
        again = cross_val_score(
            hmm(K, "poisson", sequence=2),
            X,
            groups=X[:, 2],
            cv=folds,
            scoring=log_predictive_density_scorer,
        )
        np.testing.assert_allclose(scores[K], again)
    assert np.all(scores[2] > scores[1] + 0.5)
    search = GridSearchCV(
        hmm(1, "poisson", sequence=2), {"n_components": [1, 2]}, cv=folds
    ).fit(X, groups=X[:, 2])
    assert search.best_params_ == {"n_components": 2}
    everything = [(np.arange(len(X)), np.arange(len(X)))]
    search = GridSearchCV(
        hmm(1, "poisson", sequence=2),
        {"n_components": [1, 2, 4]},
        scoring=elbo_scorer,
        cv=everything,
    ).fit(X)
    assert search.best_params_ == {"n_components": 2}


def test_a_pipeline_forecasts_through_unwrap():
    X, _ = chains("full", (20, 9))
    frame = pd.DataFrame(X, columns=["a", "b", "run"])
    scale = ColumnTransformer(
        [("scale", StandardScaler(), ["a", "b"])],
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    pipeline = make_pipeline(scale, hmm(kind="full", sequence="run")).fit(frame)
    model, inside = skvi.unwrap(pipeline, frame)
    assert list(inside["run"]) == list(frame["run"])
    np.testing.assert_array_equal(pipeline.predict(frame), model.predict(inside))
    ahead = model.forecast(inside, 4)
    assert ahead.mean.shape == (2, 4, 2)
    plain = hmm(kind="full", sequence=2).fit(X)
    np.testing.assert_array_equal(plain.predict(X), pipeline.predict(frame))
    scaler = scale.fit(frame).named_transformers_["scale"]
    np.testing.assert_allclose(
        scaler.mean_ + scaler.scale_ * ahead.mean,
        plain.forecast(X, 4).mean,
        rtol=1e-4,
        atol=1e-3,
    )


# -- the future ------------------------------------------------------------------------


def state_at_end(model, x):
    """P(state of the last step | steps), under the predictive law."""
    alpha = twins.forward(*predictive_chain(model, x))
    return special.softmax(alpha[-1])


def brute_force(model, x, n_steps, n, rng):
    """Futures of a sequence under the predictive law: (n, n_steps, D)."""
    law = law_of(model)
    K = model.n_components
    z = rng.choice(K, size=n, p=state_at_end(model, x))
    out = []
    for _ in range(n_steps):
        z = (rng.random((n, 1)) > model.transmat_.cumsum(axis=1)[z]).sum(axis=1)
        if model.emissions == "poisson":
            p = law["rate"] / (1.0 + law["rate"])
            out.append(rng.negative_binomial(law["shape"][z], p[z]))
        elif model.emissions == "bernoulli":
            out.append(rng.random((n, 2)) < model.emissionprob_[z])
        else:
            df, dim = law["excess"], model.means_.shape[1]
            df = np.broadcast_to(df, K)
            wider = 1.0 + 1.0 / np.broadcast_to(law["beta"], K)
            C = np.broadcast_to(law["C"], (K, dim, dim))
            draws = np.empty((n, dim))
            for k in range(K):
                here = z == k
                draws[here] = stats.multivariate_t.rvs(
                    law["location"][k],
                    C[k] / df[k] * wider[k],
                    df[k],
                    size=here.sum(),
                    random_state=rng,
                ).reshape(-1, dim)
            out.append(draws)
    return np.stack(out, axis=1).astype(float)


@pytest.mark.parametrize("kind", ["full", "tied", "poisson", "bernoulli"])
@each_posterior
def test_forecasts_are_those_of_simulated_futures(kind, posterior):
    X, _ = chains(kind, (60, 45), seed=9)
    model = hmm(kind=kind, posterior=posterior, sequence=2).fit(X)
    ahead = model.forecast(X, n_steps=3)
    features, slices, _ = sequences_of(model, X)
    rng = np.random.default_rng(0)
    n = 30_000
    mean, std = ahead.mean, ahead.std()
    assert mean.shape == std.shape == (2, 3, 2)
    drawn = ahead.sample(n, random_state=0)
    assert drawn.shape == (n, 2, 3, 2)
    for s, rows in enumerate(slices):
        p = state_at_end(model, features[rows])
        for h in range(3):
            p = p @ model.transmat_
            np.testing.assert_allclose(ahead.state_probabilities[s, h], p, rtol=1e-8)
        futures = brute_force(model, features[rows], 3, n, rng)
        for draws in (futures, drawn[:, s]):
            error = std[s] / np.sqrt(n)
            assert np.all(np.abs(draws.mean(axis=0) - mean[s]) < 5 * error)
            np.testing.assert_allclose(draws.std(axis=0), std[s], rtol=0.03)
        # steps of one future belong together
        both = [
            np.corrcoef(d[:, 0, 0], d[:, 1, 0])[0, 1] for d in (futures, drawn[:, s])
        ]
        assert abs(both[0] - both[1]) < 0.03
        for level in (0.5, 0.9):
            interval = ahead.interval(level)
            assert interval.shape == (2, 3, 2, 2)
            inside = (futures >= interval[s, ..., 0]) & (futures <= interval[s, ..., 1])
            share = inside.mean(axis=0)
            assert np.all(share > level - 0.01)
            if kind in GAUSSIAN:
                assert np.all(share < level + 0.01)
        quantiles = ahead.quantile([0.1, 0.5, 0.9])
        assert quantiles.shape == (2, 3, 2, 3)
        if kind in GAUSSIAN:
            np.testing.assert_allclose(
                quantiles[s],
                np.moveaxis(np.quantile(futures, [0.1, 0.5, 0.9], axis=0), 0, -1),
                atol=0.06 * np.max(std[s]),
            )
        else:
            below = futures[..., None] <= quantiles[s]
            assert np.all(below.mean(axis=0) > np.array([0.1, 0.5, 0.9]) - 0.01)
            assert np.all((quantiles[s] % 1) == 0)
    np.testing.assert_array_equal(drawn[:5], ahead.sample(n, random_state=0)[:5])


@each_posterior
def test_forecasts_and_scores_say_the_same_of_the_next_step(posterior):
    X, _ = chains("categorical", (15, 9))
    model = hmm(kind="categorical", posterior=posterior, sequence=2).fit(X)
    ahead = model.forecast(X, n_steps=2)
    assert ahead.probabilities.shape == (2, 2, 5)
    np.testing.assert_allclose(ahead.probabilities[..., :3].sum(axis=-1), 1.0)
    for name in ("mean", "std", "quantile", "interval"):
        assert not hasattr(ahead, name)
    for code in range(3):
        first = X[:15]
        longer = np.concatenate([first, [[code, np.nan, 0.0]]])
        score = model.score_samples(longer)[-1]
        assert np.exp(score) == pytest.approx(ahead.probabilities[0, 0, code])
        longer = np.concatenate([first, [[np.nan, np.nan, 0.0], [code, np.nan, 0.0]]])
        score = model.score_samples(longer)[-1]
        assert np.exp(score) == pytest.approx(ahead.probabilities[0, 1, code])
    drawn = ahead.sample(20_000, random_state=0)
    share = (drawn[:, 1, 1, 0, None] == np.arange(3)).mean(axis=0)
    np.testing.assert_allclose(share, ahead.probabilities[1, 1, :3], atol=0.02)


@each_gaussian
def test_forecasts_integrate_scores(kind):
    X, _ = chains(kind, (25, 9))
    X = X[:, [0, 2]]
    model = hmm(kind=kind, sequence=1).fit(X)
    ahead = model.forecast(X, 1)
    x, w = quadrature(X[:, 0].mean(), X[:, 0].std())
    rows = np.concatenate([np.append(X[:25, 0], value) for value in x])
    rows = np.column_stack([rows, np.repeat(np.arange(len(x)), 26)])
    p = w * np.exp(model.score_samples(rows).reshape(len(x), 26)[:, -1])
    mean = p @ x
    assert ahead.mean[0, 0, 0] == pytest.approx(mean, rel=1e-5)
    assert ahead.std()[0, 0, 0] == pytest.approx(np.sqrt(p @ (x - mean) ** 2), rel=1e-4)
    low, high = ahead.interval(0.8)[0, 0, 0]
    assert p[(x > low) & (x < high)].sum() == pytest.approx(0.8, abs=0.02)


def test_far_forecasts_forget():
    X, _ = chains("full", (60, 45))
    model = hmm(kind="full", sequence=2).fit(X)
    far = model.forecast(X, 400).state_probabilities[:, -1]
    np.testing.assert_allclose(far @ model.transmat_, far, rtol=1e-9)
    np.testing.assert_allclose(far[0], far[1], rtol=1e-9)
    for bad in (0, -1, 1.5):
        with pytest.raises(ValueError, match="n_steps"):
            model.forecast(X, bad)


@each_kind
def test_samples_follow_the_model(kind):
    X, _ = chains(kind, (400, 300))
    model = hmm(kind=kind, sequence=2).fit(X)
    drawn, states = model.sample(8_000, random_state=0)
    assert drawn.shape == (8_000, 2) and states.shape == (8_000,)
    again, _ = model.sample(8_000, random_state=0)
    np.testing.assert_array_equal(drawn, again)
    moves = np.zeros((2, 2))
    np.add.at(moves, (states[:-1], states[1:]), 1.0)
    moves /= moves.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(moves, model.transmat_, atol=0.05)
    if kind in GAUSSIAN:
        expected, size = model.means_, np.sqrt(np.max(model.covariances_))
    elif kind == "poisson":
        expected, size = model.rates_, 3.0
    elif kind == "bernoulli":
        expected, size = model.emissionprob_, 1.0
    else:
        drawn = (drawn[:, 0, None] == np.arange(3)).astype(float)
        expected, size = model.emissionprob_[:, :3], 1.0
    for k in range(2):
        gap = drawn[states == k].mean(axis=0) - expected[k]
        assert np.all(np.abs(gap) < 0.08 * size)
    assert model.score(np.column_stack([model.sample(500, 1)[0], np.zeros(500)])) > (
        model.score(X) - 0.3
    )
    with pytest.raises(ValueError, match="n_samples=0"):
        model.sample(0)


# -- draws from the posterior ----------------------------------------------------------


@each_kind
@each_posterior
def test_drawn_states_follow_the_smoothed_probabilities(kind, posterior):
    X, _ = chains(kind, (9, 1, 6), K=3, stay=0.7, clear=False)
    X[4, 0] = np.nan
    X[[2, 6], :2] = np.nan  # what their states are is known from the others' alone
    model = hmm(3, kind, posterior=posterior, sequence=2).fit(X)
    draws = model.sample_posterior(8_000, random_state=0, X=X)
    z = draws["states"]
    assert z.shape == (8_000, 16)
    share = (z[..., None] == np.arange(3)).mean(axis=0)
    np.testing.assert_allclose(share, model.predict_proba(X), atol=0.025)
    # and pairs: of one another in a chain, or not
    features, slices, _ = sequences_of(model, X)
    log_b, *chain = expected_chain(model, features)
    p = model.predict_proba(X)[:9]
    expected = np.sum(p[1:] * p[:-1], axis=1)
    if posterior == "structured":
        paths = twins.all_paths(9, 3)
        weights = twins.log_weights_of_paths(paths, log_b[slices[0]], *chain)
        expected = special.softmax(weights) @ (paths[:, 1:] == paths[:, :-1])
    together = np.mean(z[:, 1:9] == z[:, :8], axis=0)
    np.testing.assert_allclose(together, expected, atol=0.025)
    again = model.sample_posterior(8_000, random_state=0, X=X)
    np.testing.assert_array_equal(again["states"], z)
    assert ("missing" in draws) == (kind in ("full", "tied"))
    log_q = model.log_posterior_density(draws, X=X)
    assert log_q.shape == (8_000,) and np.all(np.isfinite(log_q))
    apart = log_q - model.log_posterior_density(draws)
    entropy = -sum(
        np.sum(special.xlogy(p, p)) for p in model.predict_proba(X)
    )  # of independent states: the largest
    if posterior == "mean_field" and "missing" not in draws:
        assert -apart.mean() == pytest.approx(entropy, abs=0.1)
    elif "missing" not in draws:
        assert -apart.mean() < entropy + 0.1


def in_units_of_the_model(fit, draws):
    """Draws of means and precisions as the model has them; others have no units."""
    if fit.emissions != "gaussian":
        return draws
    frame, kind = fit._fitted_frame, fit.covariance_type
    square = {"diag": frame.unit**2, "spherical": frame.unit[0] ** 2}.get(
        kind, np.outer(frame.unit, frame.unit)
    )
    return {
        **draws,
        "means": (draws["means"] - frame.centre) / frame.unit,
        "precisions": draws["precisions"] * square,
    }


@each_kind
def test_the_models_own_log_joint_is_that_of_scipy(kind):
    X, _ = chains(kind, (8, 1, 5), clear=False)
    fit = hmm(kind=kind, sequence=2).fit(X)
    model, _, _, sequences = fit._local_model(X)
    x, _ = fit._emission_kind.inward(X[:, :2], fit._fitted_frame)
    draws = fit.sample_posterior(50, random_state=0, X=X)
    own = model.log_joint(in_units_of_the_model(fit, draws), x, sequences)
    gap = own - hmm_log_joint(fit, X, draws)
    # the volume of the units
    assert gap.std() < 1e-8
    assert abs(gap.mean()) < 1e-8 or kind in GAUSSIAN
    # many draws from the prior: each has a density, and means what it should
    rng = np.random.default_rng(0)
    steps, first, stays = [], [], []
    for _ in range(200):
        new, z = model.sample_prior_predictive(sequences, rng)
        assert new.shape == (14, 2) and z["states"].shape == (1, 14)
        assert np.all(np.isfinite(model.log_joint(z, _coded(fit, new), sequences)))
        steps.append(new)
        first.append(z["states"][0, sequences.firsts])
        stays.append(z["states"][0, 0] == z["states"][0, 1])
    assert np.mean(first) == pytest.approx(0.5, abs=0.1)
    assert np.mean(stays) == pytest.approx(0.5, abs=0.15)
    mean = np.mean(steps, axis=(0, 1))
    if kind == "poisson":
        shape, rate = fit.rate_prior_
        np.testing.assert_allclose(mean, shape / rate, rtol=0.3)
    elif kind == "bernoulli":
        np.testing.assert_allclose(mean, 0.5, atol=0.1)
    elif kind == "categorical":
        np.testing.assert_allclose(mean, [1.0, 0.5], atol=0.15)


def _coded(fit, new):
    """Steps as the model reads them: categories by codes of all columns."""
    if fit.emissions != "categorical":
        return new
    return fit._emission_kind.inward(new, fit._fitted_frame)[0]


# -- ways of reading steps -------------------------------------------------------------


def lazy(T, K, seed, stay, apart):
    """One long sequence whose steps say little of its states."""
    rng = np.random.default_rng(seed)
    states = np.empty(T, dtype=int)
    states[0] = 0
    moves, steps = rng.random(T) > stay, rng.integers(1, K, T)
    states = np.cumsum(np.where(moves, steps, 0)) % K
    return apart * states[:, None] + rng.standard_normal((T, 1)), states


@pytest.mark.parametrize(
    ("lengths", "stay", "apart"),
    [((66_000, 1, 3_999), 0.9999, 0.3), ((6_000, 1, 999), 0.9, 2.0)],
)
def test_long_sequences_are_their_twin(lengths, stay, apart):
    x, _ = lazy(sum(lengths), 3, 0, stay, apart)
    X = np.column_stack([x, sequence_ids(lengths)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = hmm(3, sequence=1, max_iter=3).fit(X)
        two = clone(model).set_params(n_jobs=2).fit(X)
    assert two.elbo_ == pytest.approx(model.elbo_, rel=1e-10)
    np.testing.assert_allclose(two.means_, model.means_, rtol=1e-8)
    proba, scores = model.predict_proba(X), model.score_samples(X)
    path = model.predict(X)
    np.testing.assert_allclose(two.predict_proba(X), proba, atol=1e-8)
    log_b, *chain = expected_chain(model, x)
    predictive = predictive_chain(model, x)
    for rows in sequences_of(model, X)[1]:
        gamma = twins.forward_backward(log_b[rows], *chain)[1]
        np.testing.assert_allclose(proba[rows], gamma, atol=1e-8)
        alpha = twins.forward(predictive[0][rows], *predictive[1:])
        so_far = special.logsumexp(alpha, axis=1)
        np.testing.assert_allclose(np.cumsum(scores[rows]), so_far, rtol=1e-8)
        best, _ = twins.viterbi(log_b[rows], *chain)
        np.testing.assert_array_equal(path[rows], best)
    bound = hmm_bound(model, X, law_of(model))
    assert model.elbo_ == pytest.approx(bound, rel=1e-10)


@pytest.mark.parametrize("turns", [0, 1])
def test_chains_that_never_forget(turns):
    # States that stay for good, or take turns: where a sequence began is known from
    # its end, however far, and only from there.
    T, K = 5_000, 3
    trans = 1e7 * np.roll(np.eye(K), turns, axis=1) + 1e-8
    rng = np.random.default_rng(0)
    x = rng.standard_normal((T, 1))
    x[-60:, 0] += 3.0 * ((np.arange(T - 60, T) * turns + 1) % K)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = hmm(K, transmat_prior=trans, max_iter=2).fit(x)
    chain = expected_chain(model, x)
    gamma = twins.forward_backward(*chain)[1]
    np.testing.assert_allclose(model.predict_proba(x), gamma, atol=1e-6)
    assert model.elbo_ == pytest.approx(hmm_bound(model, x, law_of(model)), rel=1e-9)


@each_posterior
@pytest.mark.parametrize("kind", ["full", "poisson", "categorical"])
def test_number_of_jobs_and_backends_do_not_matter(kind, posterior):
    X, _ = chains(kind, (300, 1, 200, 40, 7), K=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = hmm(3, kind, posterior=posterior, sequence=2, max_iter=20).fit(X)
        two = clone(model).set_params(n_jobs=2).fit(X)
        with parallel_config(backend="loky", n_jobs=2):
            processes = clone(model).set_params(n_jobs=2).fit(X)
            outside = processes.predict_proba(X)
    for other in (two, processes):
        assert other.elbo_ == pytest.approx(model.elbo_, rel=1e-12)
        assert other.n_iter_ == model.n_iter_
        np.testing.assert_allclose(other.transmat_, model.transmat_, rtol=1e-9)
    np.testing.assert_allclose(outside, model.predict_proba(X), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", ["full", "diag", "poisson", "categorical"])
@each_posterior
def test_blocks_and_groups_do_not_matter(kind, posterior, monkeypatch):
    X, _ = chains(kind, (100, 1, 170, 40, 7, 60), K=3, stay=0.9, clear=False)
    whole = hmm(3, kind, posterior=posterior, sequence=2).fit(X)
    expected = whole.predict_proba(X), whole.score_samples(X), whole.predict(X)
    monkeypatch.setattr("skvi.models.sequences.GROUP_STEPS", 64)
    monkeypatch.setattr("skvi.models.hmm.model.GROUP_STEPS", 64)
    # groups within a block of many sequences, or blocks of about one
    for size, n_jobs in ((1 << 16, 1), (80, 2)):
        monkeypatch.setattr("skvi.models.sequences.BLOCK_STEPS", size)
        parts = clone(whole).set_params(n_jobs=n_jobs).fit(X)
        assert parts.elbo_ == pytest.approx(whole.elbo_, rel=1e-10)
        assert parts.n_iter_ == whole.n_iter_
        np.testing.assert_allclose(parts.transmat_, whole.transmat_, atol=1e-8)
        found = parts.predict_proba(X), parts.score_samples(X), parts.predict(X)
        for a, b in zip(found, expected):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("kind", ["full", "diag", "poisson", "categorical"])
@each_posterior
def test_partial_fit_by_sequences(kind, posterior):
    lengths = (24, 1, 18, 30, 6, 40, 16, 24)
    X, _ = chains(kind, lengths, seed=10)
    ids = X[:, 2]
    whole = hmm(kind=kind, posterior=posterior, sequence=2).fit(X)
    # The first call is a fit, as far as it goes.
    first = clone(whole).partial_fit(X)
    assert first.elbo_ == pytest.approx(whole.elbo_, abs=1e-3)
    assert first.n_steps_seen_ == len(X)
    for cuts in ([4], [2, 4, 6]):
        model = clone(whole)
        parts = np.split(np.arange(len(lengths)), cuts)
        for some in parts[::-1]:
            model.partial_fit(X[np.isin(ids, some)])
        assert model.n_steps_seen_ == len(X)
        for _ in range(4):
            for some in parts:
                model.partial_fit(X[np.isin(ids, some)])
        # from the same optimum: the first block chooses which one
        again = deepcopy(model).set_params(warm_start=True).fit(X)
        assert model.score(X) > again.score(X) - 0.1
        np.testing.assert_allclose(model.transmat_.sum(axis=1), 1.0)


def test_partial_fit_follows_a_stream():
    blocks = [chains("full", (60, 40), K=3, seed=s, stay=0.9) for s in range(12)]
    model = hmm(3, "full", sequence=2, init_params="auto", n_init=3)
    for X, _ in blocks:
        model.partial_fit(X)
    whole = np.concatenate([X for X, _ in blocks])
    whole[:, 2] = sequence_ids([60, 40] * 12)
    states = np.concatenate([z for _, z in blocks])
    fit = hmm(3, "full", sequence=2, init_params="auto", n_init=3).fit(whole)
    assert model.score(whole) > fit.score(whole) - 0.05
    assert adjusted_rand_score(states, model.predict(whole)) > 0.97
    assert model.n_steps_seen_ == 1_200
    with pytest.raises(ValueError, match="n_components=2"):
        model.set_params(n_components=2).partial_fit(whole)


@each_kind
@each_posterior
def test_warm_starts_go_on(kind, posterior):
    X, _ = chains(kind, (40, 20, 10), K=3, seed=11, stay=0.7)
    whole = hmm(3, kind, posterior=posterior, sequence=2).fit(X)
    parts = clone(whole).set_params(max_iter=2, warm_start=True)
    last = -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(4):
            parts.fit(X)
            assert parts.elbo_ >= last - 1e-9 * abs(last)
            last = parts.elbo_
    parts.set_params(max_iter=500).fit(X)
    assert parts.converged_
    more = deepcopy(parts).fit(X[:60])
    assert more.converged_
    with pytest.raises(ValueError, match="warm_start=False"):
        deepcopy(parts).set_params(n_components=2).fit(X)


def test_more_starts_are_not_worse():
    X, _ = chains("diag", (80, 40), K=3, seed=12)
    elbos = [
        hmm(4, sequence=2, init_params="random", n_init=n).fit(X).elbo_ for n in (1, 5)
    ]
    assert elbos[1] >= elbos[0] - 1e-3
    assert hmm(4, sequence=2, init_params="auto").fit(X).elbo_ >= elbos[1] - 5.0


# -- units, digits ---------------------------------------------------------------------


@each_gaussian
@each_posterior
@pytest.mark.parametrize("c", [1e-8, 1e8])
def test_units_do_not_change_states(kind, posterior, c):
    X, _ = chains(kind, (150, 60), K=3)
    units = np.array([c, c, 1.0])
    model = hmm(3, kind, posterior=posterior, sequence=2).fit(X)
    other = hmm(3, kind, posterior=posterior, sequence=2).fit(X * units)
    np.testing.assert_array_equal(other.predict(X * units), model.predict(X))
    np.testing.assert_allclose(other.means_ / c, model.means_, rtol=1e-6)
    change = -2 * len(X) * np.log(c)
    assert other.elbo_ == pytest.approx(model.elbo_ + change, rel=1e-8)
    ahead = other.forecast(X * units, 2)
    np.testing.assert_allclose(ahead.std() / c, model.forecast(X, 2).std(), rtol=1e-5)


@each_kind
@each_posterior
def test_float32(kind, posterior):
    X, _ = chains(kind, (90, 30), K=3)
    single = X.astype(np.float32)
    a = hmm(3, kind, posterior=posterior, sequence=2).fit(single)
    b = hmm(3, kind, posterior=posterior, sequence=2).fit(single.astype(np.float64))
    assert abs(a.elbo_ - b.elbo_) < 1e-3 * len(X)
    assert np.mean(a.predict(single) == b.predict(single)) > 0.99
    np.testing.assert_allclose(
        a.predict_proba(single), b.predict_proba(single), atol=1e-2
    )
    assert np.all(np.isfinite(a.score_samples(single)))


@each_posterior
@pytest.mark.parametrize("kind", ["full", "diag", "poisson", "categorical"])
def test_a_fit_keeps_nothing_of_the_size_of_X(kind, posterior):
    rng = np.random.default_rng(0)
    states = (np.arange(20_000) // 7) % 2
    X = chains_of_steps(kind, clear=True).emit(states, rng)
    X = np.column_stack([X, sequence_ids([5_000] * 4)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = hmm(kind=kind, posterior=posterior, sequence=2, max_iter=2).fit(X)
        model.partial_fit(X)
    assert len(pickle.dumps(model)) < 40_000
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict(X), model.predict(X))


# -- hard inputs -----------------------------------------------------------------------


def finite(model, X):
    """All that is said is made of numbers."""
    X = X if X.ndim == 2 else X[:, None]
    values = [
        model.score_samples(X),
        model.predict_proba(X),
        model.predict(X),
        model.startprob_,
        model.transmat_,
        model.transmat_std_,
        model.sample(5)[0],
        model.elbo_,
        model.forecast(X, 2).state_probabilities,
    ]
    if model.emissions == "gaussian":
        values += [model.means_, model.covariances_, model.forecast(X, 2).std()]
    return all(np.all(np.isfinite(value)) for value in values)


@each_gaussian
@each_posterior
def test_degenerate_steps(kind, posterior):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 2))
    cases = {
        "constant": np.full((20, 2), 0.3),
        "zeros": np.zeros((5, 2)),
        "a constant column": np.column_stack([X, np.full(30, 0.1)]),
        "collinear columns": np.column_stack([X, X.sum(axis=1)]),
        "one step": X[:1],
        "fewer steps than states": X[:3],
        "more columns than steps": rng.standard_normal((6, 12)),
        "two values": np.repeat([[0.0, 1.0], [5.0, 5.0]], 10, axis=0),
        "taking turns": np.tile([[0.0, 1.0], [5.0, 5.0]], (10, 1)),
        "large numbers": 1e150 * X,
        "a far origin": 1e9 + X,
    }
    for name, rows in cases.items():
        for K in (1, 4):
            model = hmm(K, kind, posterior=posterior)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(rows)
                assert finite(model, rows), name


@each_gaussian
@each_posterior
def test_a_far_outlier_does_not_hide_the_states(kind, posterior):
    X, states = chains(kind, (300,), stay=0.9)
    far = X.copy()
    far[100, :2] = 1e6
    model = hmm(3, kind, posterior=posterior, sequence=2, init_params="auto")
    # A prior relative to the data is that of the outlier: it takes one in their units.
    known = {"diag": [1.0, 9.0], "spherical": 5.0}.get(kind, np.diag([1.0, 9.0]))
    for prior in (None, known):
        model.set_params(covariance_prior=prior).fit(far)
        assert finite(model, far)
    if kind == "tied":
        return  # one covariance for all, which the far mean alone makes large
    found = model.predict(far)
    assert np.sum(found == found[100]) == 1
    rest = np.arange(300) != 100
    assert adjusted_rand_score(states[rest], found[rest]) > 0.9


@each_posterior
def test_counts_that_are_hard(posterior):
    params = {"posterior": posterior}
    for K in (1, 3):
        zeros = hmm(K, "poisson", **params).fit(np.zeros((12, 2)))
        assert finite(zeros, np.zeros((12, 2)))
        assert np.all(zeros.rates_ < 1.0) and np.all(zeros.rates_ > 0.0)
        one = np.zeros((40, 2))
        one[17, 0] = 1.0
        assert finite(hmm(K, "poisson", **params).fit(one), one)
        column = np.column_stack([np.zeros(30), np.arange(30) % 4])
        assert finite(hmm(K, "poisson", **params).fit(column), column)
    rng = np.random.default_rng(0)
    states = (np.arange(200) // 20) % 2
    for size in (1e6, 1e12):
        huge = rng.poisson(np.array([size, 2 * size])[states])[:, None].astype(float)
        model = hmm(kind="poisson", **params).fit(huge)
        assert finite(model, huge)
        assert adjusted_rand_score(states, model.predict(huge)) == 1.0
        found = np.sort(model.rates_[:, 0])
        np.testing.assert_allclose(found, [size, 2 * size], rtol=0.01)
    # real numbers are counts, too
    halves = rng.poisson(np.array([2.0, 9.0])[states])[:, None] + 0.5
    model = hmm(kind="poisson", **params).fit(halves)
    assert finite(model, halves)
    assert model.elbo_ == pytest.approx(
        hmm_bound(
            model,
            halves,
            law_of(model),
            model.predict_proba(halves) if posterior == "mean_field" else None,
        ),
        rel=1e-7,
    )
    for kind in COUNTS:
        with pytest.raises(ValueError, match=r"[Nn]egative"):
            hmm(kind=kind, **params).fit([[1.0, 0.0], [-1.0, 1.0]])


@each_posterior
def test_constant_and_rare_categories(posterior):
    zeros = np.zeros((10, 2))
    for kind in ("bernoulli", "categorical"):
        model = hmm(3, kind, posterior=posterior).fit(zeros)
        assert finite(model, zeros)
    ones = hmm(2, "bernoulli", posterior=posterior).fit(np.full((10, 2), 7.0))
    assert np.all(ones.emissionprob_ > 0.5)
    # fractions are cut off
    X, _ = chains("categorical", (30,))
    a = hmm(kind="categorical", posterior=posterior, sequence=2).fit(X)
    X[:, :2] += 0.9
    b = hmm(kind="categorical", posterior=posterior, sequence=2).fit(X)
    assert a.elbo_ == b.elbo_


def test_categories():
    X, _ = chains("categorical", (30, 12))
    model = hmm(kind="categorical", sequence=2, n_categories=None).fit(X)
    np.testing.assert_array_equal(model.n_categories_, [3, 2])
    assert model.emissionprob_.shape == model.emissionprob_std_.shape == (2, 5)
    assert model.probability_prior_.shape == (5,)
    np.testing.assert_allclose(model.emissionprob_[:, :3].sum(axis=1), 1.0)
    unseen = X.copy()
    unseen[4, 1] = 2.0
    for method in ("predict", "score_samples", "forecast", "partial_fit"):
        with pytest.raises(ValueError, match="n_categories"):
            getattr(model, method)(unseen)
    wide = hmm(kind="categorical", sequence=2, n_categories=4).fit(X)
    np.testing.assert_array_equal(wide.n_categories_, [4, 4])
    assert np.all(np.isfinite(wide.score_samples(unseen)))
    each = hmm(kind="categorical", sequence=2, n_categories=[3, 3]).fit(X)
    np.testing.assert_array_equal(each.n_categories_, [3, 3])
    assert np.all(np.isfinite(each.score_samples(unseen)))
    for bad in (2, [3, 1], [3], [3, 2, 2], 0):
        with pytest.raises(ValueError, match="n_categories"):
            hmm(kind="categorical", sequence=2, n_categories=bad).fit(X)


@each_kind
@each_posterior
def test_more_states_than_steps(kind, posterior):
    X, _ = chains(kind, (3, 1))
    model = hmm(7, kind, posterior=posterior, sequence=2).fit(X)
    assert finite(model, X)
    assert model.transmat_.shape == (7, 7)


def test_columns_of_which_nothing_is_known():
    for kind in KINDS:
        X, _ = chains(kind, (12, 6))
        X[:, 1] = np.nan
        if kind in GAUSSIAN:
            with pytest.raises(ValueError, match=r"\[1\] of X hold no number.*NaN"):
                hmm(kind=kind, sequence=2).fit(X)
            continue
        model = hmm(kind=kind, sequence=2, n_categories=None).fit(X)
        assert finite(model, X)


@each_kind
@each_posterior
def test_missing_entries_cost_what_they_knew(kind, posterior):
    X, states = chains(kind, (250, 150), stay=0.9, seed=13)
    holes = with_holes(X, 0.3)
    model = hmm(kind=kind, posterior=posterior, sequence=2, init_params="auto")
    model.fit(holes)
    # beside one who knows the parameters, as all the data tell them with the states
    rng = np.random.default_rng(0)
    many = np.repeat([0, 1], 2_000)
    emitted = chains_of_steps(kind, clear=True).emit(many, rng)
    oracle = clone(model).fit(
        np.column_stack([emitted, np.repeat(np.arange(4), 1_000)])
    )
    features, slices, _ = sequences_of(model, holes)
    log_b = expected_log_densities(oracle, law_of(oracle), features)
    log_trans = np.log([[0.9, 0.1], [0.1, 0.9]])
    best = np.concatenate(
        [
            twins.forward_backward(log_b[r], np.log([0.5, 0.5]), log_trans)[1]
            for r in slices
        ]
    ).argmax(axis=1)
    agreement = max(np.mean(best == states), np.mean(best != states))
    found = model.predict(holes, method="marginal")
    accuracy = max(np.mean(found == states), np.mean(found != states))
    assert accuracy > agreement - 0.03


@each_posterior
def test_a_step_of_which_nothing_is_known_adds_nothing(posterior):
    for kind in KINDS:
        X, _ = chains(kind, (20,))
        more = np.concatenate([X, [[np.nan, np.nan, 0.0]] * 3])
        model = hmm(kind=kind, posterior=posterior, sequence=2).fit(X)
        other = clone(model).fit(more)
        if posterior == "structured":
            # chains sum to one whatever follows, but for the mean logs
            assert abs(other.elbo_ - model.elbo_) < 0.7
        single = hmm(1, kind, posterior=posterior, sequence=2)
        assert clone(single).fit(more).elbo_ == pytest.approx(
            clone(single).fit(X).elbo_, rel=1e-10
        )
        np.testing.assert_allclose(model.score_samples(more)[20:], 0.0, atol=1e-12)


# -- what a user is told ---------------------------------------------------------------

BAD = [
    ({"K": 0}, "'n_components'.*Got 0"),
    ({"emissions": "student"}, "'emissions'.*'student'"),
    ({"kind": "diag", "covariance_type": "round"}, "'covariance_type'.*'round'"),
    ({"posterior": "exact"}, "'posterior'.*'exact'"),
    ({"stickiness": -1.0}, "'stickiness'.*Got -1.0"),
    ({"tol": -1.0}, "'tol'.*Got -1.0"),
    ({"max_iter": 0}, "'max_iter'.*Got 0"),
    ({"n_init": 0}, "'n_init'.*Got 0"),
    ({"init_params": "best"}, "'init_params'.*'best'"),
    ({"learning_decay": 0.4}, "'learning_decay'.*Got 0.4"),
    ({"startprob_prior": 0.0}, "startprob_prior"),
    ({"startprob_prior": [1.0, 1.0, 1.0]}, r"startprob_prior=.*shape \(2,\)"),
    ({"transmat_prior": [1.0, 1.0]}, r"transmat_prior=.*shape \(2, 2\)"),
    ({"transmat_prior": [[1.0, -1.0], [1.0, 1.0]]}, "transmat_prior.*positive"),
    ({"transmat_prior": np.nan}, "transmat_prior"),
    ({"mean_prior": [1.0]}, r"mean_prior has shape \(1,\).*\(2,\)"),
    ({"kind": "full", "covariance_prior": np.eye(3)}, "covariance_prior has shape"),
    ({"kind": "full", "degrees_of_freedom_prior": 1.0}, "degrees_of_freedom_prior=1.0"),
    ({"kind": "poisson", "rate_prior": 1.0}, "rate_prior"),
    ({"kind": "poisson", "rate_prior": (1.0, 0.0)}, "rate_prior"),
    ({"kind": "bernoulli", "probability_prior": 0.0}, "probability_prior"),
    ({"kind": "categorical", "probability_prior": -1.0}, "probability_prior"),
]


@pytest.mark.parametrize(("params", "message"), BAD)
def test_parameters_that_make_no_sense(params, message):
    params = dict(params)
    kind = params.get("kind", "diag")
    X, _ = chains(kind, (6, 4))
    estimator = hmm(**{"sequence": 2, **params})
    for method in (estimator.fit, estimator.partial_fit):
        with pytest.raises(ValueError, match=message):
            method(X)
    assert not hasattr(estimator, "transmat_")


def test_priors_are_what_was_asked_for():
    X, _ = chains("poisson", (12, 9))
    model = hmm(
        kind="poisson",
        sequence=2,
        startprob_prior=0.3,
        transmat_prior=2.0,
        stickiness=5.0,
        rate_prior=(1.5, 0.4),
    ).fit(X)
    np.testing.assert_array_equal(model.startprob_prior_, [0.3, 0.3])
    np.testing.assert_array_equal(model.transmat_prior_, [[7.0, 2.0], [2.0, 7.0]])
    shape, rate = model.rate_prior_
    assert shape == 1.5
    np.testing.assert_array_equal(rate, [0.4, 0.4])
    # stickiness is worth as many steps without a change
    loose = hmm(kind="poisson", sequence=2).fit(X)
    sticky = hmm(kind="poisson", sequence=2, stickiness=1e6).fit(X)
    assert np.all(np.diag(sticky.transmat_) > 0.999)
    assert np.all(np.diag(loose.transmat_) < 0.999)
    assert loose.startprob_prior_.shape == (2,)
    assert loose.transmat_prior_.shape == (2, 2)
    assert np.all(loose.transmat_prior_ > 0.0)
    # priors of counts follow the columns
    shape, rate = loose.rate_prior_
    other = hmm(kind="poisson", sequence=2).fit(X * [10.0, 1.0, 1.0])
    np.testing.assert_allclose(other.rate_prior_[1], rate / [10.0, 1.0])
    assert other.rate_prior_[0] == shape


def test_sparse_steps_are_refused():
    from scipy import sparse

    with pytest.raises(TypeError, match=r"[Ss]parse"):
        hmm(kind="poisson").fit(sparse.csr_array(np.eye(4)))


def test_tags():
    for kind in KINDS:
        tags = hmm(kind=kind).__sklearn_tags__()
        assert tags.input_tags.positive_only == (kind in COUNTS)
        assert tags.input_tags.allow_nan and not tags.input_tags.sparse


def test_methods_that_are_not_there():
    X, _ = chains("diag", (6, 4))
    model = hmm(sequence=2).fit(X)
    with pytest.raises(ValueError, match="method='best'"):
        model.predict(X, method="best")
    for name in ("rates_", "emissionprob_", "n_categories_"):
        assert not hasattr(model, name)
    counts = hmm(kind="poisson").fit(np.eye(4))
    for name in ("means_", "covariances_", "emissionprob_"):
        assert not hasattr(counts, name)
    with pytest.raises(ValueError, match="n_samples=0"):
        model.sample_posterior(0)
    with pytest.raises(TypeError):
        model.fit(X, sample_weight=np.ones(10))


def test_a_fit_that_stops_early_says_so_at_the_line_that_called_it():
    X, _ = chains("diag", (150, 60), K=3, stay=0.5)
    for call in ("fit", "fit_predict"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            getattr(hmm(5, sequence=2, max_iter=1), call)(X)
        (warning,) = caught
        assert issubclass(warning.category, ConvergenceWarning)
        assert "max_iter=1" in str(warning.message)
        if call == "fit":
            assert warning.filename == __file__


def test_fit_predict_is_predict():
    X, _ = chains("full", (30, 20))
    model = hmm(kind="full", sequence=2).fit(X)
    found = clone(model).fit_predict(X)
    np.testing.assert_array_equal(found, model.predict(X))
    assert found.dtype.kind == "i"
    np.testing.assert_array_equal(model.transform(X), model.predict_proba(X))
    assert len(model.get_feature_names_out()) == 2


@each_posterior
def test_callbacks_see_fits_and_stop_them(posterior):
    X, _ = chains("full", (150, 60), K=3, stay=0.6)
    seen = []

    def enough(fitted):
        seen.append((fitted.n_iter_, fitted.elbo_, fitted.score(X)))
        return len(seen) == 3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = hmm(5, "full", posterior=posterior, sequence=2)
        model.set_callbacks(StopWhen(enough)).fit(X)
    assert len(seen) == 3
    assert model.elbo_ == seen[-1][1]
    elbos = [elbo for _, elbo, _ in seen]
    assert elbos == sorted(elbos)


@each_kind
def test_summaries(kind):
    X, _ = chains(kind, (30, 12))
    model = hmm(kind=kind, sequence=2).fit(X)
    summary = model.summary()
    table = summary.to_pandas()
    assert np.all(np.isfinite(summary.mean)) and len(table) == len(summary.names)
    assert type(model).__name__ in repr(summary)
    draws = model.sample_posterior(40_000, random_state=0)
    moves = [i for i, name in enumerate(summary.names) if "trans" in name]
    assert len(moves) == 4
    flat = draws["transmat"].reshape(40_000, 4)
    np.testing.assert_allclose(summary.mean[moves], flat.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(summary.sd[moves], flat.std(axis=0), rtol=0.05)
    np.testing.assert_allclose(
        summary.lower[moves], np.quantile(flat, 0.025, axis=0), atol=0.01
    )
    np.testing.assert_allclose(
        summary.upper[moves], np.quantile(flat, 0.975, axis=0), atol=0.01
    )


# -- real data -------------------------------------------------------------------------


def steps_of(*parts):
    with np.load(data_path("timeseries", *parts)) as data:
        return {name: data[name] for name in data.files}


def reaction_times():
    data = steps_of("speed.npz")
    return np.column_stack([data["rt"], sequence_ids(data["lengths"])])


@each_posterior
def test_reaction_times_have_the_known_maximum_likelihood(posterior):
    X = reaction_times()
    found = []
    for weight in (1.0, 0.1, 1e-3):
        model = hmm(
            sequence=1,
            posterior=posterior,
            startprob_prior=weight,
            transmat_prior=weight,
            mean_precision_prior=0.1 * weight,
            degrees_of_freedom_prior=weight,
            covariance_prior=[0.05 * weight],
            tol=1e-9,
        ).fit(X)
        chain = plug_in_chain(model, X[:, :1])
        found.append(
            sum(
                twins.forward_backward(chain[0][rows], *chain[1:])[0]
                for rows in sequences_of(model, X)[1]
            )
        )
    # nearer and nearer as the prior weakens
    assert found == sorted(found)
    assert abs(found[-1] + 84.34) < 0.1
    order = np.argsort(model.means_[:, 0])
    np.testing.assert_allclose(model.means_[order, 0], [5.511, 6.385], atol=0.01)
    sd = np.sqrt(model.covariances_[order, 0])
    np.testing.assert_allclose(sd, [0.193, 0.244], atol=0.01)


def test_reaction_times_have_more_than_one_state():
    X = reaction_times()
    elbo = [hmm(K, sequence=1, init_params="auto").fit(X).elbo_ for K in (1, 2)]
    assert elbo[1] > elbo[0] + 150.0


@each_posterior
def test_mining_became_safer_about_1891(posterior):
    data = steps_of("coal_disasters.npz")
    model = hmm(kind="poisson", posterior=posterior, init_params="auto")
    path = model.fit_predict(data["count"][:, None].astype(float))
    early = model.rates_[:, 0].argmax()
    np.testing.assert_allclose(np.sort(model.rates_[:, 0]), [0.9, 3.1], atol=0.25)
    changes = data["year"][1:][np.diff(path) != 0]
    assert path[0] == early and len(changes) == 1
    assert 1886 <= changes[0] <= 1895
    assert model.elbo_ > hmm(1, "poisson").fit(data["count"][:, None]).elbo_ + 10.0


def test_volatility_has_regimes():
    price = steps_of("sp500_daily.npz")["price"]
    returns = 100.0 * np.diff(np.log(price))[:, None]
    models = [hmm(K, init_params="auto").fit(returns) for K in (1, 2, 3)]
    elbo = [model.elbo_ for model in models]
    assert elbo[0] + 500.0 < elbo[1] and elbo[1] + 50.0 < elbo[2]
    sd = np.sqrt(models[1].covariances_[:, 0])
    assert sd.max() > 2.0 * sd.min()
    # regimes last for weeks
    assert np.all(1.0 / (1.0 - np.diag(models[1].transmat_)) > 20.0)


def agreement(labels, states):
    """Share of steps that the best matching of states to labels gets right."""
    table = np.zeros((labels.max() + 1, states.max() + 1))
    np.add.at(table, (labels, states), 1.0)
    rows, columns = optimize.linear_sum_assignment(-table)
    return table[rows, columns].sum() / len(labels)


def test_motion_capture_agrees_with_its_labels():
    data = steps_of("mocap6.npz")
    lengths = np.diff(data["seq_start"])
    X = np.column_stack([data["X"], sequence_ids(lengths)])
    labels = data["label"].astype(int)
    labels = labels - labels.min()
    model = hmm(12, "full", sequence=12, init_params="auto", stickiness=100.0)
    states = model.fit_predict(X)
    assert agreement(labels, states) > 0.48
    assert adjusted_rand_score(labels, states) > 0.37


def test_spikes_have_states():
    counts = steps_of("spikes_e060817terpi.npz")["counts"].astype(float)
    n_trials, n_bins, n_neurons = counts.shape
    X = np.column_stack(
        [counts.reshape(-1, n_neurons), sequence_ids([n_bins] * n_trials)]
    )
    scores = [
        cross_val_score(
            hmm(K, "poisson", sequence=3, init_params="auto"),
            X,
            groups=X[:, 3],
            cv=GroupKFold(2),
        ).mean()
        for K in (1, 2, 4)
    ]
    assert scores[0] + 0.1 < scores[1] < scores[2]


# -- what a reader of the code might doubt ---------------------------------------------


def test_a_callback_sees_a_whole_fit():
    X = np.random.default_rng(0).normal(size=(60, 2))
    seen = []

    def look(fitted):
        again = deepcopy(fitted).set_callbacks()
        assert again.sample(3)[0].shape == (3, 2)
        assert len(again.summary().names) == 2 + 4 + 4
        assert again.forecast(X, 2).mean.shape == (1, 2, 2)
        assert again.partial_fit(X).n_steps_seen_ == 120
        seen.append(again)
        return False

    hmm(kind="full").set_callbacks(StopWhen(look)).fit(X)
    assert seen


def test_predictions_are_those_of_the_fit_whatever_is_set_later():
    X = np.random.default_rng(0).normal(size=(60, 2))
    model = hmm(kind="full").fit(X)
    expected = model.predict_proba(X), model.score_samples(X)
    model.set_params(
        covariance_type="diag", emissions="gaussian", mean_prior=[9.0, 9.0]
    )
    np.testing.assert_array_equal(model.predict_proba(X), expected[0])
    np.testing.assert_array_equal(model.score_samples(X), expected[1])
    with pytest.raises(ValueError, match="covariance_type='diag' \\(was 'full'\\)"):
        model.set_params(warm_start=True, mean_prior=None).fit(X)


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        ("bernoulli", {"probability_prior": 1e30}, "probability_prior"),
        ("categorical", {"probability_prior": 1e-300}, "probability_prior"),
        ("diag", {"stickiness": 1e308}, "stickiness"),
        ("diag", {"transmat_prior": 1e12}, "transmat_prior"),
        ("diag", {"startprob_prior": [1.0, -1.0]}, "startprob_prior"),
        ("diag", {"mean_prior": [1e300, 0.0]}, "priors"),
    ],
)
def test_priors_that_would_cost_the_bound_its_digits(kind, params, message):
    X = np.random.default_rng(0).integers(2, size=(60, 2)).astype(float)
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message):
        warnings.simplefilter("ignore")
        hmm(kind=kind, **params).fit(X)


@pytest.mark.parametrize("size", [1e3, 1e8, 1e17])
def test_quantiles_of_large_counts_are_those_of_draws(size):
    rng = np.random.default_rng(0)
    states = np.repeat(rng.integers(2, size=60), 10)
    X = np.floor((1.0 + states) * size * rng.uniform(0.9, 1.1, 600))[:, None]
    law = hmm(kind="poisson").fit(X).forecast(X, 10)
    levels = [0.25, 0.9]
    draws = law.sample(20_000, random_state=0)[:, 0, -1, 0]
    found = law.quantile(levels)[0, -1, 0]
    for level, value in zip(levels, found):
        assert np.mean(draws < value) - 0.02 < level < np.mean(draws <= value) + 0.02


def test_score_of_sequences_without_weight_names_the_parameter():
    X = np.c_[np.random.default_rng(0).normal(size=(20, 1)), np.ones(20)]
    model = hmm(kind="diag", sequence_weight=1).fit(X)
    with pytest.raises(ValueError, match="sequence_weight"):
        model.score(X * [1.0, 0.0])


def test_messages_of_weights_that_are_no_numbers_end():
    sequences = Sequences([0, 1_000])
    weights = ChainWeights(np.zeros(2), np.full((2, 2), np.nan))
    forward, _ = filtered(np.zeros((2, 1_000)), weights, sequences)
    assert np.isnan(forward[:, -1]).all()
