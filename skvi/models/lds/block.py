"""Steps of whole sequences as the local step reads them."""

from functools import cached_property

import numpy as np
from scipy import special

from skvi.models.sequences import Sequences

CHUNK = 4096  # steps whose (p, p) matrices are held at once


class Block:
    """Whole sequences of some data, and what the local step remembers of them.

    Parameters
    ----------
    y : array of shape (n_steps, D)
        All steps, in standard units, NaN where missing.
    sequences : Sequences
        Those of the block.

    Attributes
    ----------
    memory : object
        Of the observations' local step, from pass to pass.
    expected : (chain, array of shape (n_steps,))
        What it found last: a law of the states, and expected log densities.
    last : (posterior, patient, chain)
        What the last local step was for, and what it found.
    patient : bool
        Whether a local step that iterates goes on to its end; in a fit it need not.
    """

    def __init__(self, y, sequences):
        self.sequences = sequences
        self.y = y[sequences.steps]
        self.memory = None
        self.expected = None, None
        self.last = None, None, None
        self.patient = True

    @classmethod
    def parts(cls, y, sequences):
        return [cls(y, part) for part in sequences.blocks()]

    @property
    def n_steps(self):
        return len(self.y)

    @cached_property
    def observed(self):
        """Patterns of observed entries, (n_patterns, D), and which one a step has."""
        missing = np.isnan(self.y)
        if not missing.any():
            return np.ones((1, self.y.shape[1])), np.zeros(self.n_steps, dtype=np.int64)
        packed = np.packbits(missing, axis=1)
        _, first, which = np.unique(
            packed, axis=0, return_index=True, return_inverse=True
        )
        return (~missing[first]).astype(np.float64), which.reshape(-1)

    @property
    def complete(self):
        patterns, _ = self.observed
        return len(patterns) == 1 and bool(patterns.all())

    @cached_property
    def filled(self):
        """y with zeros for what is missing, float64."""
        return np.nan_to_num(self.y.astype(np.float64), nan=0.0)

    @cached_property
    def kinds(self):
        """(pattern, is first, is last) of the kinds of steps, and which one a step has.

        Steps of a kind have the same block on the diagonal of the precision.
        """
        _, which = self.observed
        begins = self.sequences.begins.astype(np.int64)
        code = (which * 2 + begins[:-1]) * 2 + begins[1:]
        found = np.flatnonzero(np.bincount(code))
        kind = np.empty(found[-1] + 1, dtype=np.int64)
        kind[found] = np.arange(len(found))
        return (found // 4, found // 2 % 2 == 1, found % 2 == 1), kind[code]

    @cached_property
    def weight(self):
        """How often each step counts, (n_steps,)."""
        weight = self.sequences.step_weight
        return weight if weight.size else np.ones(self.n_steps)

    @cached_property
    def weighted_filled(self):
        return self.filled if self._unweighted else self.filled * self.weight[:, None]

    @property
    def _unweighted(self):
        return self.sequences.weight is None

    @cached_property
    def log_factorials(self):
        """``sum log y!``, each step as often as it counts."""
        return float(self.weight @ special.gammaln(self.filled + 1.0).sum(axis=1))

    @cached_property
    def has_past(self):
        """Weights of steps that come after another, zero for first steps."""
        return self.weight * (self.sequences.begins[:-1] == 0)

    @cached_property
    def has_future(self):
        return self.weight * (self.sequences.begins[1:] == 0)

    @cached_property
    def constants(self):
        """Of each column: how many entries there are, and the sum of their squares."""
        patterns, which = self.observed
        counts = np.bincount(which, weights=self.weight, minlength=len(patterns))
        return {
            "n_observed": counts @ patterns,
            "square": np.einsum("ts,ts->s", self.weighted_filled, self.filled),
        }

    def per_sequence(self, values):
        """Sums of values of steps over each sequence."""
        return np.add.reduceat(values, self.sequences.firsts)


def one_block(y, bounds=None):
    """A block of all steps: one sequence, or those between the bounds."""
    bounds = [0, len(y)] if bounds is None else bounds
    return Block(y, Sequences(bounds))


def sum_of_outer(chain, weight, origin=0.0):
    """``sum_t weight_t E[(x_t - origin) (x_t - origin)']``."""
    m, found = chain.mean - origin, chain.covariances
    shares = np.bincount(found.whose, weights=weight, minlength=len(found.variances))
    return np.tensordot(shares, found.variances, 1) + m.T @ (weight[:, None] * m)


def extended_outer(chain, steps):
    """``E[(x_t, 1) (x_t, 1)']`` of a slice of steps, (n, d + 1, d + 1)."""
    m, found = chain.mean[steps], chain.covariances
    d = m.shape[1]
    out = np.empty((len(m), d + 1, d + 1))
    out[:, :d, :d] = found.variances[found.whose[steps]]
    out[:, :d, :d] += m[:, :, None] * m[:, None, :]
    out[:, :d, d] = out[:, d, :d] = m
    out[:, d, d] = 1.0
    return out


def chunks(n_steps):
    return [slice(i, min(i + CHUNK, n_steps)) for i in range(0, n_steps, CHUNK)]
