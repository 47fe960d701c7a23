"""Geometry of rows that each miss entries of their own, full or tied covariances.

The formulas are those of ``patterns.py``, row by row: rows that miss as many entries
are taken together, and their matrices ``A = E[L]_mm`` are inverted in one call.
"""

import numpy as np

from skvi.distributions.gaussian import LOG_2PI
from skvi.models.mixture.geometry import Piece
from skvi.models.mixture.patterns import Patterns, PatternTable

STACK_ELEMENTS = 1 << 17  # of the matrices inverted at once, for one component


class IncompletePiece(Piece):
    """Rows (n, D) with NaN at ``missing``, (n, m) column indices."""

    def __init__(self, x, missing):
        self.observed = ~np.isnan(x)
        self.x = np.where(self.observed, x, 0.0)
        self.missing = missing
        self.n_latent = missing.shape[1]
        self.n_observed = x.shape[1] - self.n_latent
        self._completed = None

    def completed(self, table):
        """For each component: completed rows, A^-1, log|A| and quadratic forms."""
        if self._completed is None or self._completed[0] is not table:
            each = [
                self._complete(value, location)
                for value, location in zip(table.value, table.location)
            ]
            self._completed = table, each
        return self._completed[1]

    def _complete(self, value, location):
        at = self.missing
        gap = np.where(self.observed, self.x - location, 0.0)
        pull = gap @ value
        square = np.einsum("ij,ij->i", gap, pull)
        inverse = np.linalg.inv(value[at[:, :, None], at[:, None, :]])
        pull = np.take_along_axis(pull, at, axis=1)
        step = -(inverse @ pull[..., None])[..., 0]
        square += np.einsum("ij,ij->i", step, pull)
        rows = self.x.copy()
        np.put_along_axis(rows, at, location[at] + step, axis=1)
        return rows, inverse, -np.linalg.slogdet(inverse)[1], np.maximum(square, 0.0)

    def quadratics(self, table):
        square = np.stack([each[3] for each in self.completed(table)])
        return square + table.spread[:, None]

    def log_dets(self, table):
        log_det = np.stack([each[2] for each in self.completed(table)])
        return table.log_det[:, None] - log_det

    def latent_entropy(self, table, r):
        log_det = np.stack([each[2] for each in self.completed(table)])
        return 0.5 * float(np.vdot(r, self.n_latent * (1.0 + LOG_2PI) - log_det))

    def add_to(self, sums, table, r, scaled):
        dim = self.x.shape[1]
        flat = (self.missing[:, :, None] * dim + self.missing[:, None, :]).ravel()
        sums.rows += r.sum(axis=1)
        sums.weight += scaled.sum(axis=1)
        for k, (rows, inverse, _, _) in enumerate(self.completed(table)):
            weighted = rows * scaled[k][:, None]
            sums.total[k] += weighted.sum(axis=0)
            spread = np.bincount(flat, (r[k][:, None, None] * inverse).ravel(), dim**2)
            sums.outer[k] += weighted.T @ rows + spread.reshape(dim, dim)


class Incomplete(Patterns):
    """Where hardly two rows miss the same entries."""

    def table(self, components):
        return PatternTable(components)

    def pieces(self, data, rows, dtype=None):
        step = max(16, STACK_ELEMENTS // self.dim**2)
        for part, missing in data.missing_groups(rows):
            if self.skip_empty and missing.shape[1] == self.dim:
                continue
            for start in range(0, len(part), step):
                index = part[start : start + step]
                x = data.standard(index, np.float64)
                yield IncompletePiece(x, missing[start : start + step]), index
