r"""Geometry of rows with missing entries under full or tied covariances.

The missing entries x_m of a row are latent variables with, for each component,

.. math::

    q(x_m \mid k, u) = N(\hat x_k,\; (u A_k)^{-1}), \quad
    A = E[L]_{mm}, \quad
    \hat x = m_m - A^{-1} E[L]_{mo} (x_o - m_o)

the exact maximiser given q(mu, L). What is left of the quadratic form is its Schur
complement in the observed entries, what is left of the log determinant
``E log|L| - log|A|``, and the moments of the completed rows are

.. math::

    E[u x x^T] = E[u]\, \hat x \hat x^T + A^{-1} .

Rows are taken in groups of one pattern, whose completions are one affine map each.
"""

from dataclasses import dataclass

import numpy as np

from skvi.distributions.gaussian import LOG_2PI
from skvi.models.mixture.geometry import Geometry, Piece, piece_slices


@dataclass(frozen=True)
class Completion:
    """For one pattern, the affine maps ``P_k x_o + c_k`` and what they leave."""

    matrix: np.ndarray  # (K, D, o)
    constant: np.ndarray  # (K, D)
    schur: np.ndarray  # (K, o, o)
    inverse: np.ndarray  # (K, m, m), A^-1
    log_det: np.ndarray  # (K,), log|A|


class PatternTable:
    """Expectations of the components, from which patterns are completed."""

    def __init__(self, components):
        e = components.expect()
        location = components.location
        shape = (*location.shape, location.shape[-1])
        self.value = np.broadcast_to(e["value"], shape)
        self.log_det = np.broadcast_to(e["log_det"], shape[:1])
        self.location = location
        self.spread = components.dim / components.mean_precision

    def completion(self, observed):
        o, m = np.flatnonzero(observed), np.flatnonzero(~observed)
        n, dim = self.location.shape
        matrix, constant = np.zeros((n, dim, o.size)), np.zeros((n, dim))
        matrix[:, o, np.arange(o.size)] = 1.0
        oo = self.value[:, o[:, None], o]
        if not m.size:
            empty = np.zeros((n, 0, 0))
            return Completion(matrix, constant, oo, empty, np.zeros(n))
        mo = self.value[:, m[:, None], o]
        inverse = np.linalg.inv(self.value[:, m[:, None], m])
        inverse = 0.5 * (inverse + np.swapaxes(inverse, 1, 2))
        slope = -inverse @ mo
        matrix[:, m] = slope
        start = self.location[:, m, None] - slope @ self.location[:, o, None]
        constant[:, m] = start[..., 0]
        schur = oo + np.swapaxes(mo, 1, 2) @ slope
        return Completion(
            matrix, constant, schur, inverse, -np.linalg.slogdet(inverse)[1]
        )


class PatternPiece(Piece):
    """Rows that miss the same entries; ``x`` holds the others."""

    def __init__(self, x, observed):
        self.x = x
        self.observed = observed
        self.n_observed = x.shape[1]
        self.n_latent = observed.size - x.shape[1]
        self._completion = None

    def completion(self, table):
        """That of the piece's pattern at a table; kept, for it is read many times."""
        if self._completion is None or self._completion[0] is not table:
            self._completion = table, table.completion(self.observed)
        return self._completion[1]

    def quadratics(self, table):
        schur = self.completion(table).schur
        out = np.empty((len(schur), len(self.x)))
        for k, matrix in enumerate(schur):
            centred = self.x - table.location[k, self.observed]
            np.einsum("ij,ij->i", centred @ matrix, centred, out=out[k])
        return np.maximum(out, 0.0, out=out) + table.spread[:, None]

    def log_dets(self, table):
        return (table.log_det - self.completion(table).log_det)[:, None]

    def latent_entropy(self, table, r):
        each = self.n_latent * (1.0 + LOG_2PI)
        log_det = self.completion(table).log_det
        return 0.5 * float(r.sum(axis=1) @ (each - log_det))

    def add_to(self, sums, table, r, scaled):
        rows, weight = r.sum(axis=1), scaled.sum(axis=1)
        total = scaled @ self.x
        outer = np.stack([(self.x * s[:, None]).T @ self.x for s in scaled])
        done = self.completion(table)
        P, c = done.matrix, done.constant
        moved = (P @ total[..., None])[..., 0]
        cross = moved[:, :, None] * c[:, None, :]
        sums.rows += rows
        sums.weight += weight
        sums.total += moved + weight[:, None] * c
        sums.outer += P @ outer @ np.swapaxes(P, 1, 2)
        sums.outer += cross + np.swapaxes(cross, 1, 2)
        sums.outer += weight[:, None, None] * (c[:, :, None] * c[:, None, :])
        m = np.flatnonzero(~self.observed)
        sums.outer[:, m[:, None], m] += rows[:, None, None] * done.inverse


class PatternSums:
    def __init__(self, n_components, dim, tied):
        self.rows = np.zeros(n_components)
        self.weight = np.zeros(n_components)
        self.total = np.zeros((n_components, dim))
        self.outer = np.zeros((n_components, dim, dim))
        self.tied = tied

    def add(self, piece, table, r, scaled):
        piece.add_to(self, table, r, scaled)

    def values(self):
        return {
            "entries": float(self.total.shape[1] * self.rows.sum()),
            "rows": self.rows,
            "weight": self.weight,
            "total": self.total,
            "outer": self.outer.sum(axis=0) if self.tied else self.outer,
        }


class Patterns(Geometry):
    """Full or tied covariances, entries missing (NaN)."""

    has_latent = True

    def __init__(self, dim, tied=False, skip_empty=False):
        self.dim = self.row_size = dim
        self.tied = tied
        self.skip_empty = skip_empty

    def table(self, components):
        return PatternTable(components)

    def pieces(self, data, rows, dtype=None):
        for part, observed in data.pattern_groups(rows):
            if self.skip_empty and not observed.any():
                continue
            for piece in piece_slices(slice(0, len(part)), 2 * self.dim):
                index = part[piece]
                x = data.standard(index, np.float64)[:, observed]
                yield PatternPiece(x, observed), index

    def sums(self, n_components):
        return PatternSums(n_components, self.dim, self.tied)
