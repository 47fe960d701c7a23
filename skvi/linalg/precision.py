"""Structured precisions P of a Gaussian N(m, P^-1).

Every class answers the same questions (solve, logdet, variances, sample, quadratic
forms) at the cost that its structure allows: diagonal O(p), dense O(p^3) once, dual
(P = Z'Z + diag(ridge) with n <= p rows Z) O(n^2 p) without any p x p array.
"""

import numpy as np
from scipy import linalg

from skvi.linalg.covariance import symmetric_operator


def _cholesky(matrix, what):
    try:
        return linalg.cholesky(matrix, lower=True, check_finite=False)
    except linalg.LinAlgError:
        raise linalg.LinAlgError(  # a ValueError, too
            f"The {what} is not positive definite to working precision: the prior "
            "precision is too small for collinear columns. Raise it, or learn it."
        ) from None


class VarianceSum:
    """What precisions whose variances are cheap share."""

    def variance_sum(self, at):
        """The sum of the variances at some positions."""
        return self.variances()[at].sum()


class DiagonalPrecision(VarianceSum):
    """P = diag(values)."""

    def __init__(self, values):
        self.values = np.asarray(values, dtype=np.float64)
        self.dim = self.values.shape[0]

    def solve(self, b):
        return (np.asarray(b).T / self.values).T

    def logdet(self):
        return np.log(self.values).sum()

    def variances(self):
        return 1.0 / self.values

    def covariance(self):
        return np.diag(1.0 / self.values)

    def sample(self, n, rng):
        return rng.standard_normal((n, self.dim)) / np.sqrt(self.values)

    def quadratic(self, z):
        """``z' P z`` for every row of z."""
        return (z**2) @ self.values

    def leverage(self, X):
        """``x' P^-1 x`` for every row of X."""
        return (X**2) @ (1.0 / self.values)

    def inner(self, X):
        """``X P^-1 X'``."""
        return (X / self.values) @ X.T

    def trace_solve(self, gram):
        """``trace(gram P^-1)``."""
        return gram.diagonal() @ (1.0 / self.values)

    def of_predictors(self, rows, n_outputs=1):
        """Covariances of each row's linear predictors.

        The vector holds ``n_outputs`` vectors of weights one after the other; of one
        output variances (n,), of K covariances (n, K, K).
        """
        variances = rows.squares(self.variances().reshape(n_outputs, -1).T)
        if n_outputs == 1:
            return variances[:, 0]
        return variances[:, :, None] * np.eye(n_outputs)

    def squared_inner(self, X):
        """How variances of rows' predictors answer to the rows' own precisions."""
        squares = X**2 * self.variances()
        return squares @ squares.T

    def apply_squared_inner(self, rows, parts):
        """``squared_inner`` of blocks of rows times a vector in parts, unformed."""
        answer = sum(each.squares_tdot(x) for each, x in zip(rows, parts))
        answer = answer * self.variances() ** 2
        return np.concatenate([each.squares(answer) for each in rows])


class DensePrecision(VarianceSum):
    """P held as a full matrix and its Cholesky factor."""

    def __init__(self, matrix):
        self.matrix = matrix
        self.dim = matrix.shape[0]
        self.factor = _cholesky(matrix, "posterior precision")
        self._covariance = self._inverse_root = None

    def _whiten(self, B):
        return linalg.solve_triangular(self.factor, B, lower=True, check_finite=False)

    def solve(self, b):
        return linalg.cho_solve((self.factor, True), b, check_finite=False)

    def logdet(self):
        return 2.0 * np.log(np.diag(self.factor)).sum()

    def covariance(self):
        if self._covariance is None:
            if self.dim == 0:
                return np.zeros((0, 0))
            inverse, _ = linalg.lapack.dpotri(self.factor, lower=True)
            lower = np.tril(inverse)
            self._covariance = lower + np.tril(inverse, -1).T
        return self._covariance

    def variances(self):
        return np.diag(self.covariance()).copy()

    def sample(self, n, rng):
        noise = rng.standard_normal((self.dim, n))
        draws = linalg.solve_triangular(
            self.factor, noise, lower=True, trans="T", check_finite=False
        )
        return draws.T

    def quadratic(self, z):
        return ((z @ self.factor) ** 2).sum(axis=1)

    def leverage(self, X):
        return (self._whiten(X.T) ** 2).sum(axis=0)

    def inner(self, X):
        white = self._whiten(X.T)
        return white.T @ white

    def trace_solve(self, gram):
        return float(np.vdot(gram.matrix, self.covariance()))

    def of_predictors(self, rows, n_outputs=1):
        if n_outputs == 1:
            return rows.norms(self)
        return rows.quadratic(self.covariance(), n_outputs)

    def squared_inner(self, X):
        return self.inner(X) ** 2

    def apply_squared_inner(self, rows, parts):
        C = self.covariance()
        answer = C @ sum(each.gram(x) for each, x in zip(rows, parts)) @ C
        return np.concatenate([each.quadratic(answer) for each in rows])

    def inverse_root(self):
        """The lower triangular R with ``P^-1 = R' R``."""
        if self._inverse_root is None:
            self._inverse_root, _ = linalg.lapack.dtrtri(self.factor, lower=True)
        return self._inverse_root

    def let_go(self):
        """Forget what can be computed again; the matrix itself is not asked for."""
        self.matrix = self._covariance = self._inverse_root = None

    def __getstate__(self):
        # Rebuilt when asked for.
        return {**self.__dict__, "_covariance": None, "_inverse_root": None}


class DualPrecision:
    """P = Z'Z + diag(ridge) for n <= p rows Z, through the n x n matrix I + Z R^-1 Z'.

    By the matrix inversion lemma P^-1 = R^-1 - R^-1 Z' (I + Z R^-1 Z')^-1 Z R^-1.
    """

    def __init__(self, rows, ridge):
        self.rows = rows
        self.ridge = np.asarray(ridge, dtype=np.float64)
        self.dim = self.ridge.shape[0]
        n = rows.shape[0]
        kernel = np.eye(n)
        for cols, block in rows.column_blocks():
            scaled = block / np.sqrt(self.ridge[cols])
            kernel += scaled @ scaled.T  # one operand twice: BLAS does half the work
        self.factor = _cholesky(kernel, "dual matrix")
        self._variances = None

    def _whiten(self, B):
        return linalg.solve_triangular(self.factor, B, lower=True, check_finite=False)

    def solve(self, b):
        scaled = (np.asarray(b).T / self.ridge).T
        inner = linalg.cho_solve(
            (self.factor, True), self.rows.dot(scaled), check_finite=False
        )
        return scaled - (self.rows.tdot(inner).T / self.ridge).T

    def logdet(self):
        return 2.0 * np.log(np.diag(self.factor)).sum() + np.log(self.ridge).sum()

    def variances(self):
        if self._variances is None:
            out = np.empty(self.dim)
            for cols, block in self.rows.column_blocks():
                explained = (self._whiten(block / self.ridge[cols]) ** 2).sum(axis=0)
                out[cols] = 1.0 / self.ridge[cols] - explained
            self._variances = out
        return self._variances.copy()

    def covariance(self):
        """The covariance as a LinearOperator: p x p is never formed."""
        return symmetric_operator(self.dim, self.solve)

    def sample(self, n, rng):
        # P^-1 (Z' e + R^1/2 f) has covariance P^-1 (Z'Z + R) P^-1 = P^-1.
        noise = self.rows.tdot(rng.standard_normal((self.rows.shape[0], n)))
        noise += np.sqrt(self.ridge)[:, None] * rng.standard_normal((self.dim, n))
        return self.solve(noise).T

    def quadratic(self, z):
        return (self.rows.dot(z.T) ** 2).sum(axis=0) + (z**2) @ self.ridge

    def leverage(self, X):
        scaled = X / self.ridge
        inner = self._whiten(self.rows.dot(scaled.T))
        return (X * scaled).sum(axis=1) - (inner**2).sum(axis=0)

    def inner(self, X):
        scaled = X / self.ridge
        inner = self._whiten(self.rows.dot(scaled.T))
        return X @ scaled.T - inner.T @ inner

    def trace_solve(self, gram):
        # Z'Z P^-1 has the trace of I - (I + Z R^-1 Z')^-1 when gram is this Z'Z.
        n = self.rows.shape[0]
        inverse = self._whiten(np.eye(n))
        return n - float((inverse**2).sum())
