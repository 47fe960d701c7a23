"""Where the ascent begins: states from smoothed principal components."""

import itertools
from dataclasses import dataclass

import numpy as np

from skvi.distributions import Gamma, Product
from skvi.linalg import StepCovariances
from skvi.models.lds.block import Block
from skvi.models.lds.model import LDSPosterior
from skvi.models.sequences import Sequences

WINDOWS = (1, 5, 15)  # of moving averages that a start is tried with
N_SETTLING = 4  # global steps from points
MOST_STEPS = 5_000  # of short runs
RATIOS = (1.0, 1e-1, 1e-2, 1e-4)  # of variances that a preset is tried with
ROUNDING = 1e-9  # relative sizes that are rounding
SURE = 50.0  # shape of the Gamma laws of these starts


@dataclass(frozen=True)
class Points:
    """A law of the states that is sure of them, as far as statistics go."""

    mean: np.ndarray

    @property
    def dim(self):
        return self.mean.shape[1]

    @property
    def covariances(self):
        zeros = np.zeros((1, self.dim, self.dim))
        return StepCovariances(zeros, zeros, np.zeros(len(self.mean), dtype=np.int64))

    def innovations(self, matrix, weight):
        w = self.mean[1:] - self.mean[:-1] @ matrix.T
        return w.T @ (weight[1:, None] * w)


def from_points(model, states, block):
    """The posterior that some states ask for."""
    q, points = model.prior(), Points(states)
    known = None
    if model.observations.counts:  # their global step is not one from far off
        known = model.observations.from_points(states, block)
    for _ in range(N_SETTLING):
        if known is not None:
            q = LDSPosterior(q.parts["dynamics"], q.parts["initial"], known)
        q = model.global_step(model.values(q, points, block), q)
    if known is not None:
        q = LDSPosterior(q.parts["dynamics"], q.parts["initial"], known)
    return q


def subset(y, sequences):
    """A block of about MOST_STEPS steps: some whole sequences, or the start of one.

    Which ones depends on the sequences and not on their order.
    """
    if sequences.n_steps <= MOST_STEPS:
        return Block(y, sequences)
    lengths, weight = sequences.lengths, sequences.weight
    sums = np.add.reduceat(np.nan_to_num(y[sequences.steps]), sequences.firsts)
    order = np.lexsort((*sums.T, lengths))
    every = -(-sequences.n_steps // MOST_STEPS)
    chosen = order[::every]
    first, last = sequences.bounds[chosen], sequences.bounds[chosen + 1]
    last = np.minimum(last, first + MOST_STEPS)
    rows = np.concatenate([y[i:j] for i, j in zip(first, last)])
    bounds = np.append(0, np.cumsum(last - first))
    n = max(1, int(np.searchsorted(bounds, MOST_STEPS, side="right")) - 1)
    weight = None if weight is None else weight[chosen[:n]]
    return Block(rows[: bounds[n]], Sequences(bounds[: n + 1], weight))


def signals(block, counts):
    """What components are taken of: steps without gaps, about zero."""
    y = block.y.astype(np.float64)
    if counts:
        y = 2.0 * np.sqrt(y + 0.375)
    seen = ~np.isnan(y)
    mean = np.where(seen, y, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    z = np.where(seen, y - mean, 0.0)
    scale = np.sqrt(np.mean(z**2, axis=0))
    varies = scale > ROUNDING * (1.0 + np.abs(mean))
    return np.where(varies, z / np.where(varies, scale, 1.0), 0.0)


def windows(sequences):
    """Those of WINDOWS that leave something of the longest sequence."""
    longest = sequences.lengths.max()
    return [w for w in WINDOWS if w == 1 or 3 * w <= longest]


def states_by_components(z, sequences, n_components, window, rng=None):
    """Points of unit innovations: principal components of moving averages.

    With `rng` random combinations of them.
    """
    z = _smoothed(z, sequences, window)
    lags = max(1, -(-2 * n_components // z.shape[1]))
    if z.shape[1] < 2 * n_components:
        z = np.column_stack([_shifted(z, sequences, lag) for lag in range(lags)])
    U, s, _ = np.linalg.svd(z, full_matrices=False)
    k = min(n_components, int(np.sum(s > ROUNDING * np.sqrt(z.size))))
    x = U[:, :k]
    rest = np.random.default_rng(0) if rng is None else rng
    if k < n_components:
        noise = rest.standard_normal((len(z), n_components - k))
        x = np.column_stack([x, noise])
    if rng is not None:
        width = min(len(s), 3 * n_components)
        mix = rng.standard_normal((width, n_components))
        x = (U[:, :width] * s[:width]) @ mix + 1e-3 * rest.standard_normal(
            (len(z), n_components)
        )
    x = x - x.mean(axis=0) if len(x) > 1 else x
    scale = x.std(axis=0)
    x = x / np.where(scale > ROUNDING, scale, 1.0)
    inner = np.flatnonzero(sequences.begins[1:-1] == 0) + 1
    if len(inner) <= 2 * n_components:
        return x
    before, after = x[inner - 1], x[inner]
    ridge = 1e-6 * len(inner) * np.eye(n_components)
    A = np.linalg.solve(before.T @ before + ridge, before.T @ after).T
    left = after - before @ A.T
    cov = left.T @ left / len(left) + 1e-3 * np.eye(n_components)
    return np.linalg.solve(np.linalg.cholesky(cov), x.T).T


def _smoothed(z, sequences, window):
    if window == 1:
        return z
    total = np.concatenate([np.zeros((1, z.shape[1])), np.cumsum(z, axis=0)])
    first = np.repeat(sequences.firsts, sequences.lengths)
    last = np.repeat(sequences.lasts, sequences.lengths)
    t, half = np.arange(len(z)), window // 2
    low, high = np.maximum(t - half, first), np.minimum(t + half, last) + 1
    return (total[high] - total[low]) / (high - low)[:, None]


def _shifted(z, sequences, lag):
    """Each step's neighbour ``lag`` steps on, or the last of its sequence."""
    last = np.repeat(sequences.lasts, sequences.lengths)
    return z[np.minimum(np.arange(len(z)) + lag, last)]


def states_by_loadings(z, loadings):
    """Points from known loadings, by ridge regression of each step."""
    K = loadings.shape[1]
    gram = loadings.T @ loadings
    ridge = 1e-3 * max(np.trace(gram), 1e-300) / K * np.eye(K)
    return np.linalg.solve(gram + ridge, loadings.T @ z.T).T


def about_variances(model, scale):
    """Posteriors of a preset about different ratios of its variances.

    `scale` (D,) are variances of differences between steps.
    """
    q = model.prior()
    dynamics, observations = q.parts["dynamics"], q.parts["observations"]
    noise = {name: _about(scale) for name in observations.factors}
    names = list(dynamics.factors)
    for ratios in itertools.product(RATIOS, repeat=len(names)):
        laws = {name: _about(ratio * scale) for name, ratio in zip(names, ratios)}
        yield LDSPosterior(Product(laws), q.parts["initial"], Product(noise))


def _about(variances):
    return Gamma(np.full(len(variances), SURE), SURE * variances)
