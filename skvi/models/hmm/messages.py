"""Forward and backward messages along sequences, in stretches done side by side.

A stretch that begins inside a sequence takes a guess of its neighbour's message, from a
few steps of the neighbour: chains forget where they started. When all stretches are
done each guess is compared with the message itself, and a stretch whose guess was wrong
is done again. So the result is that of one stretch, to rounding, whatever the chain.
"""

from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np

from skvi.inference.blocks import run_parallel
from skvi.kernels import chain
from skvi.models.sequences import SHORTEST_STRETCH

# Log weights of transitions below this count as this. The kernel's floor of log
# densities is so much lower that to change states is always cheaper.
FLOOR = -250.0
FARTHER = 4  # times as many steps, where a guess still depends on its own start
# Relative differences of messages that are rounding; they do not grow along a chain.
SAME = {"float64": 1e-12, "float32": 1e-6}
TINY = 1e-37
N_ROUNDS = 2  # in which stretches are done again one by one


class ChainWeights:
    """The weights of initial states and transitions, as kernels read them.

    Parameters
    ----------
    log_initial, log_trans : arrays of shape (K,) and (K, K)
        They need not be normalised.
    """

    def __init__(self, log_initial, log_trans):
        self.log_initial = np.maximum(log_initial, FLOOR)
        self.log_trans = np.maximum(log_trans, FLOOR)
        self.initial = np.exp(self.log_initial)
        self.trans = np.exp(self.log_trans)

    @cached_property
    def padded(self):
        """Transition weights and their transpose, with columns for the kernels."""
        n = len(self.initial)
        pad = ((0, 0), (0, chain.padded(n) - n))
        transposed = np.ascontiguousarray(self.trans.T)
        return np.pad(self.trans, pad), np.pad(transposed, pad)


def filtered(log_density, weights, sequences, n_jobs=None):
    """Probabilities of states given the steps so far, and log densities of steps.

    Parameters
    ----------
    log_density : array of shape (K, T)
    weights : ChainWeights
    sequences : Sequences
        Of the T steps.

    Returns
    -------
    filtered : array of shape (K, T)
    log_scale : array of shape (T,)
        Log density of each step given those before it in its sequence.
    """
    forward = Forward(log_density, weights, sequences)
    forward.run(n_jobs)
    return forward.out, forward.log_scale


def smoothed(filtered, weights, sequences, out, n_jobs=None):
    """Probabilities of states given all steps, into `out`; and of transitions.

    Returns
    -------
    transitions : array of shape (K, K)
        Their expected numbers, each sequence as often as it counts.
    """
    backward = Backward(filtered, weights, sequences, out)
    backward.run(n_jobs)
    return backward.transitions


class Pass(ABC):
    """All stretches in one direction."""

    def __init__(self, weights, sequences, out):
        self.weights, self.sequences, self.out = weights, sequences, out
        self.n_states, self.n_steps = out.shape
        self.start, self.stop = (each.copy() for each in sequences.stretches)

    @property
    @abstractmethod
    def inside(self):
        """Stretches that begin inside a sequence, (n_groups, N_LANES)."""

    @abstractmethod
    def forget(self, i):
        """Drop what stretch number i, in the order of the pass, has counted."""

    @abstractmethod
    def stretch(self, start, stop, message, group=None):
        """Do a group's stretches; without its number only messages change."""

    @abstractmethod
    def warm_up(self, reach):
        """Messages from as many steps of the neighbours."""

    @abstractmethod
    def neighbours(self):
        """The messages themselves, as far as they are known."""

    def run(self, n_jobs):
        message = self._guess()
        active = np.ones_like(self.inside)
        n_rounds = 0
        while active.any():
            taken = message.copy()
            self._stretches(message, active, n_jobs)
            message = self.neighbours()
            active = self.inside & ~self._same(taken, message)
            n_rounds += 1
            if n_rounds > N_ROUNDS:  # a chain that does not forget
                active = self._join(active)
                message = self.neighbours()

    def _join(self, wrong):
        """Put wrong stretches and all that follow them in their sequences together.

        Stretch by stretch each would wait for the one before, and be done again for it.
        """
        start, stop, inside = (
            each.ravel()[:: self.direction]
            for each in (self.start, self.stop, self.inside)
        )
        wrong = wrong.ravel()[:: self.direction].copy()
        head = None
        for i in range(len(wrong)):
            if wrong[i] and (head is None or not inside[i]):
                head = i
            elif not inside[i]:
                head = None
            elif head is not None:
                if self.direction > 0:
                    stop[head] = stop[i]
                else:
                    start[head] = start[i]
                start[i] = stop[i] = 0
                wrong[i] = False
                self.forget(i)
        shape = self.start.shape
        self.start, self.stop = (
            np.ascontiguousarray(each[:: self.direction].reshape(shape))
            for each in (start, stop)
        )
        return wrong[:: self.direction].reshape(shape)

    def _stretches(self, message, active, n_jobs):
        stop = np.where(active, self.stop, self.start)
        run_parallel(
            lambda g: self.stretch(self.start[g], stop[g], message[g], g),
            np.flatnonzero(active.any(axis=1)),
            n_jobs,
            shared_memory=True,
        )

    def _guess(self):
        longest = int((self.stop - self.start).max())
        reach = SHORTEST_STRETCH
        message = self.warm_up(reach)
        while self.inside.any() and reach < longest:
            reach *= FARTHER
            last, message = message, self.warm_up(reach)
            if np.all(self._same(last, message) | ~self.inside):
                break
        return message

    def _same(self, a, b):
        # What is no number agrees with anything: to do it again would not help.
        far = np.abs(a - b) > SAME[self.out.dtype.name] * b + TINY
        return ~far.any(axis=-1)

    def _columns(self, t):
        """Columns of `out`, (n_groups, N_LANES, K)."""
        return np.ascontiguousarray(np.moveaxis(self.out[:, t], 0, -1), dtype=float)

    def _warm_up(self, start, stop, message):
        for g in np.flatnonzero(self.inside.any(axis=1)):
            first = np.where(self.inside[g], start[g], stop[g])
            self.stretch(first, stop[g], message[g])
        return message


class Forward(Pass):
    """Filtering: from the first steps on."""

    direction = 1

    def __init__(self, log_density, weights, sequences):
        super().__init__(weights, sequences, np.empty_like(log_density))
        self.log_density = log_density
        self.log_scale = np.empty(self.n_steps)

    @property
    def inside(self):
        begins = self.sequences.begins[self.start] == 1
        return ~begins & (self.stop > self.start)

    def stretch(self, start, stop, message, group=None):
        chain.forward(
            start,
            stop,
            self.weights.padded[0],
            self.weights.initial,
            self.sequences.begins,
            self.log_density,
            self.out,
            self.log_scale,
            message,
            group is not None,
        )

    def forget(self, i):
        """Nothing is counted on the way."""

    def warm_up(self, reach):
        even = np.full((*self.start.shape, self.n_states), 1.0 / self.n_states)
        return self._warm_up(np.maximum(self.start - reach, 0), self.start, even)

    def neighbours(self):
        return self._columns(self.start - 1)


class Backward(Pass):
    """Smoothing: from the last steps back."""

    direction = -1

    def __init__(self, filtered, weights, sequences, out):
        super().__init__(weights, sequences, out)
        self.filtered = filtered
        size = len(weights.padded[0][0])
        self.counts = np.zeros((len(self.start), size, size, chain.N_LANES))
        self.nothing = np.empty((0, 0, 0))

    @property
    def inside(self):
        ends = self.sequences.begins[self.stop] == 1
        return ~ends & (self.stop > self.start)

    def stretch(self, start, stop, message, group=None):
        counts = self.nothing
        if group is not None:
            counts = self.counts[group]
            counts[..., stop > start] = 0.0  # of the time before
        chain.backward(
            start,
            stop,
            *self.weights.padded,
            self.sequences.begins,
            self.sequences.step_weight,
            self.filtered,
            self.out,
            counts,
            message,
            group is not None,
        )

    def warm_up(self, reach):
        end = np.minimum(self.stop + reach, self.n_steps)
        last = np.minimum(end, self.n_steps - 1)
        message = np.moveaxis(self.filtered[:, last], 0, -1)
        message = np.ascontiguousarray(message, dtype=float)
        return self._warm_up(self.stop, end, message)

    def neighbours(self):
        return self._columns(np.minimum(self.stop, self.n_steps - 1))

    def forget(self, i):
        group, lane = divmod(self.start.size - 1 - i, chain.N_LANES)
        self.counts[group, ..., lane] = 0.0

    @property
    def transitions(self):
        K = self.n_states
        return self.weights.trans * self.counts.sum(axis=(0, -1))[:K, :K]
