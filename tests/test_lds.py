"""What is particular to VariationalLinearDynamicalSystem; the rest is the contract's.

References are dense Gaussians, built from covariances of states, never by a recursion
over steps.
"""

import pickle
import warnings
from copy import deepcopy
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import linalg, special, stats
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GroupKFold, cross_val_score

import twins
from conftest import data_path
from lds_cases import COMPONENTS, as_covariance, known_start, preset
from skvi import VariationalLinearDynamicalSystem, sequence_ids
from skvi.callbacks import StopWhen
from skvi.kernels import tridiagonal
from skvi.linalg import BlockTridiagonalPrecision

TURN = np.array([[0.8, 0.4], [-0.4, 0.8]])
POSTERIORS = ("structured", "mean_field")
each_posterior = pytest.mark.parametrize("posterior", POSTERIORS)
PRESETS = {
    "local_level": {"structure": "local_level"},
    "local_linear_trend": {"structure": "local_linear_trend"},
    "seasonal": {"structure": "seasonal", "period": 4},
    "basic_structural": {"structure": "basic_structural", "period": 5},
}
VARIANCES = {"level": [0.5, 4.0], "slope": [0.05, 0.2], "seasonal": [0.1, 0.3]}


def lds(n_components=1, **params):
    return VariationalLinearDynamicalSystem(n_components, random_state=0, **params)


def with_ids(parts):
    """Sequences one after the other, with a last column of ids."""
    ids = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return np.column_stack([np.concatenate(parts), ids])


# -- dense Gaussians -------------------------------------------------------------------


@dataclass(frozen=True)
class Dense:
    """A system with known parameters; answers by conditioning of one big Gaussian."""

    A: np.ndarray
    Q: np.ndarray
    C: np.ndarray
    d: np.ndarray
    R: np.ndarray  # variances of the noise, (D,)
    mean: np.ndarray
    covariance: np.ndarray

    def joint(self, n_steps):
        """(means of states, their covariance, what reads y off them, means of y)."""
        m, V = twins.joint_of_path(self.A, self.Q, self.mean, self.covariance, n_steps)
        H = np.kron(np.eye(n_steps), self.C)
        return m.ravel(), V, H, (m @ self.C.T + self.d).ravel()

    def of_y(self, n_steps):
        _, V, H, mean = self.joint(n_steps)
        return mean, H @ V @ H.T + np.diag(np.tile(self.R, n_steps))

    def log_density(self, y):
        seen = ~np.isnan(y.ravel())
        mean, V = self.of_y(len(y))
        if not seen.any():
            return 0.0
        law = stats.multivariate_normal(mean[seen], V[np.ix_(seen, seen)])
        return law.logpdf(y.ravel()[seen])

    def states(self, y):
        """(means (T, K), covariance (T, K, T, K)) given what is seen of y."""
        seen = ~np.isnan(y.ravel())
        m, V, H, mean = self.joint(len(y))
        H, S = H[seen], self.of_y(len(y))[1][np.ix_(seen, seen)]
        gain = np.linalg.solve(S, H @ V).T
        m = m + gain @ (y.ravel() - mean)[seen]
        K = len(self.A)
        return m.reshape(-1, K), (V - gain @ H @ V).reshape(len(y), K, len(y), K)

    def again(self, y):
        """(means, variances) (T, D) of a new observation at each step."""
        m, V = self.states(y)
        own = np.einsum("tktl->tkl", V)
        variance = np.einsum("dk,tkl,dl->td", self.C, own, self.C) + self.R
        return m @ self.C.T + self.d, variance

    def scores(self, y):
        """log p(y_t | what was seen before), by the chain rule."""
        log_p = [0.0, *(self.log_density(y[: t + 1]) for t in range(len(y)))]
        return np.diff(log_p)

    def precision(self, y):
        """Of the states given y."""
        m, V = self.states(y)
        return np.linalg.inv(V.reshape(m.size, m.size))

    def gap(self, y):
        """log p(y) minus the bound of independent steps."""
        J, K = self.precision(y), len(self.A)
        blocks = np.einsum("tktl->tkl", J.reshape(len(y), K, len(y), K))
        each = np.linalg.slogdet(blocks)[1].sum()
        return 0.5 * (each - np.linalg.slogdet(J)[1])

    def sample(self, n_steps, rng):
        mean, V = self.of_y(n_steps)
        return rng.multivariate_normal(mean, V).reshape(n_steps, -1)


def free_system():
    rng = np.random.default_rng(3)
    return Dense(
        A=TURN,
        Q=np.array([[1.0, 0.3], [0.3, 0.5]]),
        C=rng.standard_normal((3, 2)),
        d=np.array([1.0, -2.0, 0.5]),
        R=np.array([0.5, 1.0, 2.0]),
        mean=np.array([0.5, -0.5]),
        covariance=np.array([[4.0, 1.0], [1.0, 3.0]]),
    )


def preset_system(structure, period=None):
    """Two columns, each with its own variances."""
    A, C, owner, column = preset(structure, period, 2)
    K = len(A)
    Q = np.diag([VARIANCES[name][s] for name, s in zip(owner, column)])
    rng = np.random.default_rng(K)
    return Dense(
        A=A,
        Q=Q,
        C=C,
        d=np.zeros(2),
        R=np.array([1.0, 2.0]),
        mean=rng.standard_normal(K),
        covariance=np.diag(rng.uniform(1.0, 4.0, K)),
    )


def known(name, **params):
    """(estimator with all parameters known, its dense twin)."""
    if name == "free":
        system = free_system()
        given = {
            "n_components": 2,
            "transition_matrix": system.A,
            "transition_covariance": system.Q,
            "observation_matrix": system.C,
            "intercept": system.d,
        }
    else:
        system = preset_system(**PRESETS[name])
        variances = {key: np.array(VARIANCES[key]) for key in COMPONENTS[name]}
        given = {**PRESETS[name], "state_variances": variances}
    start = {"initial_mean": system.mean, "initial_covariance": system.covariance}
    estimator = lds(**given, **start, noise_variance=system.R, **params)
    return estimator, system


def ragged(system, rng, lengths=(9, 1, 6), holes=True):
    """(X with ids, the sequences)."""
    parts = [system.sample(n, rng) for n in lengths]
    if holes:
        parts[0][[1, 4, 5], [0, 1, 0]] = np.nan
        parts[0][7] = np.nan
        parts[-1][0] = np.nan
    return with_ids(parts), parts


SYSTEMS = ("free", *PRESETS)
each_system = pytest.mark.parametrize("name", SYSTEMS)


def close(a, b, tolerance=1e-9):
    scale = np.max(np.abs(b), initial=1e-300)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale)


# -- the kernel ------------------------------------------------------------------------


@dataclass(frozen=True)
class Chain:
    """What the kernel takes, and the blocks of the precision that it says."""

    information: np.ndarray  # of the kinds of steps
    kind: np.ndarray
    A: np.ndarray
    Q: np.ndarray
    begins: np.ndarray

    @property
    def onward(self):
        return np.linalg.solve(self.Q, self.A)

    @property
    def blocks(self):
        """Of every step, (T, d, d)."""
        first, last = (marks[:, None, None] != 0 for marks in self.ends)
        blocks = self.information[self.kind] + np.where(
            first, 0.0, np.linalg.inv(self.Q)
        )
        return blocks + np.where(last, 0.0, self.A.T @ self.onward)

    @property
    def ends(self):
        return self.begins[:-1], self.begins[1:]


def chain(d, lengths, rng, reuse=True, stay=0.9, scales=1.0):
    """States given observations, some steps of which are missing."""
    T = sum(lengths)
    begins = np.zeros(T + 1, dtype=np.uint8)
    begins[np.cumsum([0, *lengths])] = 1
    A = stay * np.linalg.qr(rng.standard_normal((d, d)))[0]
    C = 0.5 * rng.standard_normal((d, d))
    seen, first = C.T @ C, 2.0 * np.eye(d)
    if not reuse:  # every step is of its own kind
        share = rng.uniform(0.5, 2.0, T)[:, None, None]
        information = share * seen + begins[:-1, None, None] * first
        kind = np.arange(T)
    else:
        # the first and the last step of a sequence are of kinds of their own
        information = np.array([seen, 0.0 * seen, seen + first, first] * 2)
        marks = begins.astype(np.int64)
        kind = (rng.random(T) < 0.1) + 2 * marks[:-1] + 4 * marks[1:]
    Q = np.diag(np.broadcast_to(scales, d).astype(float))
    return Chain(information, kind.astype(np.int64), A, Q, begins)


def by_kernel(c, h, tol=1e-14):
    T, d = h.shape
    inverses, gains, variances, lagged, predicted = np.empty((5, T, d, d))
    log_dets, which = np.empty(T), np.empty(T, dtype=np.int64)
    whose = np.empty(T, dtype=np.int64)
    n, done = tridiagonal.eliminate(
        c.information,
        c.A,
        c.Q,
        c.A.T @ c.onward,
        c.kind,
        c.begins,
        inverses,
        gains,
        log_dets,
        which,
        predicted,
        tol,
    )
    assert done == T
    g = h.copy()
    tridiagonal.forward(gains, which, c.begins, g)
    m = g.copy()
    tridiagonal.backward(inverses, gains, which, c.begins, m)
    n_v = tridiagonal.covariances(
        inverses, gains, which, c.begins, variances, lagged, whose, tol
    )
    steps = inverses[which], gains[which], log_dets[which]
    return (n, n_v), (*steps, g, m, variances[whose], lagged[whose])


@pytest.mark.parametrize("d", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("reuse", [True, False])
def test_kernels_are_their_twins(d, reuse):
    rng = np.random.default_rng(d)
    c = chain(d, (1, 3, 26, 1, 40), rng, reuse)
    h = rng.standard_normal((71, d))
    _, found = by_kernel(c, h)
    every = c.blocks, np.arange(71), c.onward, c.begins
    inverses, gains, log_dets = twins.eliminate(*every)
    g = twins.forward_of_chain(gains, c.begins, h)
    m = twins.backward_of_chain(inverses, gains, c.begins, g)
    V, lagged = twins.covariances_of_chain(inverses, gains, c.begins)
    gains[c.ends[1] == 1] = 0.0  # nothing follows
    for a, b in zip(found, (inverses, gains, log_dets, g, m, V, lagged)):
        close(a, b, 1e-11)
    # and the twins are what they say
    J = twins.dense_precision(*every)
    close(m.ravel(), np.linalg.solve(J, h.ravel()), 1e-11)
    close(log_dets.sum(), np.linalg.slogdet(J)[1], 1e-12)
    full = np.linalg.inv(J).reshape(71, d, 71, d)
    close(V, np.einsum("tktl->tkl", full), 1e-11)
    close(lagged[:-1], np.einsum("tktl->tkl", full[:-1, :, 1:]), 1e-11)


@pytest.mark.parametrize("stay", [0.5, 0.99, 0.9999])
@pytest.mark.parametrize("scales", [1.0, [1.0, 1e8, 1e-8]])
def test_what_settles_is_what_does_not(stay, scales):
    """The steady path against the general one, of a chain that forgets slowly."""
    rng = np.random.default_rng(0)
    c = chain(3, (3_000,), rng, True, stay, scales)
    c.kind[1:-1] = 0  # nothing changes inside
    h = rng.standard_normal((3_000, 3))
    (n, n_v), steady = by_kernel(c, h)
    (all_n, all_v), general = by_kernel(c, h, -1.0)
    assert (all_n, all_v) == (3_000, 3_000)
    assert n < 1_000 and n_v < 1_500
    for a, b in zip(steady, general):
        close(a, b, 1e-8)


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e6])
def test_noises_of_all_sizes_keep_their_digits(size):
    """A level that hardly moves: its precision is all but singular."""
    kind, begins = np.zeros(200, dtype=np.int64), np.zeros(201, dtype=np.uint8)
    begins[[0, -1]] = 1
    kind[0], kind[-1] = 1, 2
    c = Chain(np.ones((3, 1, 1)), kind, np.eye(1), size * np.eye(1), begins)
    h = np.random.default_rng(0).standard_normal((200, 1))
    _, (_, _, log_dets, _, m, V, _) = by_kernel(c, h)
    # the eigenvectors of second differences are cosines
    k = np.arange(200)
    basis = np.cos(np.pi * (k[:, None] + 0.5) * k / 200)
    basis /= np.sqrt(np.sum(basis**2, axis=0))
    values = 1.0 + (2.0 - 2.0 * np.cos(np.pi * k / 200)) / size
    close(m[:, 0], basis @ ((basis.T @ h[:, 0]) / values), 1e-8)
    close(V[:, 0, 0], basis**2 @ (1.0 / values), 1e-8)
    close(log_dets.sum(), np.log(values).sum(), 1e-10)


def test_a_step_that_is_not_positive_definite_is_told():
    information = np.array([[[2.0]], [[1.0]], [[-5.0]]])
    kind = np.arange(3)
    begins = np.array([1, 0, 0, 1], dtype=np.uint8)
    c = Chain(information, kind, np.eye(1), np.eye(1), begins)
    with pytest.raises(AssertionError):
        by_kernel(c, np.zeros((3, 1)))
    with pytest.raises(ValueError, match="not positive definite at step 2"):
        BlockTridiagonalPrecision(
            information, kind, np.eye(1), np.eye(1), np.eye(1), begins
        ).logdet()


# -- known parameters ------------------------------------------------------------------


@each_system
@pytest.mark.parametrize("holes", [False, True])
def test_the_bound_is_the_exact_log_likelihood(name, holes):
    estimator, system = known(name, sequence=-1)
    X, parts = ragged(system, np.random.default_rng(0), holes=holes)
    exact = sum(system.log_density(part) for part in parts)
    structured = clone(estimator).fit(X)
    assert structured.elbo_ == pytest.approx(exact, rel=1e-10, abs=1e-10)
    assert structured.converged_
    factorised = clone(estimator).set_params(posterior="mean_field").fit(X)
    gap = sum(system.gap(part) for part in parts)
    assert exact - factorised.elbo_ == pytest.approx(gap, rel=1e-8, abs=1e-9)
    assert gap > 0.1


@each_system
def test_weights_count_sequences(name):
    estimator, system = known(name, sequence=-2, sequence_weight=-1)
    X, parts = ragged(system, np.random.default_rng(1))
    weights = np.array([0.5, 3.0, 0.0])
    X = np.column_stack([X, weights[X[:, -1].astype(int)]])
    exact = sum(w * system.log_density(part) for w, part in zip(weights, parts))
    assert estimator.fit(X).elbo_ == pytest.approx(exact, rel=1e-10, abs=1e-10)


def of_parts(function, parts):
    return np.concatenate([function(part) for part in parts])


@each_system
def test_states_are_those_of_the_dense_gaussian(name):
    estimator, system = known(name, sequence=-1)
    X, parts = ragged(system, np.random.default_rng(2))
    model = estimator.fit(X)
    dense = [system.states(part) for part in parts]
    means = np.concatenate([m for m, _ in dense])
    own = np.concatenate([np.einsum("tktl->tkl", V) for _, V in dense])
    lagged = np.zeros((len(X) - 1, *own.shape[1:]))
    at = 0
    for m, V in dense:
        n = len(m)
        lagged[at : at + n - 1] = np.einsum("tktl->tkl", V[:-1, :, 1:])
        at += n
    close(model.states_, means)
    close(model.states_covariance_, own)
    close(model.lagged_states_covariance_, lagged)
    close(model.transform(X), means)
    close(model.smooth(X), means)
    mean, covariance = model.smooth(X, return_cov=True)
    close(mean, means)
    close(covariance, own)
    mean, std = model.smooth(X, return_std=True)
    close(mean, means)
    close(std, np.sqrt(np.diagonal(own, axis1=1, axis2=2)))
    # independent steps: the same means, and the inverses of blocks
    model = clone(model).set_params(posterior="mean_field").fit(X)
    blocks = []
    for part in parts:
        T, K = len(part), len(system.A)
        J = system.precision(part).reshape(T, K, T, K)
        blocks.append(np.linalg.inv(np.einsum("tktl->tkl", J)))
    close(model.states_, means, 1e-8)
    close(model.states_covariance_, np.concatenate(blocks), 1e-8)
    assert not np.any(model.lagged_states_covariance_)
    close(model.smooth(X, return_cov=True)[1], np.concatenate(blocks), 1e-8)


@each_system
def test_predictions_are_those_of_the_dense_gaussian(name):
    estimator, system = known(name, sequence=-1)
    X, parts = ragged(system, np.random.default_rng(3))
    model = estimator.fit(X)
    mean = of_parts(lambda part: system.again(part)[0], parts)
    std = np.sqrt(of_parts(lambda part: system.again(part)[1], parts))
    found = model.predict(X, return_std=True)
    close(found[0], mean)
    close(found[1], std)
    close(model.predict(X), mean)
    quantiles = stats.norm.ppf([0.1, 0.5, 0.9])
    expected = mean[..., None] + std[..., None] * quantiles
    close(model.predict(X, quantiles=[0.1, 0.5, 0.9]), expected, 1e-6)
    interval = mean[..., None] + std[..., None] * stats.norm.ppf([0.05, 0.95])
    close(model.predict_interval(X, confidence_level=0.9), interval, 1e-6)
    filled, spread = model.impute(X, return_std=True)
    y, hole = X[:, :-1], np.isnan(X[:, :-1])
    filled = filled[:, : y.shape[1]]
    np.testing.assert_array_equal(filled[~hole], y[~hole])
    close(filled[hole], mean[hole])
    close(spread[hole], std[hole])
    assert not np.any(spread[~hole])


@each_system
def test_forecasts_are_those_of_the_dense_gaussian(name):
    estimator, system = known(name, sequence=-1)
    X, parts = ragged(system, np.random.default_rng(4))
    model, h = estimator.fit(X), 5
    ahead = model.forecast(X, n_steps=h)
    dim = len(system.R)
    assert ahead.mean.shape == (len(parts), h, dim)
    for i, part in enumerate(parts):
        longer = np.concatenate([part, np.full((h, dim), np.nan)])
        mean, variance = (value[-h:] for value in system.again(longer))
        std = np.sqrt(variance)
        close(ahead.mean[i], mean)
        close(ahead.std()[i], std)
        close(ahead.states_mean[i], system.states(longer)[0][-h:])
        ends = mean[..., None] + std[..., None] * stats.norm.ppf([0.1, 0.9])
        close(ahead.interval(0.8)[i], ends, 1e-6)
        close(ahead.quantile(0.9)[i].reshape(h, dim), ends[..., 1], 1e-6)
    draws = ahead.sample(20_000, random_state=0)
    error = ahead.std() / np.sqrt(20_000)
    assert np.all(np.abs(draws.mean(axis=0) - ahead.mean) < 5.0 * error)
    np.testing.assert_allclose(draws.std(axis=0), ahead.std(), rtol=0.05)


@each_system
@each_posterior
def test_scores_are_those_of_the_chain_rule(name, posterior):
    estimator, system = known(name, sequence=-1, posterior=posterior)
    X, parts = ragged(system, np.random.default_rng(5))
    model = estimator.fit(X)
    expected = of_parts(system.scores, parts)
    close(model.score_samples(X), expected, 1e-8)
    assert model.score(X) == pytest.approx(expected.mean(), rel=1e-8)
    # nothing to average over
    close(model.score_samples(X, n_samples=3, random_state=0), expected, 1e-8)


@each_system
def test_long_series_settle_to_the_same_answer(name):
    """A hole forces the general path at its step; both are the dense answer."""
    estimator, system = known(name)
    rng = np.random.default_rng(6)
    y = system.sample(120, rng)
    for where in (None, 80):
        part = y.copy()
        if where is not None:
            part[where, 0] = np.nan
        model = clone(estimator).fit(part)
        exact = system.log_density(part)
        assert model.elbo_ == pytest.approx(exact, rel=1e-9)
        m, V = system.states(part)
        close(model.states_, m, 1e-8)
        close(model.states_covariance_, np.einsum("tktl->tkl", V), 1e-8)
        lagged = np.einsum("tktl->tkl", V[:-1, :, 1:])
        close(model.lagged_states_covariance_, lagged, 1e-8)


@each_system
def test_the_system_of_a_preset_is_what_its_name_says(name):
    estimator, system = known(name, sequence=-1)
    X, _ = ragged(system, np.random.default_rng(7))
    model = estimator.fit(X)
    close(model.transition_matrix_, system.A)
    close(model.transition_covariance_, system.Q)
    close(model.observation_matrix_, system.C)
    close(model.noise_variance_, system.R)
    close(model.initial_mean_, system.mean)
    close(as_covariance(model.initial_covariance_, len(system.A)), system.covariance)
    assert model.transform(X).shape == (len(X), len(system.A))


def test_samples_follow_the_model():
    estimator, system = known("free")
    model = estimator.fit(system.sample(20, np.random.default_rng(8)))
    y, states = model.sample(20_000, random_state=0)
    assert y.shape == (20_000, 3) and states.shape == (20_000, 2)
    stationary = linalg.solve_discrete_lyapunov(system.A, system.Q)
    np.testing.assert_allclose(np.cov(states.T), stationary, atol=0.15)
    noise = y - states @ system.C.T - system.d
    np.testing.assert_allclose(noise.var(axis=0), system.R, rtol=0.05)
    again = model.sample(20_000, random_state=0)[0]
    np.testing.assert_array_equal(y, again)


# -- parameters learnt -----------------------------------------------------------------


def simulated(T, rng, dim=6, A=TURN, noise=0.5, lengths=None):
    """(y, states, C) of a free system, as long sequences or as several."""
    K = len(A)
    C = rng.standard_normal((dim, K))
    states = []
    for n in lengths or (T,):
        x = np.zeros((n, K))
        x[0] = rng.standard_normal(K)
        for t in range(1, n):
            x[t] = A @ x[t - 1] + rng.standard_normal(K)
        states.append(x)
    states = np.concatenate(states)
    y = states @ C.T + np.arange(dim) + noise * rng.standard_normal((len(states), dim))
    return y, states, C


def at_means(model):
    """The dense system with parameters at their posterior means."""
    K = len(model.transition_matrix_)
    start = known_start(model)
    if start is None:
        precision = model.posterior_["initial_precision"]
        start = np.zeros(K), np.diag(np.asarray(precision.rate / precision.shape))
    Q = as_covariance(model.transition_covariance_, K)
    return Dense(
        model.transition_matrix_,
        Q,
        model.observation_matrix_,
        np.asarray(model.intercept_),
        model.noise_variance_,
        *start,
    )


@each_posterior
@pytest.mark.parametrize("name", SYSTEMS)
def test_scores_put_parameters_at_their_means(name, posterior):
    rng = np.random.default_rng(9)
    if name == "free":
        X = with_ids([simulated(n, rng, dim=3)[0] for n in (25, 15)])
        X[3, 1] = X[30, 0] = np.nan
        model = lds(2, sequence=-1, posterior=posterior).fit(X)
    else:
        X, _ = ragged(preset_system(**PRESETS[name]), rng, (25, 15))
        model = lds(**PRESETS[name], sequence=-1, posterior=posterior).fit(X)
    system = at_means(model)
    ids = X[:, -1]
    expected = of_parts(system.scores, [X[ids == i, :-1] for i in (0, 1)])
    close(model.score_samples(X), expected, 1e-7)
    averaged = model.score_samples(X, n_samples=200, random_state=0)
    assert averaged.shape == expected.shape and np.all(np.isfinite(averaged))
    assert abs(averaged.mean() - expected.mean()) < 1.0


@each_posterior
def test_predictions_count_what_parameters_leave_open(posterior):
    rng = np.random.default_rng(10)
    y, _, _ = simulated(30, rng, dim=3)
    y[10, 0] = y[20] = np.nan
    model = lds(2, posterior=posterior).fit(y)
    mean, std = model.predict(y, return_std=True)
    draws = model.sample_posterior(20_000, 0, X=y)
    C, x = draws["observation_matrix"], draws["states"]
    again = x @ np.swapaxes(C, -1, -2) + draws["intercept"][:, None]
    np.testing.assert_allclose(mean, again.mean(axis=0), atol=0.05)
    noise = 1.0 / draws["noise_precision"].mean(axis=0)
    variance = again.var(axis=0) + noise
    np.testing.assert_allclose(std, np.sqrt(variance), rtol=0.05)


def test_a_learnt_system_is_the_true_one():
    rng = np.random.default_rng(11)
    y, _, C = simulated(1_500, rng, dim=8)
    model = lds(2).fit(y)
    assert model.converged_
    angles = linalg.subspace_angles(C, model.observation_matrix_)
    assert np.rad2deg(angles.max()) < 3.0
    found = np.sort_complex(np.linalg.eigvals(model.transition_matrix_))
    expected = np.sort_complex(np.linalg.eigvals(TURN))
    np.testing.assert_allclose(found, expected, atol=0.05)
    np.testing.assert_allclose(model.noise_variance_, 0.25, rtol=0.15)
    np.testing.assert_allclose(model.intercept_, np.arange(8), atol=0.6)
    # the convention
    loadings = model.observation_matrix_
    largest = loadings[np.abs(loadings).argmax(axis=0), np.arange(2)]
    assert np.all(largest > 0.0)
    explained = (loadings**2).sum(axis=0) * model.states_.var(axis=0)
    assert np.all(np.diff(explained) <= 1e-9 * explained[0])
    np.testing.assert_allclose(model.transition_covariance_, np.eye(2))


def test_states_that_are_not_there_are_switched_off():
    rng = np.random.default_rng(12)
    y, _, _ = simulated(600, rng, dim=8)
    true, more = lds(2).fit(y), lds(4, max_iter=3_000).fit(y)
    assert true.elbo_ > more.elbo_ > lds(1).fit(y).elbo_
    relevance = more.observation_relevance_
    order = np.argsort(relevance)
    assert relevance[order[2]] > 10.0 * relevance[order[1]]
    power = (more.observation_matrix_**2).sum(axis=0)[order]
    assert power[2] < 0.02 * power[1]
    angles = linalg.subspace_angles(
        true.observation_matrix_, more.observation_matrix_[:, order[:2]]
    )
    assert np.rad2deg(angles.max()) < 10.0


def autoregression(rho, T, seed):
    """AR(1) of variance one, seen with noise of variance one: (y, x)."""
    rng = np.random.default_rng(seed)
    x = np.empty(T)
    x[0] = rng.standard_normal()
    for t in range(1, T):
        x[t] = rho * x[t - 1] + np.sqrt(1.0 - rho**2) * rng.standard_normal()
    return (x + rng.standard_normal(T))[:, None], x


def test_independent_steps_are_too_sure():
    """The figures that the documentation gives of a slow autoregression."""
    rho = 0.99
    y, x = autoregression(rho, 4_000, 0)
    given = {
        "transition_matrix": [[rho]],
        "transition_covariance": [[1.0 - rho**2]],
        "observation_matrix": [[1.0]],
        "noise_variance": 1.0,
        "initial_mean": [0.0],
        "initial_covariance": [[1.0]],
    }
    mean, sd = lds(**given).fit(y).smooth(y, return_std=True)
    mean_field = lds(**given, posterior="mean_field").fit(y)
    same, small = mean_field.smooth(y, return_std=True)
    close(same, mean, 1e-8)
    assert np.median(small / sd) == pytest.approx(0.38, abs=0.01)
    z = stats.norm.ppf(0.95)
    cover = [np.mean(np.abs(x - mean[:, 0]) < z * s[:, 0]) for s in (sd, small)]
    assert cover[0] == pytest.approx(0.9, abs=0.06)
    assert cover[1] == pytest.approx(0.45, abs=0.06)


def test_learning_with_independent_steps_forgets():
    y, _ = autoregression(0.99, 4_000, 1)
    found = {}
    for posterior in POSTERIORS:
        model = lds(posterior=posterior, max_iter=5_000).fit(y)
        (a,), (c,) = model.transition_matrix_, model.observation_matrix_
        found[posterior] = a[0], c[0] ** 2, model.noise_variance_[0]
    np.testing.assert_allclose(found["structured"][0], 0.99, atol=0.01)
    np.testing.assert_allclose(found["structured"][1], 0.02, atol=0.012)
    np.testing.assert_allclose(found["structured"][2], 1.0, rtol=0.08)
    assert found["mean_field"][0] < 0.85
    assert found["mean_field"][1] > 0.2
    assert found["mean_field"][2] < 0.8


# -- the Nile --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nile():
    return np.load(data_path("timeseries", "nile.npz"))["y"].astype(float)[:, None]


def test_known_variances_give_the_diffuse_likelihood_of_the_nile(nile):
    kappa = 1e9
    model = lds(
        structure="local_level",
        state_variances={"level": 1469.1},
        noise_variance=15099.0,
        initial_mean=[0.0],
        initial_covariance=kappa,
    ).fit(nile)
    diffuse = model.elbo_ + 0.5 * np.log(2.0 * np.pi * kappa)
    assert diffuse == pytest.approx(-632.546, abs=1e-3)


def test_vague_priors_tend_to_maximum_likelihood_on_the_nile(nile):
    gaps = []
    for eps in (1e-1, 1e-3, 1e-6):
        model = lds(
            structure="local_level",
            noise_prior=(eps, eps),
            state_prior=(eps, eps),
            initial_mean=[0.0],
            initial_covariance=1e8,
            tol=1e-10,
            max_iter=20_000,
        ).fit(nile)
        found = model.noise_variance_[0], model.state_variances_["level"][0]
        gaps.append(np.abs(np.log(np.array(found) / [15099.0, 1469.0])).max())
    assert gaps[0] >= gaps[-1]
    assert gaps[-1] < 0.01


def log_evidence_on_grid(y, level, noise, mean, variance):
    """log p(y | variances) of a local level, on arrays of variances, by its filter."""
    m, P, total = mean, variance, 0.0
    for value in y:
        S = P + noise
        total = total + stats.norm.logpdf(value, m, np.sqrt(S))
        m, P = m + P / S * (value - m), P * noise / S + level
    return total


def grid_of_log_variances(model, y, width=200):
    """Covariance of the log variances (level, noise) under the model."""
    u = np.log(model.state_variances_["level"][0]) + np.linspace(-9.0, 5.0, width)
    v = np.log(model.noise_variance_[0]) + np.linspace(-2.0, 2.0, width)
    u, v = np.meshgrid(u, v, indexing="ij")
    start = model.initial_mean_[0], as_covariance(model.initial_covariance_, 1)[0, 0]
    log_p = log_evidence_on_grid(y[:, 0], np.exp(u), np.exp(v), *start)
    for where, prior in ((u, model.state_prior_["level"]), (v, model.noise_prior_)):
        shape, rate = (np.ravel(value)[0] for value in prior)
        # of a precision exp(-u), per unit of u
        log_p += -shape * where - rate * np.exp(-where)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    assert p[[0, -1]].sum() + p[:, [0, -1]].sum() < 1e-3
    gaps = u - np.sum(p * u), v - np.sum(p * v)
    return np.array([[np.sum(p * a * b) for a in gaps] for b in gaps])


def test_linear_response_has_the_sds_of_the_nile(nile):
    params = {"structure": "local_level", "tol": 1e-10, "max_iter": 20_000}
    plain = lds(**params).fit(nile)
    corrected = lds(**params, posterior_covariance="linear_response").fit(nile)
    covariance = grid_of_log_variances(corrected, nile)
    sd = np.sqrt(np.diag(covariance))
    found = [corrected.log_variances_std_[name][0] for name in ("level", "noise")]
    np.testing.assert_allclose(found, sd, rtol=0.2)
    before = [plain.log_variances_std_[name][0] for name in ("level", "noise")]
    assert before[0] < 0.35 * sd[0]
    np.testing.assert_allclose(before, np.sqrt(special.polygamma(1, 50)), rtol=0.1)
    # it never changes the posterior or the bound
    assert corrected.elbo_ == plain.elbo_
    close(corrected.states_, plain.states_, 1e-12)
    # they move against each other
    both = np.asarray(corrected.log_variances_covariance_).reshape(2, 2)
    assert np.sign(both[0, 1]) == np.sign(covariance[0, 1])
    # and what follows from them is wider
    std = [model.smooth(nile, return_std=True)[1] for model in (plain, corrected)]
    assert std[1].mean() > std[0].mean()
    tables = [model.summary() for model in (plain, corrected)]
    widths = [table.upper - table.lower for table in tables]
    assert np.all(widths[1] > widths[0])


# -- structural series -----------------------------------------------------------------


@pytest.mark.parametrize("name", list(PRESETS))
def test_variances_of_long_series_are_found(name):
    system = preset_system(**PRESETS[name])
    y = system.sample(500, np.random.default_rng(13))
    model = lds(**PRESETS[name], max_iter=5_000).fit(y)
    assert model.converged_
    np.testing.assert_allclose(model.noise_variance_, system.R, rtol=0.5)
    for component in COMPONENTS[name]:
        found = model.state_variances_[component]
        np.testing.assert_allclose(np.log(found / VARIANCES[component]), 0.0, atol=0.9)
    assert set(model.state_variances_) == set(COMPONENTS[name])
    assert set(model.log_variances_) == {*COMPONENTS[name], "noise"}


def test_columns_of_a_preset_do_not_know_of_each_other():
    rng = np.random.default_rng(14)
    y = preset_system("local_level").sample(40, rng)
    y[5:9, 1] = np.nan
    both = lds(structure="local_level", tol=1e-11).fit(y)
    alone = [lds(structure="local_level", tol=1e-11).fit(y[:, [s]]) for s in (0, 1)]
    assert both.elbo_ == pytest.approx(sum(m.elbo_ for m in alone), rel=1e-8)
    for s, model in enumerate(alone):
        close(both.states_[:, [s]], model.states_, 1e-4)
        close(both.noise_variance_[s], model.noise_variance_[0], 1e-3)


def test_seasons_repeat_in_forecasts():
    t = np.arange(60)
    pattern = np.array([3.0, -1.0, 0.0, -2.0])
    y = 10.0 + pattern[t % 4] + 0.1 * np.random.default_rng(15).standard_normal(60)
    model = lds(structure="seasonal", period=4).fit(y[:, None])
    ahead = model.forecast(y[:, None], n_steps=8)
    np.testing.assert_allclose(
        ahead.mean[0, :, 0], 10.0 + np.tile(pattern, 2), atol=0.5
    )
    assert np.all(np.diff(ahead.std()[0, :, 0]) > -1e-12)


# -- counts ----------------------------------------------------------------------------


def known_counts(posterior="structured"):
    params = {
        "observations": "poisson",
        "posterior": posterior,
        "transition_matrix": [[0.8]],
        "transition_covariance": [[0.3]],
        "observation_matrix": [[1.0], [0.5]],
        "intercept": [0.5, 1.5],
        "initial_mean": [0.2],
        "initial_covariance": [[0.8]],
    }
    return lds(**params)


def integrated(y):
    """(log p(y), means, covariance of the states) by a sum over a fine grid."""
    grid = np.linspace(-4.5, 4.5, 91)
    x = np.stack(np.meshgrid(grid, grid, grid, indexing="ij"), axis=-1)
    log_p = stats.norm.logpdf(x[..., 0], 0.2, np.sqrt(0.8))
    for t in (1, 2):
        log_p += stats.norm.logpdf(x[..., t], 0.8 * x[..., t - 1], np.sqrt(0.3))
    for t, s in product(range(3), range(2)):
        rate = np.exp([1.0, 0.5][s] * x[..., t] + [0.5, 1.5][s])
        if not np.isnan(y[t, s]):
            log_p += stats.poisson.logpmf(y[t, s], rate)
    top = log_p.max()
    p = np.exp(log_p - top)
    log_z = top + np.log(p.sum() * (grid[1] - grid[0]) ** 3)
    p = (p / p.sum()).ravel()
    x = x.reshape(-1, 3)
    mean = p @ x
    return log_z, mean, (x - mean).T @ ((x - mean) * p[:, None])


@pytest.mark.parametrize(
    "y",
    [
        [[2.0, 5.0], [0.0, 3.0], [4.0, 9.0]],
        [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]],
        [[3.0, np.nan], [np.nan, np.nan], [8.0, 20.0]],
    ],
)
def test_counts_with_known_parameters_are_near_the_exact_answer(y):
    y = np.array(y)
    log_z, mean, covariance = integrated(y)
    sd = np.sqrt(np.diag(covariance))
    model = known_counts().fit(y)
    assert log_z - 0.05 < model.elbo_ < log_z
    np.testing.assert_allclose(model.states_[:, 0], mean, atol=0.1 * sd.min())
    np.testing.assert_allclose(np.sqrt(model.states_covariance_.ravel()), sd, rtol=0.1)
    lagged = model.lagged_states_covariance_.ravel()
    np.testing.assert_allclose(lagged, np.diag(covariance, 1), rtol=0.15)
    factorised = known_counts("mean_field").fit(y)
    assert factorised.elbo_ < model.elbo_
    assert np.all(factorised.states_covariance_ < model.states_covariance_)
    # a lower bound, and not far below
    score = model.score_samples(y)
    assert np.all(np.isfinite(score))
    assert score.sum() == pytest.approx(log_z, abs=0.3)


@pytest.mark.parametrize("size", [0.0, 1.0, 1e4, 1e9])
@each_posterior
def test_counts_of_any_size(size, posterior):
    rng = np.random.default_rng(16)
    y = rng.poisson(size * np.exp(np.sin(np.arange(40) / 5.0))[:, None] * [1.0, 2.0])
    for params in ({"structure": "local_level"}, {}):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = lds(observations="poisson", posterior=posterior, **params)
            model.fit(y.astype(float))
        assert model.converged_ and np.isfinite(model.elbo_)
        mean, std = model.predict(y, return_std=True)
        assert np.all(np.isfinite(mean)) and np.all(np.isfinite(std))
        if size >= 1e4:
            np.testing.assert_allclose(mean, y, rtol=0.1)


def test_predictions_of_counts():
    y = np.array([[2.0, 5.0], [0.0, 3.0], [4.0, np.nan]])
    model = known_counts().fit(y)
    mean, std = model.predict(y, return_std=True)
    m, V = model.states_[:, 0], model.states_covariance_.ravel()
    for s, (c, d) in enumerate(([1.0, 0.5], [0.5, 1.5])):
        rate = np.exp(c * m + d + 0.5 * c**2 * V)
        np.testing.assert_allclose(mean[:, s], rate, rtol=1e-6)
        variance = rate + rate**2 * np.expm1(c**2 * V)
        np.testing.assert_allclose(std[:, s] ** 2, variance, rtol=1e-5)
    low, high = np.moveaxis(model.predict_interval(y, 0.9), -1, 0)
    assert np.all((low >= 0.0) & (low < mean) & (mean < high))
    ahead = model.forecast(y, n_steps=3)
    m_3 = 0.8 * m[-1], 0.64 * V[-1] + 0.3
    np.testing.assert_allclose(ahead.states_mean[0, 0], m_3[0])
    rate = np.exp(m_3[0] + 0.5 + 0.5 * m_3[1])
    np.testing.assert_allclose(ahead.mean[0, 0, 0], rate, rtol=1e-5)
    draws = ahead.sample(20_000, random_state=0)
    assert np.all(draws == np.floor(draws)) and np.all(draws >= 0)
    error = draws.std(axis=0) / np.sqrt(20_000)
    assert np.all(np.abs(draws.mean(axis=0) - ahead.mean) < 5.0 * error)
    assert model.impute(y)[2, 1] == pytest.approx(mean[2, 1])


def test_a_learnt_system_of_counts_is_the_true_one():
    rng = np.random.default_rng(17)
    _, states, C = simulated(400, rng, dim=15)
    rates = np.exp(1.0 + 0.3 * states @ C.T)
    counts = rng.poisson(rates).astype(float)
    model = lds(2, observations="poisson").fit(counts)
    angles = linalg.subspace_angles(C, model.observation_matrix_)
    assert np.rad2deg(angles.max()) < 8.0
    found = np.sort_complex(np.linalg.eigvals(model.transition_matrix_))
    expected = np.sort_complex(np.linalg.eigvals(TURN))
    np.testing.assert_allclose(found, expected, atol=0.12)
    # intervals of log rates, that no rotation of the states changes
    draws = model.sample_posterior(400, 0, X=counts)
    log_rates = draws["states"] @ np.swapaxes(draws["observation_matrix"], -1, -2)
    log_rates += draws["intercept"][:, None]
    low, high = np.quantile(log_rates, [0.05, 0.95], axis=0)
    inside = (np.log(rates) > low) & (np.log(rates) < high)
    assert inside.mean() == pytest.approx(0.9, abs=0.06)


# -- the estimator ---------------------------------------------------------------------


@each_posterior
@pytest.mark.parametrize("observations", ["gaussian", "poisson"])
def test_partial_fit_by_sequences(posterior, observations):
    rng = np.random.default_rng(18)
    y, states, C = simulated(0, rng, lengths=(40, 25, 30, 1, 50, 34))
    if observations == "poisson":
        y = rng.poisson(np.exp(1.0 + 0.3 * states @ C.T)).astype(float)
    ids = sequence_ids([40, 25, 30, 1, 50, 34]).astype(float)
    X = np.column_stack([y, ids])
    params = {"observations": observations, "posterior": posterior, "sequence": -1}
    whole = lds(2, **params).fit(X)
    parts = lds(2, **params)
    for some in ([0, 1, 3], [2, 4, 5]) * 8:
        parts.partial_fit(X[np.isin(ids, some)])
    assert parts.n_steps_seen_ == 8 * len(X)
    assert parts.score(X) > whole.score(X) - 0.1
    assert parts.transform(X).shape == (len(X), 2)
    with pytest.raises(ValueError, match="n_components=3"):
        parts.set_params(n_components=3).partial_fit(X)


@each_posterior
@pytest.mark.parametrize("observations", ["gaussian", "poisson"])
def test_warm_starts_go_on(posterior, observations):
    rng = np.random.default_rng(19)
    y, states, C = simulated(60, rng)
    if observations == "poisson":
        y = rng.poisson(np.exp(1.0 + 0.3 * states @ C.T)).astype(float)
    whole = lds(2, observations=observations, posterior=posterior).fit(y)
    parts = clone(whole).set_params(max_iter=2, warm_start=True)
    last = -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(4):
            parts.fit(y)
            assert parts.elbo_ >= last - 1e-9 * abs(last)
            last = parts.elbo_
    parts.set_params(max_iter=3_000).fit(y)
    assert parts.converged_
    assert parts.elbo_ == pytest.approx(whole.elbo_, abs=0.1)
    with pytest.raises(ValueError, match="warm_start=False"):
        deepcopy(parts).set_params(n_components=3).fit(y)


def test_more_starts_are_not_worse():
    y, _, _ = simulated(60, np.random.default_rng(20))
    one = lds(2).fit(y)
    assert lds(2, n_init=3).fit(y).elbo_ >= one.elbo_ - 1e-4


@pytest.mark.parametrize("observations", ["gaussian", "poisson"])
def test_number_of_jobs_does_not_matter(observations):
    rng = np.random.default_rng(21)
    lengths = (300, 1, 200, 40, 7)
    y, states, C = simulated(0, rng, lengths=lengths)
    if observations == "poisson":
        y = rng.poisson(np.exp(1.0 + 0.3 * states @ C.T)).astype(float)
    X = np.column_stack([y, sequence_ids(lengths)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = lds(2, sequence=-1, max_iter=20, observations=observations).fit(X)
        two = clone(model).set_params(n_jobs=2).fit(X)
    assert two.elbo_ == pytest.approx(model.elbo_, rel=1e-12)
    close(two.states_, model.states_, 1e-9)


@each_posterior
def test_callbacks_see_whole_fits_and_stop_them(posterior):
    y, _, _ = simulated(60, np.random.default_rng(22))
    seen = []

    def look(fitted):
        again = deepcopy(fitted).set_callbacks()
        assert again.states_.shape == (60, 2)
        assert again.states_covariance_.shape == (60, 2, 2)
        assert again.forecast(y, 2).mean.shape == (1, 2, 6)
        assert again.sample(3)[0].shape == (3, 6)
        assert len(again.summary().names)
        seen.append((again.n_iter_, again.elbo_, again.score(y)))
        return len(seen) == 3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = lds(2, posterior=posterior).set_callbacks(StopWhen(look)).fit(y)
    assert len(seen) == 3
    assert model.elbo_ == seen[-1][1]
    assert [elbo for _, elbo, _ in seen] == sorted(elbo for _, elbo, _ in seen)


@pytest.mark.parametrize("name", SYSTEMS)
def test_pickled_fits_answer_the_same(name):
    rng = np.random.default_rng(23)
    X, _ = ragged(known(name)[1], rng)
    params = {"n_components": 2} if name == "free" else PRESETS[name]
    model = lds(**params, sequence=-1, max_iter=500).fit(X)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.transform(X), model.transform(X))
    np.testing.assert_array_equal(copy.states_, model.states_)
    np.testing.assert_array_equal(copy.forecast(X, 2).mean, model.forecast(X, 2).mean)
    a, b = (m.sample_posterior(3, 0, X=X) for m in (copy, model))
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


def test_units_do_not_change_states():
    y, _, _ = simulated(60, np.random.default_rng(24), dim=4)
    unit, shift = np.array([1e-6, 1.0, 2.0, 1e6]), np.array([1e-3, -50.0, 0.0, 1e7])
    here = lds(2, tol=1e-10).fit(y)
    there = lds(2, tol=1e-10).fit(y * unit + shift)
    log_unit = np.log(unit).sum()
    assert there.elbo_ == pytest.approx(here.elbo_ - 60 * log_unit, abs=1e-5)
    close(there.states_, here.states_, 1e-4)
    close(there.predict(y * unit + shift), here.predict(y) * unit + shift, 1e-5)


def test_frames_with_names_of_sequences():
    rng = np.random.default_rng(25)
    y, _, _ = simulated(0, rng, dim=2, lengths=(12, 9))
    names = np.repeat(["north", "south"], [12, 9])
    frame = pd.DataFrame({"station": names, "wind": y[:, 0], "rain": y[:, 1]})
    model = lds(structure="local_level", sequence="station").fit(frame)
    assert list(model.feature_names_in_) == ["station", "wind", "rain"]
    X = np.column_stack([y, sequence_ids([12, 9])])
    same = lds(structure="local_level", sequence=2).fit(X)
    assert model.elbo_ == pytest.approx(same.elbo_, rel=1e-12)
    out = model.set_output(transform="pandas").transform(frame)
    assert list(out.columns) == list(model.get_feature_names_out())
    assert out.shape == (21, 2)
    np.testing.assert_allclose(out.to_numpy(), same.transform(X))
    named = [name for name in model.summary().names if "wind" in name]
    assert named and not any("station" in name for name in model.summary().names)


def test_cross_validation_by_sequences_finds_the_number_of_states():
    rng = np.random.default_rng(26)
    lengths = (40,) * 9
    y, _, _ = simulated(0, rng, lengths=lengths)
    X = np.column_stack([y, sequence_ids(lengths)])
    scores = [
        cross_val_score(
            lds(K, sequence=-1), X, groups=X[:, -1], cv=GroupKFold(3)
        ).mean()
        for K in (1, 2)
    ]
    assert scores[1] > scores[0] + 0.3


@pytest.mark.parametrize("name", ["free", "basic_structural"])
def test_summaries(name):
    X, _ = ragged(known(name)[1], np.random.default_rng(27), (20, 12))
    params = {"n_components": 2} if name == "free" else PRESETS[name]
    model = lds(**params, sequence=-1).fit(X)
    summary = model.summary(confidence_level=0.9)
    assert np.all(np.isfinite(summary.mean)) and np.all(summary.sd >= 0.0)
    assert len(summary.to_pandas()) == len(summary.names)
    assert "VariationalLinearDynamicalSystem" in repr(summary)


# -- what a user is told ---------------------------------------------------------------

LEVEL = {"structure": "local_level"}
BAD = [
    ({"structure": "level"}, "'structure'.*'level'"),
    ({"observations": "binary"}, "'observations'.*'binary'"),
    ({"posterior": "exact"}, "'posterior'.*'exact'"),
    ({"posterior_covariance": "exact"}, "'posterior_covariance'.*'exact'"),
    ({"n_components": 0}, "'n_components'.*Got 0"),
    ({"max_iter": 0}, "'max_iter'.*Got 0"),
    ({"tol": -1.0}, "'tol'.*Got -1.0"),
    ({"structure": "seasonal"}, "period"),
    ({"structure": "basic_structural"}, "period"),
    ({"structure": "seasonal", "period": 1}, "period"),
    ({"period": 4}, "period"),
    ({**LEVEL, "period": 4}, "period"),
    ({**LEVEL, "n_components": 2}, "n_components"),
    ({**LEVEL, "transition_matrix": [[1.0]]}, "transition_matrix"),
    ({**LEVEL, "observation_matrix": [[1.0]]}, "observation_matrix"),
    ({**LEVEL, "state_variances": {"slope": 1.0}}, "slope"),
    ({**LEVEL, "state_variances": {"level": -1.0}}, "state_variances"),
    ({**LEVEL, "state_variances": {"level": [1.0, 2.0, 3.0]}}, "state_variances"),
    ({**LEVEL, "state_prior": {"slope": (1.0, 1.0)}}, "slope"),
    ({**LEVEL, "state_prior": (1.0, -1.0)}, "state_prior"),
    ({"state_variances": {"level": 1.0}}, "state_variances"),
    ({"state_prior": (1.0, 1.0)}, "state_prior"),
    ({"transition_covariance": [[1.0]]}, "transition_covariance.*transition_matrix"),
    ({"transition_matrix": [[1.0, 0.0]]}, "transition_matrix.*shape"),
    ({"transition_matrix": [[np.nan]]}, "transition_matrix"),
    (
        {"transition_matrix": [[0.5]], "transition_covariance": [[-1.0]]},
        "transition_covariance.*positive definite",
    ),
    (
        {"transition_matrix": [[0.5]], "transition_covariance": np.eye(2)},
        "transition_covariance.*shape",
    ),
    (
        {
            "n_components": 2,
            "transition_matrix": np.eye(2),
            "transition_covariance": [[1.0, 0.2], [0.5, 1.0]],
        },
        "transition_covariance.*symmetric",
    ),
    ({"observation_matrix": [[1.0, 2.0]]}, "observation_matrix.*shape"),
    ({"intercept": [0.0, 0.0]}, "intercept.*observation_matrix"),
    (
        {"observation_matrix": [[1.0], [1.0]], "intercept": [0.0]},
        "intercept.*shape",
    ),
    ({"noise_variance": 0.0}, "noise_variance"),
    ({"noise_variance": [1.0, 1.0, 1.0]}, "noise_variance"),
    ({"observations": "poisson", "noise_variance": 1.0}, "noise_variance"),
    ({"observations": "poisson", "noise_prior": (1.0, 1.0)}, "noise_prior"),
    ({"initial_mean": [0.0, 0.0]}, "initial_mean"),
    ({"initial_covariance": [[-1.0]]}, "initial_covariance"),
    ({"initial_covariance": 0.0}, "initial_covariance"),
    ({"transition_prior": (1.0,)}, "transition_prior"),
    ({"transition_prior": (1.0, 0.0)}, "transition_prior"),
    ({"observation_prior": (-1.0, 1.0)}, "observation_prior"),
    ({"initial_prior": 3.0}, "initial_prior"),
    ({"noise_prior": (1.0, np.nan)}, "noise_prior"),
    ({"intercept_precision_prior": 0.0}, "intercept_precision_prior"),
    ({"posterior_covariance": "linear_response"}, "linear_response.*structure"),
    ({"sequence": 7}, "sequence=7 is out of range"),
]


@pytest.mark.parametrize(("params", "message"), BAD)
def test_parameters_that_make_no_sense(params, message):
    y = np.abs(np.random.default_rng(28).standard_normal((12, 2))).round()
    estimator = lds(**params)
    for method in (estimator.fit, estimator.partial_fit):
        with pytest.raises(ValueError, match=message):
            method(y)
    assert not hasattr(estimator, "elbo_")


def test_calls_that_make_no_sense():
    X, _ = ragged(free_system(), np.random.default_rng(29))
    model = lds(2, sequence=-1, max_iter=500)
    for call in ("fit", "partial_fit"):
        with pytest.raises((TypeError, ValueError), match="sequence_ids"):
            getattr(model, call)(X, lengths=[9, 1, 6])
    model.fit(X)
    for method in ("predict", "score_samples", "forecast", "transform", "smooth"):
        with pytest.raises(ValueError, match="comes back"):
            getattr(model, method)(X[[0, 9, 1]])
    with pytest.raises(ValueError, match="n_samples=0"):
        model.sample_posterior(0)
    with pytest.raises(ValueError, match="n_steps"):
        model.forecast(X, n_steps=0)
    with pytest.raises(ValueError, match="confidence_level"):
        model.predict_interval(X, confidence_level=1.5)
    with pytest.raises(TypeError):
        model.fit(X, sample_weight=np.ones(len(X)))


def test_attributes_that_are_not_there():
    rng = np.random.default_rng(30)
    y = preset_system("local_level").sample(15, rng)
    level, free = lds(**LEVEL).fit(y), lds().fit(y)
    for name in ("log_variances_", "log_variances_std_", "state_variances_"):
        assert not hasattr(free, name)
    for name in ("transition_relevance_", "observation_relevance_"):
        assert not hasattr(level, name)
    counts = lds(observations="poisson").fit(np.abs(y).round())
    assert not hasattr(counts, "noise_variance_")


def test_tags():
    for observations in ("gaussian", "poisson"):
        tags = lds(observations=observations).__sklearn_tags__()
        assert tags.input_tags.positive_only == (observations == "poisson")
        assert tags.input_tags.allow_nan and not tags.input_tags.sparse


def test_predictions_are_those_of_the_fit_whatever_is_set_later():
    y, _, _ = simulated(30, np.random.default_rng(31), dim=3)
    model = lds(2).fit(y)
    expected = model.transform(y), model.score_samples(y)
    model.set_params(posterior="mean_field", structure="local_level", n_components=1)
    np.testing.assert_array_equal(model.transform(y), expected[0])
    np.testing.assert_array_equal(model.score_samples(y), expected[1])
