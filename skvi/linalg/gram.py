"""The Gram matrix A = Z'Z of standardised rows: held as A (n > p) or as Z (n <= p)."""

import numpy as np
from scipy import linalg

from skvi.kernels.coordinate import sweep
from skvi.linalg.precision import DensePrecision, DualPrecision


class Spectrum:
    """Eigenbasis of A: A = V diag(eigenvalues) V', null directions left out.

    V is explicit (p, r), or ``Z' B`` for the rows Z of a wide matrix, which are then
    what is stored. The complement of V is the null space of A.
    """

    def __init__(self, eigenvalues, vectors, rows=None):
        self.eigenvalues = eigenvalues
        self.vectors = vectors
        self.rows = rows
        self.dim = vectors.shape[0] if rows is None else rows.shape[1]

    @property
    def n_null(self):
        return self.dim - self.eigenvalues.shape[0]

    def project(self, X):
        """``X V`` for rows X of shape (k, p)."""
        if self.rows is None:
            return X @ self.vectors
        return self.rows.dot(X.T).T @ self.vectors

    def lift(self, M):
        """``V M`` for M of shape (r, k) or (r,)."""
        if self.rows is None:
            return self.vectors @ M
        return self.rows.tdot(self.vectors @ M)

    def squares(self, E):
        """``(V * V) E``: the diagonal of V diag(e) V' for every column e of E."""
        if self.rows is None:
            return (self.vectors**2) @ E
        out = np.empty((self.dim, *E.shape[1:]))
        for cols, block in self.rows.column_blocks():
            out[cols] = ((block.T @ self.vectors) ** 2) @ E
        return out


def _significant(values, n_terms):
    """Eigenvalues that stand clear of the rounding of an n-term sum."""
    if values.size == 0 or values[-1] <= 0.0:
        return np.zeros(values.shape, dtype=bool)
    return values > values[-1] * n_terms * np.finfo(np.float64).eps


class DenseGram:
    """A as a (p, p) matrix."""

    def __init__(self, matrix):
        self.matrix = np.ascontiguousarray(matrix)
        self.dim = matrix.shape[0]
        self.side = self.dim  # of the matrices that are factorised
        self._spectrum = None

    def diagonal(self):
        return np.diag(self.matrix)

    def dot(self, M):
        return self.matrix @ M

    def precision(self, ridge):
        """The precision A + diag(ridge)."""
        matrix = self.matrix.copy()
        matrix.flat[:: self.dim + 1] += ridge
        return DensePrecision(matrix)

    def ascend(self, target, ridge, mean, n_sweeps):
        """Coordinate sweeps on ``-m'(A + diag(ridge))m / 2 + target'm``."""
        mean = np.array(mean, dtype=np.float64)
        ridge = np.ascontiguousarray(ridge, dtype=np.float64)
        sweep(self.matrix, target - self.matrix @ mean, ridge, mean, n_sweeps)
        return mean

    def spectrum(self):
        if self._spectrum is None:
            values, vectors = linalg.eigh(self.matrix, driver="evd", check_finite=False)
            keep = _significant(values, self.dim)
            vectors = np.ascontiguousarray(vectors[:, keep])
            self._spectrum = Spectrum(values[keep], vectors)
        return self._spectrum


class FactorGram:
    """A = Z'Z held as its n <= p rows Z."""

    def __init__(self, rows):
        self.rows = rows
        self.side, self.dim = rows.shape
        self._spectrum = self._diagonal = None

    def diagonal(self):
        if self._diagonal is None:
            self._diagonal = np.empty(self.dim)
            for cols, block in self.rows.column_blocks():
                squares = np.einsum("ij,ij->j", block, block, dtype=np.float64)
                self._diagonal[cols] = squares
        return self._diagonal

    def dot(self, M):
        return self.rows.tdot(self.rows.dot(M))

    def precision(self, ridge):
        """The precision A + diag(ridge); a ridge with entries <= 0 has no dual form."""
        if np.min(ridge) > 0.0:
            return DualPrecision(self.rows, ridge)
        matrix = np.diag(np.asarray(ridge, dtype=np.float64))
        for cols, block in self.rows.column_blocks():
            matrix[:, cols] += self.rows.tdot(block)
        return DensePrecision(matrix)

    def ascend(self, target, ridge, mean, n_sweeps):
        """All coordinates at once: with n <= p the joint solve is the cheaper step."""
        if np.ptp(ridge) > 0.0:
            return self.precision(ridge).solve(target)
        # One ridge for all: the eigenbasis, found once, solves for any in O(np). The
        # target Z'y lies in the row space.
        basis = self.spectrum()
        along = basis.project(target[None, :])[0] / (basis.eigenvalues + ridge[0])
        return basis.lift(along)

    def spectrum(self):
        if self._spectrum is None:
            self._spectrum = self._find_spectrum()
        return self._spectrum

    def _find_spectrum(self):
        n = self.rows.shape[0]
        kernel = np.zeros((n, n))
        for _, block in self.rows.column_blocks():
            # Products of float32 would leave a centred matrix one direction too many.
            block = block.astype(np.float64, copy=False)
            kernel += block @ block.T
        values, vectors = linalg.eigh(
            kernel, driver="evd", check_finite=False, overwrite_a=True
        )
        keep = _significant(values, self.dim)
        values = values[keep]
        return Spectrum(values, vectors[:, keep] / np.sqrt(values), self.rows)
