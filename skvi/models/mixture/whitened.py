"""Geometry by whitening: complete rows, full or tied covariances, many columns.

With ``E[L_k] = G_k' G_k`` the quadratic form is ``|G_k x - G_k m_k|^2 + D / beta_k``:
as many operations as the features of ``features.py`` need, twice, but nothing of the
size of D^2 is made of a row. A component adds only the rows that it has a share of.
"""

from dataclasses import dataclass

import numpy as np

from skvi.models.mixture.geometry import Geometry, Piece, piece_slices

BAND = 50  # rows of G in a product
NO_SHARE = 1e-14  # of a row, to a component that has none to rounding


@dataclass(frozen=True)
class WhitenedTable:
    """G of shape (K, D, D), or (D, D) tied; G m of shape (K, D); (K,) the others."""

    factor: np.ndarray
    offset: np.ndarray
    spread: np.ndarray
    log_det: np.ndarray

    @classmethod
    def of(cls, components):
        wishart = components.wishart
        factor = np.sqrt(wishart.dof)[..., None, None] * wishart.inverse_factor
        offset = (factor @ components.location[..., None])[..., 0]
        spread = components.dim / components.mean_precision
        log_det = np.broadcast_to(wishart.mean_log_det, spread.shape)
        return cls(factor, offset, spread, log_det)


class WhitenedPiece(Piece):
    def __init__(self, x):
        self.x = x
        self.n_observed = x.shape[1]

    def log_dets(self, table):
        return table.log_det[:, None]

    def quadratics(self, table):
        dtype, dim = self.x.dtype, self.x.shape[1]
        out = np.empty((len(table.offset), len(self.x)), dtype=dtype)
        out[:] = table.spread[:, None]
        x = np.empty((len(self.x), dim + 1), dtype=dtype)
        x[:, 0], x[:, 1:] = 1.0, self.x
        for k, (factor, offset) in enumerate(zip(table.factor, table.offset)):
            whitener = np.column_stack([-offset, factor]).astype(dtype, copy=False)
            # G is lower triangular: the first columns of G x need those of x only.
            for start in range(0, dim, BAND):
                stop = min(start + BAND, dim)
                white = x[:, : stop + 1] @ whitener[start:stop, : stop + 1].T
                out[k] += np.einsum("ij,ij->i", white, white)
        return out


class WhitenedSums:
    def __init__(self, n_components, dim):
        self.rows = np.zeros(n_components)
        self.weight = np.zeros(n_components)
        self.total = np.zeros((n_components, dim))
        self.outer = np.zeros((n_components, dim, dim))

    def add(self, piece, table, r, scaled):
        self.rows += r.sum(axis=1, dtype=np.float64)
        self.weight += scaled.sum(axis=1, dtype=np.float64)
        for k, share in enumerate(scaled):
            present = np.flatnonzero(share > NO_SHARE)
            x = piece.x
            if present.size < 0.7 * share.size:
                x, share = x.take(present, axis=0), share[present]
            root = np.sqrt(share)
            x = x * root[:, None]
            self.total[k] += root @ x
            self.outer[k] += x.T @ x  # one operand twice: BLAS does half the work

    def values(self):
        return {
            "entries": float(self.total.shape[1] * self.rows.sum()),
            "rows": self.rows,
            "weight": self.weight,
            "total": self.total,
            "outer": self.outer,
        }


class Whitened(Geometry):
    """Full covariances of many columns."""

    def __init__(self, dim):
        self.dim = self.row_size = dim

    def table(self, components):
        return WhitenedTable.of(components)

    def pieces(self, data, rows, dtype=None):
        for part in piece_slices(rows, self.dim // 2):
            yield WhitenedPiece(data.standard(part, dtype)), part

    def sums(self, n_components):
        return WhitenedSums(n_components, self.dim)


class TiedPiece(WhitenedPiece):
    """One G for all components, so that rows are whitened once."""

    def quadratics(self, table):
        dtype = self.x.dtype
        white = self.x @ table.factor.T.astype(dtype)
        out = table.offset.astype(dtype) @ white.T
        out *= -2.0
        out += np.einsum("ij,ij->i", white, white)
        out += ((table.offset**2).sum(axis=1) + table.spread)[:, None].astype(dtype)
        return np.maximum(out, 0.0, out=out)


class TiedSums(WhitenedSums):
    def __init__(self, n_components, dim):
        super().__init__(n_components, dim)
        self.outer = np.zeros((dim, dim))

    def add(self, piece, table, r, scaled):
        x = piece.x
        self.rows += r.sum(axis=1, dtype=np.float64)
        self.weight += scaled.sum(axis=1, dtype=np.float64)
        self.total += scaled @ x
        x = x * np.sqrt(scaled.sum(axis=0))[:, None]
        self.outer += x.T @ x


class Tied(Whitened):
    """One covariance for all components."""

    tied = True

    def pieces(self, data, rows, dtype=None):
        for part in piece_slices(rows, self.dim):
            yield TiedPiece(data.standard(part, dtype)), part

    def sums(self, n_components):
        return TiedSums(n_components, self.dim)
