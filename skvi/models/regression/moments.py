"""Additive statistics of the rows of a regression, and the design they amount to.

The data enter a Gaussian likelihood through their weight, means and centred second
moments only, so rows are read once, whatever the number of iterations. With more rows
than columns the moments are a scatter matrix; with fewer, the rows themselves are the
smaller statistic and are kept.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from skvi.linalg import DenseGram, DenseRows, FactorGram, SparseRows
from skvi.linalg.rows import block_slices
from skvi.models.regression.scatter import divide, scatter, units

EPS = np.finfo(np.float64).eps


@dataclass(frozen=True)
class Design:
    """Standardised regression data: every column of X and y has weighted sd one.

    Attributes
    ----------
    weight : float
        Total weight: the number of rows that the weights count.
    x_mean, x_scale : arrays of shape (p,)
    y_mean, y_scale : arrays of shape (t,)
    gram : DenseGram or FactorGram
    cross : array of shape (p, t), Z'y
    square : array of shape (t,), y'y
    """

    weight: float
    x_mean: np.ndarray
    x_scale: np.ndarray
    y_mean: np.ndarray
    y_scale: np.ndarray
    gram: object
    cross: np.ndarray
    square: np.ndarray

    def __post_init__(self):
        with np.errstate(over="ignore", under="ignore"):
            variance = self.y_scale**2
        if not np.all(np.isfinite(variance) & (variance > 0.0)):
            raise ValueError(
                f"y has a standard deviation of {self.y_scale.max():.3g}, whose square "
                "is no float: measure y in other units."
            )


def _scale(variance, mean):
    """Standard deviations; a column that is constant up to rounding gets |mean| or 1.

    Returns (scale, whether the column varies).
    """
    sd = np.sqrt(np.maximum(variance, 0.0))
    varies = sd > 8.0 * EPS * np.abs(mean)
    return np.where(varies, sd, np.where(mean != 0.0, np.abs(mean), 1.0)), varies


class Moments:
    """Weight, mean and scatter of the columns of [X, Y]; ``+`` merges two of them.

    Build with :meth:`from_rows`.
    """

    def __init__(self, n_features, weight, mean, scatter, unit):
        self.n_features = n_features
        self.weight = weight
        self.mean = mean
        self.scatter = scatter
        self.unit = unit  # powers of two that the columns were divided by

    @classmethod
    def from_rows(cls, X, Y, sample_weight=None, n_jobs=None):
        """Moments of rows: X (n, p) dense or sparse, Y (n, t), weights (n,) or None."""
        unit = units(X, Y)
        X, Y = divide(X, unit[: X.shape[1]]), divide(Y, unit[X.shape[1] :])
        if X.shape[0] <= X.shape[1]:
            return RowMoments(X, Y, sample_weight, unit)
        return cls(X.shape[1], *scatter(X, Y, sample_weight, n_jobs), unit)

    def __add__(self, other):
        return self._merge(other.condensed())

    def condensed(self):
        return self

    def owned(self):
        """The same moments without a reference to the caller's arrays."""
        return self

    def after(self, design):
        """What to remember of these moments once the design has been fitted."""
        return self

    def in_units(self, unit):
        """The same moments of columns divided by other powers of two."""
        if np.array_equal(unit, self.unit):
            return self
        ratio = self.unit / unit
        scatter = self.scatter * ratio * ratio[:, None]
        return Moments(self.n_features, self.weight, self.mean * ratio, scatter, unit)

    def _merge(self, other):
        other = other.in_units(self.unit)
        weight = self.weight + other.weight
        shift = other.mean - self.mean
        scatter = self.scatter + other.scatter
        scatter += (self.weight * other.weight / weight) * np.outer(shift, shift)
        mean = self.mean + (other.weight / weight) * shift
        return Moments(self.n_features, weight, mean, scatter, self.unit)

    def design(self, fit_intercept=True):
        p = self.n_features
        mean, scatter = self.mean, self.scatter
        if not fit_intercept:
            scatter = scatter + self.weight * np.outer(mean, mean)
            mean = np.zeros_like(mean)
        if not np.all(np.isfinite(scatter)):
            raise ValueError(
                "The squares of X or y overflow: columns hold values of very different "
                "magnitude. Rescale them, for instance by StandardScaler."
            )
        scale, varies = _scale(np.diag(scatter) / self.weight, mean)
        # A constant column or target carries rounding only: its moments are zero.
        keep = varies / scale
        gram = scatter[:p, :p] * keep[:p, None]
        gram *= keep[:p]
        cross = scatter[:p, p:] * np.multiply.outer(keep[:p], keep[p:])
        square = np.diag(scatter)[p:] * keep[p:] ** 2
        mean, scale = mean * self.unit, scale * self.unit
        return Design(
            self.weight,
            mean[:p],
            scale[:p],
            mean[p:],
            scale[p:],
            DenseGram(gram),
            cross,
            square,
        )


class RowMoments(Moments):
    """The rows of a wide matrix, kept as they came: the smaller statistic there."""

    def __init__(self, X, Y, sample_weight, unit):
        self.n_features = X.shape[1]
        self.unit = unit
        self.X = X
        self.Y = Y
        self.sample_weight = sample_weight
        n = X.shape[0]
        self.weight = float(n if sample_weight is None else np.sum(sample_weight))

    def condensed(self):
        """The same rows as a scatter matrix."""
        moments = scatter(self.X, self.Y, self.sample_weight)
        return Moments(self.n_features, *moments, self.unit)

    def owned(self):
        return RowMoments(self.X.copy(), self.Y.copy(), self.sample_weight, self.unit)

    def after(self, design):
        """Dense rows are read back from the design's, which the posterior keeps."""
        return (
            self.owned() if sparse.issparse(self.X) else StandardisedRows(self, design)
        )

    def in_units(self, unit):
        if np.array_equal(unit, self.unit):
            return self
        ratio, p = self.unit / unit, self.n_features
        X, Y = divide(self.X, 1.0 / ratio[:p]), divide(self.Y, 1.0 / ratio[p:])
        return RowMoments(X, Y, self.sample_weight, unit)

    def __add__(self, other):
        if not isinstance(other, RowMoments):
            return other + self
        other = other.in_units(self.unit)
        n = self.X.shape[0] + other.X.shape[0]
        if n > self.n_features:
            return self.condensed()._merge(other.condensed())
        weights = [
            np.ones(m.X.shape[0]) if m.sample_weight is None else m.sample_weight
            for m in (self, other)
        ]
        parts = [self.X, other.X]
        if sparse.issparse(self.X) or sparse.issparse(other.X):
            rows = sparse.vstack([sparse.csr_array(part) for part in parts])
        else:
            rows = np.vstack(parts)
        return RowMoments(
            rows,
            np.vstack([self.Y, other.Y]),
            np.concatenate(weights),
            self.unit,
        )

    def design(self, fit_intercept=True):
        X, Y = self.X, self.Y
        n, p = X.shape
        weight = np.ones(n) if self.sample_weight is None else self.sample_weight
        share = weight / self.weight
        if sparse.issparse(X):
            X = X.tocsc()

        def moments_of(columns):
            if not fit_intercept:
                mean = np.zeros(columns.shape[1])
            else:
                # Centre about the first row before averaging: exact for constants.
                mean = columns[0] + share @ (columns - columns[0])
            return mean, share @ (columns - mean) ** 2

        x_mean, x_var = np.empty(p), np.empty(p)
        for cols in block_slices(p, n):
            block = X[:, cols].toarray() if sparse.issparse(X) else X[:, cols]
            x_mean[cols], x_var[cols] = moments_of(block.astype(np.float64))
        y_mean, y_var = moments_of(Y)
        x_scale, x_varies = _scale(x_var, x_mean)
        y_scale, y_varies = _scale(y_var, y_mean)
        # A constant column divided by infinity is a column of zeros.
        divisor = np.where(x_varies, x_scale, np.inf)
        root = np.sqrt(weight)
        build = SparseRows if sparse.issparse(X) else DenseRows.standardise
        rows = build(X, root, x_mean, divisor)
        targets = (Y - y_mean) * (y_varies / y_scale) * root[:, None]
        x_unit, y_unit = self.unit[:p], self.unit[p:]
        return Design(
            self.weight,
            x_mean * x_unit,
            x_scale * x_unit,
            y_mean * y_unit,
            y_scale * y_unit,
            FactorGram(rows),
            rows.tdot(targets),
            np.einsum("ij,ij->j", targets, targets),
        )


class StandardisedRows:
    """RowMoments that hold the design's standardised rows in place of a copy of X."""

    def __init__(self, moments, design):
        self.Y = moments.Y.copy()
        self.sample_weight = moments.sample_weight
        self.unit = moments.unit
        self.rows = design.gram.rows
        p = moments.n_features
        self.x_mean = design.x_mean / self.unit[:p]
        self.x_scale = design.x_scale / self.unit[:p]

    def __add__(self, other):
        X = self.rows.values.astype(np.float64)
        if self.sample_weight is not None:
            X /= np.sqrt(self.sample_weight)[:, None]
        X = (X * self.x_scale + self.x_mean).astype(self.rows.values.dtype)
        return RowMoments(X, self.Y, self.sample_weight, self.unit) + other
