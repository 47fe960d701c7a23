"""Sums over steps that default priors rest on; they add over blocks of sequences."""

from dataclasses import dataclass

import numpy as np

ROUNDING = 1e-14  # relative variances below this are rounding
TINY = 1e-300


@dataclass(frozen=True)
class Totals:
    """Of each column: numbers of entries and of differences, and their sums.

    Attributes
    ----------
    n, sum, square : arrays of shape (D,)
        Of the entries that are not missing.
    n_changes, square_change : arrays of shape (D,)
        Of changes from step to step.
    n_rough, square_rough : arrays of shape (D,)
        Of differences of differences, which take a trend and a season away; scaled to
        have twice the variance of noise, as changes have.
    n_steps : float
        Each as often as it counts.
    """

    n: np.ndarray
    sum: np.ndarray
    square: np.ndarray
    n_changes: np.ndarray
    square_change: np.ndarray
    n_rough: np.ndarray
    square_rough: np.ndarray
    n_steps: float

    @classmethod
    def of(cls, y, sequences, lags=()):
        """The totals of steps, with differences at these lags, one after the other."""
        weight = sequences.step_weight if sequences.weight is not None else None
        n, total, square = _sums(y, weight)
        none = np.zeros(y.shape[1])
        changes = rough = none, none, none
        if lags:
            changes = _sums(_differences(y, sequences, lags[:1]), weight)
            rough = _sums(_differences(y, sequences, lags), weight)
        size = 2.0 / _noise_variance(lags)
        return cls(
            n,
            total,
            square,
            changes[0],
            changes[2],
            rough[0],
            size * rough[2],
            sequences.total_weight,
        )

    def __add__(self, other):
        mine, theirs = vars(self), vars(other)
        return Totals(**{name: mine[name] + theirs[name] for name in mine})

    @property
    def mean(self):
        return self.sum / np.maximum(self.n, TINY)

    @property
    def variance(self):
        """Of the entries; one for a column that does not vary."""
        size = self.square / np.maximum(self.n, TINY)
        found = size - self.mean**2
        return np.where(found > ROUNDING * np.maximum(size, TINY), found, 1.0)

    @property
    def change_variance(self):
        """Mean square of the changes; the variance where there are none."""
        found = self.square_change / np.maximum(self.n_changes, TINY)
        return np.where(found > ROUNDING * self.variance, found, self.variance)

    @property
    def rough_variance(self):
        """That of the rough differences; of the changes where there are none."""
        found = self.square_rough / np.maximum(self.n_rough, TINY)
        change = self.change_variance
        return np.where(found > ROUNDING * change, np.minimum(found, change), change)


def _sums(y, weight):
    """Numbers, sums and sums of squares of the entries of columns that are known."""
    y = y.astype(np.float64, copy=False)
    if not np.isnan(y.sum()):
        if weight is None:
            n = np.full(y.shape[1], float(len(y)))
            return n, y.sum(axis=0), np.einsum("ts,ts->s", y, y)
        n = np.full(y.shape[1], weight.sum())
        return n, weight @ y, np.einsum("t,ts,ts->s", weight, y, y)
    seen = (~np.isnan(y)).astype(np.float64)
    filled = np.nan_to_num(y, nan=0.0)
    weight = np.ones(len(y)) if weight is None else weight
    return (
        weight @ seen,
        weight @ filled,
        np.einsum("t,ts,ts->s", weight, filled, filled),
    )


def _differences(y, sequences, lags):
    """Differences at the first lag, of these at the second, and so on; else NaN."""
    y = y.astype(np.float64)
    for lag in lags:
        change = np.full(y.shape, np.nan)
        change[lag:] = y[lag:] - y[:-lag]
        y = change
    place = np.arange(len(y)) - np.repeat(sequences.firsts, sequences.lengths)
    y[place < sum(lags)] = np.nan
    return y


def _noise_variance(lags):
    """The variance of the differences of white noise of variance one."""
    weights = np.ones(1)
    for lag in lags:
        step = np.zeros(lag + 1)
        step[0], step[-1] = 1.0, -1.0
        weights = np.convolve(weights, step)
    return float(weights @ weights)
