"""The precision of weights that few rows tell of: the dual of the rows' own curvature.

``P = sum_i W_i (x) z_i z_i' + I (x) diag(ridge)`` for n rows z of p >= n columns, with
K outputs: the vector holds K vectors of p weights one after the other, and W_i is a
positive semidefinite (K, K) matrix, R_i R_i'. With ``A = Z diag(ridge)^-1 Z'`` all that
is factorised is ``M = I + R'(A (x) I)R``, of size nK: by the matrix inversion lemma

    P^-1 = (I (x) ridge^-1) - (I (x) ridge^-1 Z') R M^-1 R' (I (x) Z ridge^-1).
"""

import numpy as np
from scipy import linalg

from skvi.linalg.covariance import symmetric_operator
from skvi.linalg.precision import _cholesky

FEW = 32  # variances that are found one by one


class SitePrecision:
    """P above.

    Parameters
    ----------
    rows : DenseRows or SparseRows, (n, p)
    ridge : array of shape (p,)
    weights : array of shape (n,) or (n, K, K)
    """

    def __init__(self, rows, ridge, weights):
        self.rows = rows
        self.ridge = np.asarray(ridge, dtype=np.float64)
        self.root = _roots(weights)
        self.n, self.n_outputs, _ = self.root.shape
        self.dim = self.n_outputs * len(self.ridge)
        self.kernel = rows.kernel(self.ridge)
        size = self.n * self.n_outputs
        inner = np.einsum("iab,jac->ibjc", self.root, self.root, optimize=True)
        inner *= self.kernel[:, None, :, None]
        inner = inner.reshape(size, size)
        inner.flat[:: size + 1] += 1.0
        self.factor = _cholesky(inner, "dual matrix")
        self._variances = self._explained = None

    def _whiten(self, B):
        return linalg.solve_triangular(self.factor, B, lower=True, check_finite=False)

    def _to_sites(self, columns):
        """``R' (I (x) Z)`` of columns of weights, (nK, c)."""
        K, p = self.n_outputs, len(self.ridge)
        at_rows = self.rows.dot(
            np.moveaxis(columns.reshape(K, p, -1), 0, 1).reshape(p, -1)
        )
        at_rows = at_rows.reshape(self.n, K, -1)
        return np.einsum("nka,nkc->nac", self.root, at_rows).reshape(self.n * K, -1)

    def _from_sites(self, columns):
        K, p = self.n_outputs, len(self.ridge)
        at_rows = np.einsum(
            "nka,nac->nkc", self.root, columns.reshape(self.n, K, -1)
        ).reshape(self.n, -1)
        out = self.rows.tdot(at_rows).reshape(p, K, -1)
        return np.moveaxis(out, 1, 0).reshape(self.dim, -1)

    @property
    def _ridges(self):
        return np.tile(self.ridge, self.n_outputs)

    def solve(self, b):
        scaled = (np.asarray(b).T / self._ridges).T
        columns = scaled.reshape(self.dim, -1)
        inner = linalg.cho_solve(
            (self.factor, True), self._to_sites(columns), check_finite=False
        )
        spread = self._from_sites(inner) / self._ridges[:, None]
        return (columns - spread).reshape(scaled.shape)

    def logdet(self):
        within = 2.0 * np.log(np.diag(self.factor)).sum()
        return within + self.n_outputs * np.log(self.ridge).sum()

    def variances(self):
        if self._variances is None:
            K, p = self.n_outputs, len(self.ridge)
            out = np.empty((K, p))
            for cols, block in self.rows.column_blocks():
                scaled = block / self.ridge[cols]
                for k in range(K):
                    sites = self.root[:, k, :, None] * scaled[:, None, :]
                    white = self._whiten(sites.reshape(self.n * K, -1))
                    explained = (white**2).sum(axis=0)
                    out[k, cols] = 1.0 / self.ridge[cols] - explained
            self._variances = out.ravel()
        return self._variances.copy()

    def variance_sum(self, at):
        """The sum of the variances at some positions.

        For all columns but the last, with one ridge, in products of size nK alone.
        """
        if self._variances is not None:
            return self._variances[at].sum()
        if len(at) <= FEW:
            unit = np.zeros((self.dim, len(at)))
            unit[at, np.arange(len(at))] = 1.0
            return np.trace(self.solve(unit)[at])
        p = len(self.ridge)
        every = len(at) == self.n_outputs * (p - 1) and np.all(at % p < p - 1)
        if not every or np.ptp(self.ridge[:-1]) > 0.0:
            return self.variances()[at].sum()
        if self._explained is None:
            self._explained = self._sum_explained()
        return len(at) / self.ridge[0] - self._explained

    def _sum_explained(self):
        """The trace of ``M^-1 R'(Z ridge^-2 Z' (x) I)R``, the last column left out."""
        kernel = self.rows.first_kernel() / self.ridge[0] ** 2
        inverse, _ = linalg.lapack.dpotri(self.factor, lower=True)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        inverse = inverse.reshape(self.n, self.n_outputs, self.n, self.n_outputs)
        return np.einsum(
            "iajb,ij,ika,jkb->", inverse, kernel, self.root, self.root, optimize=True
        )

    def covariance(self):
        """The covariance as a LinearOperator: p x p is never formed."""
        return symmetric_operator(self.dim, self.solve)

    def sample(self, n, rng):
        # P^-1 (Z'R e + ridge^1/2 f) has covariance P^-1.
        noise = self._from_sites(rng.standard_normal((len(self.factor), n)))
        noise += np.sqrt(self._ridges)[:, None] * rng.standard_normal((self.dim, n))
        return self.solve(noise).T

    def quadratic(self, z):
        return (self._to_sites(z.T) ** 2).sum(axis=0) + (z**2) @ self._ridges

    def inner(self, X):
        """``X P^-1 X'`` of rows X of weights of one output."""
        return X @ self.solve(X.T)

    def squared_inner(self, X):
        """How variances of rows' predictors answer to the rows' own precisions."""
        return self.inner(X) ** 2

    def leverage(self, X):
        return np.einsum("ij,ji->i", X, self.solve(X.T))

    def of_predictors(self, rows, n_outputs=1):
        """Covariances of each row's linear predictors: (m,), or (m, K, K)."""
        if rows is self.rows:
            cross, own = self.kernel, np.diag(self.kernel)
        else:
            cross, own = self._kernel_with(rows)
        K = self.n_outputs
        out = np.empty((len(own), K, K))
        step = max(1, (1 << 22) // max(1, self.n * K * K))
        for start in range(0, len(own), step):
            some = slice(start, start + step)
            sites = np.einsum("nka,nm->namk", self.root, cross[:, some])
            white = self._whiten(sites.reshape(self.n * K, -1))
            white = white.reshape(self.n * K, -1, K)
            explained = np.einsum("smk,sml->mkl", white, white)
            out[some] = own[some, None, None] * np.eye(K) - explained
        return out[:, 0, 0] if K == 1 else out

    def _kernel_with(self, rows):
        """``(Z ridge^-1 Y', diag(Y ridge^-1 Y'))`` for other rows Y."""
        cross, own = np.zeros((self.n, rows.shape[0])), np.zeros(rows.shape[0])
        for (cols, here), (_, there) in zip(
            self.rows.column_blocks(self._block), rows.column_blocks(self._block)
        ):
            scaled = there / self.ridge[cols]
            cross += here @ scaled.T
            own += np.einsum("ij,ij->i", scaled, there)
        return cross, own

    _block = 1 << 10  # columns


def _roots(weights):
    """(n, K, K) arrays R with ``R R' = W``."""
    if weights.ndim == 1:
        return np.sqrt(weights)[:, None, None]
    values, vectors = np.linalg.eigh(weights)
    return vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
