r"""q(z) as independent states: coordinate ascent, every other step at a time.

Given its neighbours the best q(z_t) is

.. math::

    r_t(k) \propto b_t(k) \exp\Big(\sum_j r_{t-1}(j) \log\tilde A_{jk}
        + \sum_j r_{t+1}(j) \log\tilde A_{kj}\Big)

and steps with an even number do not look at each other, nor do those with an odd one:
half of them are updated at once, which is an exact block of coordinate ascent. It ends
at one of several optima. A pass of a fit goes on from where the last one ended, so that
the bound never falls; the first starts at the probabilities of the best Markov chain,
and so do steps that were not in the fit.
"""

import numpy as np
from scipy import special

from skvi.models.hmm.markov import Local, MarkovChain, starts

COLD, WARM = 1000, 4  # sweeps, of the first pass at most
MOVED = 1e-12  # of a probability, that its neighbours look at
CHUNK = 1 << 13


class Independent:
    """The factorised family."""

    remembers = True

    def local(self, log_density, weights, block):
        sequences, shares = block.sequences, block.memory
        ascent = Ascent(log_density, weights, sequences)
        if shares is None:
            # The chain writes its probabilities in place of the densities.
            kept = log_density.copy()
            shares = MarkovChain().local(kept, weights, block).shares
            awake = np.ones(sequences.n_steps, dtype=bool)
            for _ in range(COLD):
                ascent.sweep(shares, awake)
                if not awake.any():
                    break
        else:
            # As many for every block: how steps are put into blocks must not matter.
            for _ in range(WARM):
                ascent.sweep(shares)
        block.memory = shares
        start = starts(shares, sequences)
        transitions, bound = ascent.sums(shares)
        bound += start @ weights.log_initial + np.sum(transitions * weights.log_trans)
        return Local(shares, start, transitions, float(bound))

    def paths(self, log_density, weights, block):
        """The most probable state of each step, shape (T,)."""
        return self.local(log_density, weights, block).shares.argmax(axis=0)

    def sample(self, log_density, weights, block, n, rng):
        """Draws of the states, (n, T)."""
        shares = self.local(log_density, weights, block).shares
        cumulative = shares.cumsum(axis=0, dtype=np.float64)
        uniform = rng.random((n, 1, shares.shape[1])) * cumulative[-1]
        return (uniform > cumulative).sum(axis=1)

    def log_density(self, z, log_density, weights, block):
        """``log q(z)`` of draws (n, T)."""
        shares = self.local(log_density, weights, block).shares
        with np.errstate(divide="ignore"):
            log = np.log(shares)
        return log[z, np.arange(z.shape[1])].sum(axis=1)


class Ascent:
    """Coordinate ascent of one block, given log densities (K, T) and weights."""

    def __init__(self, log_density, weights, sequences):
        self.log_density = log_density
        self.weights = weights
        self.sequences = sequences
        self.n_steps = log_density.shape[1]

    def sweep(self, shares, awake=None):
        """Update steps in place: all, or those awake.

        A step falls asleep when it is updated, and wakes its neighbours if it moved.
        """
        halves = self.sequences.halves
        for half in (0, 1):
            of_half = halves == half
            steps = np.flatnonzero(of_half if awake is None else of_half & awake)
            for first in range(0, len(steps), CHUNK):
                t = steps[first : first + CHUNK]
                moved = self._update(shares, t)
                if awake is not None:
                    awake[t] = False
                    t = t[moved]
                    awake[t[self.sequences.begins[t] == 0] - 1] = True
                    awake[t[self.sequences.begins[t + 1] == 0] + 1] = True

    def _update(self, shares, t):
        """Update some steps in place; whether each moved."""
        dtype = shares.dtype
        log_trans = self.weights.log_trans.astype(dtype)
        log_initial = self.weights.log_initial.astype(dtype)[:, None]
        begins = self.sequences.begins
        before = shares[:, np.maximum(t - 1, 0)]
        after = shares[:, np.minimum(t + 1, self.n_steps - 1)]
        field = np.where(begins[t] == 1, log_initial, log_trans.T @ before)
        field += np.where(begins[t + 1] == 1, 0.0, log_trans @ after)
        field += self.log_density[:, t]
        fresh = special.softmax(field, axis=0)
        moved = np.abs(fresh - shares[:, t]).max(axis=0) > MOVED
        shares[:, t] = fresh
        return moved

    def sums(self, shares):
        """Expected transitions (K, K); energy of the densities and entropy of q(z)."""
        K, weight = len(shares), self.sequences.step_weight
        transitions, bound = np.zeros((K, K)), 0.0
        for first in range(0, self.n_steps, CHUNK):
            t = np.arange(first, min(first + CHUNK, self.n_steps))
            r = shares[:, t].astype(np.float64)
            w = weight[t] if weight.size else np.ones(t.size)
            each = r * self.log_density[:, t] - special.xlogy(r, r)
            bound += float(each.sum(axis=0) @ w)
            on = self.sequences.begins[t + 1] == 0
            after = shares[:, t[on] + 1].astype(np.float64)
            transitions += (r[:, on] * w[on]) @ after.T
        return transitions, bound
