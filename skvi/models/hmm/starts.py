"""Where a fit starts: clusters of steps, and of their neighbourhoods.

States may differ in where their steps lie, in how widely they scatter, or in what
follows what. So steps are clustered as they are, and by running means of their values
and of their deviations; short runs of the model decide which start was good. Starts
depend on the set of whole sequences, not on their order: they are sorted by a hash of
their steps before anything random happens.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from sklearn.cluster import KMeans, kmeans_plusplus

from skvi.inference.acceleration import OverRelaxation
from skvi.inference.blocks import run_parallel
from skvi.inference.drivers import Batch
from skvi.inference.engine import climb
from skvi.models.hmm.model import Block
from skvi.models.mixture.starts import mixed
from skvi.models.sequences import Sequences

SAMPLE_STEPS = 20_000
SEGMENT_STEPS = 1000  # of the sample's sequences, at most
CLUSTER_STEPS = 5000  # that choose the centres
WINDOWS = {"short windows": 7, "long windows": 31}
KINDS = ("steps", "short windows", "long windows", "neighbours", "random")
SHORT, LONG = 10, 40  # sweeps
N_KEPT = 2  # runs that are made longer
# Nats a step by which runs are as good: the first of them, so that rounding does not
# choose among the labellings of one optimum.
TIE = 1e-4
FEW_STEPS = 5000  # a sample that needs and affords twice as many of both
RANDOM_WINDOW = 10  # steps that a random start gives the same state


@dataclass(frozen=True)
class Sample:
    """Some of the sequences, or parts of them, in an order of their own.

    Attributes
    ----------
    data : rows of the emissions' kind
    sequences : Sequences
    Z : array of shape (n, F)
        Features of the steps, of unit variance, without gaps.
    """

    data: object
    sequences: Sequences
    Z: np.ndarray

    @classmethod
    def of(cls, data, features, sequences, rng):
        """A sample; ``features(index)`` are those of some steps.

        The weights of its sequences add up to those of all: the prior keeps its
        proportion.
        """
        bounds, weight = _segments(sequences)
        order = np.argsort(_segment_keys(features, bounds, rng), kind="stable")
        lengths = np.diff(bounds)[order]
        n = max(1, int(np.searchsorted(lengths.cumsum(), SAMPLE_STEPS, side="right")))
        chosen, lengths = order[:n], lengths[:n]
        index = np.concatenate([np.arange(*bounds[i : i + 2]) for i in chosen])
        weight = None if weight is None else weight[chosen]
        taken = Sequences(np.append(0, lengths.cumsum()), weight)
        if n < len(order):
            each = np.ones(n) if weight is None else weight
            scale = sequences.total_weight / taken.total_weight
            taken = Sequences(taken.bounds, scale * each)
        return cls(data.taken(index), taken, features(index))


def _segments(sequences):
    """Bounds of parts of sequences of about equal length, and their weights."""
    if sequences.n_steps <= SAMPLE_STEPS:
        return sequences.bounds, sequences.weight
    bounds, weight = [], []
    for i, (start, stop) in enumerate(
        zip(sequences.bounds[:-1].tolist(), sequences.bounds[1:].tolist())
    ):
        n = -(-(stop - start) // SEGMENT_STEPS)
        bounds.extend(np.linspace(start, stop, n + 1)[:-1].astype(int).tolist())
        weight.extend([1.0 if sequences.weight is None else sequences.weight[i]] * n)
    bounds.append(sequences.bounds[-1])
    return np.array(bounds), None if sequences.weight is None else np.array(weight)


def _segment_keys(features, bounds, rng):
    """A hash of the steps of each part, of their order too."""
    keys, odd = np.empty(bounds[-1], dtype=np.uint64), None
    for first in range(0, len(keys), SAMPLE_STEPS):
        rows = np.arange(first, min(first + SAMPLE_STEPS, len(keys)))
        Z = features(rows)
        if odd is None:
            odd = rng.integers(1 << 62, size=Z.shape[1], dtype=np.uint64)
            odd = np.uint64(2) * odd + np.uint64(1)
        # Rounded, so that a change of units that rounds differently chooses the same.
        x = np.clip(np.rint(Z * 2.0**8), -(2.0**62), 2.0**62).astype(np.int64)
        keys[rows] = mixed((x.view(np.uint64) * odd).sum(axis=1, dtype=np.uint64))
    place = np.arange(len(keys)) - np.repeat(bounds[:-1], np.diff(bounds))
    return np.add.reduceat(mixed(keys + place.astype(np.uint64)), bounds[:-1])


def labels(kind, sample, n_states, rng):
    """A state for each step of the sample."""
    state = np.random.RandomState(rng.integers(2**31))
    if kind == "random":
        part = np.arange(len(sample.Z)) // RANDOM_WINDOW
        return state.randint(n_states, size=part[-1] + 1)[part]
    return _clusters(_views(kind, sample.Z, sample.sequences), n_states, state)


def _views(kind, Z, sequences):
    """What steps are clustered by."""
    if kind == "steps":
        return Z
    if kind == "neighbours":
        return np.hstack([_shifted(Z, sequences, by) for by in (-1, 0, 1)])
    width = WINDOWS[kind]
    mean = _running_mean(Z, sequences, width)
    spread = _running_mean(np.abs(Z - Z.mean(axis=0)), sequences, width)
    F = np.hstack([mean, spread])
    return F / _scale(F)


def _scale(F):
    sd = F.std(axis=0)
    return np.where(sd > 0.0, sd, 1.0)


def _running_mean(Z, sequences, width):
    out = np.empty_like(Z)
    for start, stop in zip(sequences.bounds[:-1], sequences.bounds[1:]):
        out[start:stop] = ndimage.uniform_filter1d(
            Z[start:stop], min(width, stop - start), axis=0, mode="nearest"
        )
    return out


def _shifted(Z, sequences, by):
    """The step before (-1), after (1), or itself (0, and at an end)."""
    t = np.arange(len(Z)) + by
    ends = sequences.lasts if by > 0 else sequences.firsts
    t[ends] = ends
    return Z[t]


def _clusters(F, n_clusters, state):
    """k-means, its centres found on some of the rows."""
    _, number = np.unique(F @ state.standard_normal(F.shape[1]), return_inverse=True)
    if number.max() < n_clusters:
        return number
    some = F
    if len(F) > CLUSTER_STEPS:
        some = F[np.sort(state.choice(len(F), CLUSTER_STEPS, replace=False))]
    init, _ = kmeans_plusplus(some, n_clusters, random_state=state)
    found = KMeans(n_clusters, init=init, n_init=1, random_state=state).fit(some)
    return found.predict(F)


def start(model, sample, found):
    """The posterior of labelled steps."""
    shares = np.zeros((model.n_states, len(found)))
    shares[found, np.arange(len(found))] = 1.0
    sequences, weight = sample.sequences, sample.sequences.step_weight
    counted = shares * weight if weight.size else shares
    inner = np.flatnonzero(sequences.begins[1:] == 0)
    prior = model.prior()
    values = model.emissions.statistics(
        sample.data, prior.table, sequences.steps, counted
    )
    values = {
        **values,
        "start": counted[:, sequences.firsts].sum(axis=1),
        "transitions": counted[:, inner] @ shares[:, inner + 1].T,
    }
    return model.global_step(values, None)


def _blocks(sample):
    return [Block(sample.data, sample.sequences)]


def best_short(model, sample, kinds, rng, n_jobs=None):
    """The winner of short runs from several starts on a sample."""

    def climbed(job):
        q, n_sweeps = job
        driver = Batch(model, _blocks(sample))
        fit = climb(
            model,
            driver,
            q,
            max_iter=n_sweeps,
            tol=0.0,
            distance_tol=np.inf,
            accelerator=OverRelaxation,
        )
        return fit.elbo, fit.posterior

    def begun(job):
        kind, generator = job
        found = labels(kind, sample, model.n_states, generator)
        return climbed((start(model, sample, found), SHORT))

    few = sample.sequences.n_steps <= FEW_STEPS and model.n_states > 1
    more = 2 if few else 1
    jobs = list(zip(more * kinds, rng.spawn(more * len(kinds))))
    runs = _best(run_parallel(begun, jobs, n_jobs), more * N_KEPT)
    if len(kinds) > 1:
        runs = run_parallel(climbed, [(q, LONG) for _, q in runs], n_jobs)
    tie = TIE * sample.sequences.total_weight
    best = max(elbo for elbo, _ in runs)
    return next(q for elbo, q in runs if not elbo < best - tie)


def _best(runs, n):
    """The best of (ELBO, posterior), in the order that they have."""
    order = np.argsort([-elbo for elbo, _ in runs], kind="stable")[:n]
    return [runs[i] for i in np.sort(order)]
