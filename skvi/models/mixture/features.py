"""Geometry by features: quadratic forms of all components from one matrix product.

``E[(x - mu_k)' L_k (x - mu_k)] = sum_f Q_kf T_f(x)`` with the features

=============================  =======================================================
full covariances               1, x_i, x_i x_j (i <= j)
diagonal and spherical         1, x_d, x_d^2
the same, entries missing      o_d, o_d x_d, o_d x_d^2, with o_d = 1 where observed
=============================  =======================================================

and the moments are ``sum_n r_nk T(x_n)``, one more product. Missing entries of
independent coordinates drop out of the features: they are integrated out exactly.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from skvi.distributions.gaussian import LOG_2PI
from skvi.models.mixture.geometry import Geometry, Piece, piece_slices


@dataclass(frozen=True)
class FeatureTable:
    """Coefficients of the features, (K, F), and the entries that a feature counts."""

    quadratic: np.ndarray
    log_det: np.ndarray
    log_density: np.ndarray

    @classmethod
    def of(cls, quadratic, log_det, observed):
        log_density = 0.5 * (log_det - quadratic - LOG_2PI * observed)
        return cls(quadratic, log_det, log_density)


class FeaturePiece(Piece):
    """The features of some rows, (F, m), dense or sparse."""

    def __init__(self, features, observed):
        self.features = features
        self.observed = observed

    def copy(self):
        return FeaturePiece(self.features.copy(), self.observed)

    def _product(self, coefficients):
        if sparse.issparse(self.features):
            return np.ascontiguousarray((self.features.T @ coefficients.T).T)
        return coefficients.astype(self.features.dtype, copy=False) @ self.features

    def quadratics(self, table):
        # A difference of large numbers where components are narrow and far away.
        return np.maximum(self._product(table.quadratic), 0.0)

    def log_dets(self, table):
        return self._product(table.log_det)

    def log_densities(self, table):
        return self._product(table.log_density)

    @property
    def n_observed(self):
        return self._product(self.observed[None])[0]


class FeatureSums:
    """``sum r T`` and ``sum r u T``."""

    def __init__(self, geometry, n_components):
        self.geometry = geometry
        self.rows = np.zeros((geometry.n_features, n_components))
        self.scaled = None

    def add(self, piece, table, r, scaled):
        self.rows += piece.features @ r.T
        if scaled is not r:
            if self.scaled is None:
                self.scaled = np.zeros_like(self.rows)
            self.scaled += piece.features @ scaled.T

    def values(self):
        scaled = self.rows if self.scaled is None else self.scaled
        entries = float((self.geometry.observed @ self.rows).sum())
        return {"entries": entries, **self.geometry.collect(self.rows.T, scaled.T)}


class FeatureGeometry(Geometry):
    """Common to all sets of features."""

    def __init__(self, dim):
        self.dim = dim

    @property
    def row_size(self):
        return self.n_features

    def sums(self, n_components):
        return FeatureSums(self, n_components)

    def pieces(self, data, rows, dtype=None):
        slices = piece_slices(rows, self.n_features)
        size = slices[0].stop - slices[0].start
        buffer = np.empty((self.n_features, size), dtype=dtype or data.dtype)
        for part in slices:
            features = buffer[:, : part.stop - part.start]
            self.fill(features, data, part)
            yield FeaturePiece(features, self.observed), part


class FullFeatures(FeatureGeometry):
    """Full covariances of few columns."""

    def __init__(self, dim):
        super().__init__(dim)
        self.upper = np.triu_indices(dim)
        self.n_features = 1 + dim + self.upper[0].size
        self.observed = np.zeros(self.n_features)
        self.observed[0] = dim
        # x_i x_j stands for both of (i, j) and (j, i).
        self.twice = np.where(self.upper[0] == self.upper[1], 1.0, 2.0)

    def fill(self, features, data, part):
        columns = features[1 : self.dim + 1]
        features[0] = 1.0
        data.fill(columns, part)
        start = self.dim + 1
        for i in range(self.dim):
            stop = start + self.dim - i
            np.multiply(columns[i:], columns[i], out=features[start:stop])
            start = stop

    def table(self, components):
        e = components.expect()
        quadratic = np.column_stack(
            [
                e["quadratic"],
                -2.0 * e["linear"],
                e["value"][..., self.upper[0], self.upper[1]] * self.twice,
            ]
        )
        log_det = np.zeros_like(quadratic)
        log_det[:, 0] = e["log_det"]
        return FeatureTable.of(quadratic, log_det, self.observed)

    def collect(self, rows, scaled):
        outer = np.empty((len(rows), self.dim, self.dim))
        outer[:, self.upper[0], self.upper[1]] = scaled[:, self.dim + 1 :]
        outer[:, self.upper[1], self.upper[0]] = scaled[:, self.dim + 1 :]
        return {
            "rows": rows[:, 0],
            "weight": scaled[:, 0],
            "total": scaled[:, 1 : self.dim + 1],
            "outer": outer,
        }


class DiagonalFeatures(FeatureGeometry):
    """Independent coordinates, complete rows; sparse rows stay sparse."""

    def __init__(self, dim):
        super().__init__(dim)
        self.n_features = 2 * dim + 1
        self.observed = np.zeros(self.n_features)
        self.observed[0] = dim

    def fill(self, features, data, part):
        columns = features[1 : self.dim + 1]
        features[0] = 1.0
        data.fill(columns, part)
        np.multiply(columns, columns, out=features[self.dim + 1 :])

    def pieces(self, data, rows, dtype=None):
        if not data.is_sparse:
            yield from super().pieces(data, rows, dtype)
            return
        for part in piece_slices(rows, 64):
            x = data.standard(part).astype(dtype or data.dtype)
            ones = sparse.csr_array(np.ones((x.shape[0], 1), dtype=x.dtype))
            features = sparse.hstack([ones, x, x.multiply(x)], format="csr").T
            yield FeaturePiece(features, self.observed), part

    def table(self, components):
        e = components.expect()
        shape = e["linear"].shape
        value, log = (np.broadcast_to(_each(e[k], shape), shape) for k in _GAMMA)
        quadratic = np.column_stack(
            [e["quadratic"].sum(axis=1), -2.0 * e["linear"], value]
        )
        log_det = np.zeros_like(quadratic)
        log_det[:, 0] = log.sum(axis=1)
        return FeatureTable.of(quadratic, log_det, self.observed)

    def collect(self, rows, scaled):
        return {
            "rows": np.repeat(rows[:, :1], self.dim, axis=1),
            "weight": np.repeat(scaled[:, :1], self.dim, axis=1),
            "total": scaled[:, 1 : self.dim + 1],
            "outer": scaled[:, self.dim + 1 :],
        }


class ObservedFeatures(FeatureGeometry):
    """Independent coordinates, entries missing (NaN)."""

    def __init__(self, dim):
        super().__init__(dim)
        self.n_features = 3 * dim
        self.observed = np.repeat([1.0, 0.0], [dim, 2 * dim])

    def fill(self, features, data, part):
        present, columns, squares = np.split(features, 3)
        data.fill(columns, part)
        np.equal(columns, columns, out=present)
        np.copyto(columns, 0.0, where=present == 0.0)
        np.multiply(columns, columns, out=squares)

    def table(self, components):
        e = components.expect()
        shape = e["linear"].shape
        value, log = (np.broadcast_to(_each(e[k], shape), shape) for k in _GAMMA)
        quadratic = np.column_stack([e["quadratic"], -2.0 * e["linear"], value])
        log_det = np.zeros_like(quadratic)
        log_det[:, : self.dim] = log
        return FeatureTable.of(quadratic, log_det, self.observed)

    def collect(self, rows, scaled):
        present, columns, squares = np.split(scaled, 3, axis=1)
        return {
            "rows": rows[:, : self.dim],
            "weight": present,
            "total": columns,
            "outer": squares,
        }


_GAMMA = ("value", "log")


def _each(value, shape):
    """A value for each component (spherical) as one for each coordinate."""
    return value[:, None] if value.ndim < len(shape) else value
