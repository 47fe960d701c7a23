"""q(z) as a Markov chain over each sequence: the exact local step."""

from dataclasses import dataclass

import numpy as np

from skvi.inference.blocks import run_parallel
from skvi.kernels import chain
from skvi.models.hmm.messages import filtered, smoothed


@dataclass(frozen=True)
class Local:
    """What a local step finds.

    Attributes
    ----------
    shares : array of shape (K, m)
        Probabilities of the states of each step.
    start, transitions : arrays of shape (K,) and (K, K)
        Expected numbers, each sequence as often as it counts.
    bound : float
        ``E_q[log weights + log densities] + H[q(z)]``.
    """

    shares: np.ndarray
    start: np.ndarray
    transitions: np.ndarray
    bound: float


def starts(shares, sequences):
    """Expected numbers of sequences that start in each state."""
    first = shares[:, sequences.firsts].astype(np.float64)
    weight = sequences.weight
    return first.sum(axis=1) if weight is None else first @ weight


class MarkovChain:
    """The structured family."""

    remembers = False

    def local(self, log_density, weights, block):
        sequences = block.sequences
        forward, log_scale = filtered(log_density, weights, sequences, block.n_jobs)
        shares = log_density  # no longer needed: its place is
        transitions = smoothed(forward, weights, sequences, shares, block.n_jobs)
        weight = sequences.step_weight
        bound = weight @ log_scale if weight.size else log_scale.sum()
        return Local(shares, starts(shares, sequences), transitions, float(bound))

    def paths(self, log_density, weights, block):
        """The most probable path of each sequence, shape (T,)."""
        sequences = block.sequences
        out = np.empty(sequences.n_steps, dtype=np.int64)

        def find(i):
            first, last = sequences.firsts[i], sequences.lasts[i]
            came_from = np.empty((last + 1 - first, len(log_density)), dtype=np.intc)
            chain.most_probable_path(
                weights.log_trans,
                weights.log_initial,
                log_density,
                first,
                last + 1,
                came_from,
                out,
            )

        each = range(sequences.n_sequences)
        run_parallel(find, each, block.n_jobs, shared_memory=True)
        return out

    def sample(self, log_density, weights, block, n, rng):
        """Draws of the states, (n, T): the last of a sequence first."""
        sequences = block.sequences
        forward, _ = filtered(log_density, weights, sequences)
        forward = forward.astype(np.float64)
        out = np.empty((n, sequences.n_steps), dtype=np.int64)
        for t in range(sequences.n_steps - 1, -1, -1):
            law = forward[:, t, None]
            if not sequences.begins[t + 1]:
                law = law * weights.trans[:, out[:, t + 1]]
            cumulative = law.cumsum(axis=0)
            uniform = rng.random(n) * cumulative[-1]
            out[:, t] = (uniform > cumulative).sum(axis=0)
        return out

    def log_density(self, z, log_density, weights, block):
        """``log q(z)`` of draws (n, T)."""
        sequences = block.sequences
        _, log_scale = filtered(log_density, weights, sequences)
        total = log_density[z, np.arange(z.shape[1])].sum(axis=1) - log_scale.sum()
        total += weights.log_initial[z[:, sequences.firsts]].sum(axis=1)
        inner = np.flatnonzero(sequences.begins[1:] == 0)
        return total + weights.log_trans[z[:, inner], z[:, inner + 1]].sum(axis=1)
