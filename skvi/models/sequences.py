"""How the rows of X are sequences of steps."""

from functools import cached_property

import numpy as np

from skvi.kernels.chain import N_LANES

BLOCK_STEPS = 1 << 16  # of whole sequences that are one block of work
GROUP_STEPS = 1 << 16  # of a long sequence that one thread takes at a time
SHORTEST_STRETCH = 64


class Sequences:
    """Sequences that stand one after the other.

    Parameters
    ----------
    bounds : array of int of shape (n_sequences + 1,)
        Sequence i has the steps ``bounds[i]`` to ``bounds[i + 1]``, the latter
        excluded.
    weight : None or array of shape (n_sequences,)
        How often each sequence counts.
    """

    def __init__(self, bounds, weight=None):
        self.bounds = np.asarray(bounds, dtype=np.int64)
        self.weight = weight

    @property
    def n_steps(self):
        return int(self.bounds[-1] - self.bounds[0])

    @property
    def n_sequences(self):
        return len(self.bounds) - 1

    @property
    def lengths(self):
        return np.diff(self.bounds)

    @property
    def total_weight(self):
        """The number of steps, each as often as its sequence counts."""
        if self.weight is None:
            return float(self.n_steps)
        return float(self.weight @ self.lengths)

    @cached_property
    def begins(self):
        """Marks of first steps, and of the step after the last."""
        out = np.zeros(self.n_steps + 1, dtype=np.uint8)
        out[self.bounds - self.bounds[0]] = 1
        return out

    @cached_property
    def firsts(self):
        return self.bounds[:-1] - self.bounds[0]

    @cached_property
    def lasts(self):
        return self.bounds[1:] - self.bounds[0] - 1

    @cached_property
    def halves(self):
        """0 for the first step of a sequence, 1 for the second, 0 for the third, ..."""
        place = np.arange(self.n_steps) - np.repeat(self.firsts, self.lengths)
        return (place & 1).astype(np.uint8)

    @cached_property
    def step_weight(self):
        """The weight of each step, or no numbers where all count once."""
        if self.weight is None:
            return np.empty(0)
        return np.repeat(self.weight, self.lengths)

    @property
    def steps(self):
        """The rows of X that they are."""
        return slice(int(self.bounds[0]), int(self.bounds[-1]))

    def part(self, first, last):
        """Sequences ``first`` to ``last``, the latter excluded."""
        weight = None if self.weight is None else self.weight[first:last]
        return Sequences(self.bounds[first : last + 1], weight)

    def blocks(self):
        """Parts of whole sequences, of about as many steps each."""
        number = (self.bounds[:-1] - self.bounds[0]) // BLOCK_STEPS
        firsts = np.flatnonzero(np.diff(number, prepend=-1))
        lasts = np.append(firsts[1:], self.n_sequences)
        return [self.part(i, j) for i, j in zip(firsts, lasts)]

    @cached_property
    def stretches(self):
        """Starts and stops of stretches of steps, (n_groups, N_LANES) each.

        A group is what a kernel does at once; the cuts do not depend on the number of
        workers. They fall between sequences where one is near.
        """
        n_groups = -(-self.n_steps // GROUP_STEPS)
        n = max(1, min(n_groups * N_LANES, self.n_steps // SHORTEST_STRETCH))
        n = n if n < N_LANES else n // N_LANES * N_LANES
        cuts = np.linspace(0, self.n_steps, n + 1).astype(np.int64)
        first = np.append(self.firsts, self.n_steps)
        after = first[np.searchsorted(first, cuts)]
        cuts = np.where(after - cuts < 0.25 * self.n_steps / n, after, cuts)
        start, stop = np.zeros((2, -(-n // N_LANES) * N_LANES), dtype=np.int64)
        start[:n], stop[:n] = cuts[:-1], cuts[1:]
        return start.reshape(-1, N_LANES), stop.reshape(-1, N_LANES)
