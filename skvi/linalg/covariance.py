"""Structured covariances: the inverse of a precision, perhaps with a correction."""

import numpy as np
from scipy.sparse.linalg import LinearOperator


class ScaledInverse:
    """``scale * P^-1 + coefficient * h h'`` for a structured precision P."""

    def __init__(self, precision, scale, vector=None, coefficient=0.0):
        self.precision = precision
        self.scale = scale
        self.vector = np.zeros(precision.dim) if vector is None else vector
        self.coefficient = coefficient

    def variances(self):
        diagonal = self.scale * self.precision.variances()
        return diagonal + self.coefficient * self.vector**2

    def leverage(self, X):
        """``x' C x`` for every row of X."""
        main = self.scale * self.precision.leverage(X)
        return main + self.coefficient * (X @ self.vector) ** 2

    def of_predictors(self, rows, n_outputs=1):
        """Covariances of each row's linear predictors."""
        main = self.scale * self.precision.of_predictors(rows, n_outputs)
        along = rows.dot(self.vector.reshape(n_outputs, -1).T)
        outer = self.coefficient * along[:, :, None] * along[:, None, :]
        return main + (outer[:, 0, 0] if n_outputs == 1 else outer)

    def inner(self, X):
        """``X C X'``."""
        along = X @ self.vector
        main = self.scale * self.precision.inner(X)
        return main + self.coefficient * np.outer(along, along)

    def covariance(self):
        """A matrix, or a LinearOperator where the precision is dual."""
        C = self.precision.covariance()
        if not isinstance(C, LinearOperator):
            outer = np.outer(self.vector, self.vector)
            return self.scale * C + self.coefficient * outer
        scale, h, coefficient = self.scale, self.vector, self.coefficient

        def matmat(M):
            return scale * C.matmat(M) + coefficient * np.outer(h, h @ M)

        return symmetric_operator(len(h), matmat)


class DenseCovariance:
    """A covariance held as a matrix."""

    def __init__(self, matrix):
        self.matrix = matrix

    def variances(self):
        return np.diag(self.matrix).copy()

    def leverage(self, X):
        return np.einsum("ij,ij->i", X @ self.matrix, X)

    def inner(self, X):
        return X @ self.matrix @ X.T

    def covariance(self):
        return self.matrix

    def of_predictors(self, rows, n_outputs=1):
        """Covariances of each row's linear predictors."""
        return rows.quadratic(self.matrix, n_outputs)


class SpectralCovariance:
    """``V (diag(e) + F F') V' + null (I - V V')``."""

    def __init__(self, spectrum, along, factor, null):
        self.spectrum = spectrum
        self.along = along
        self.factor = factor
        self.null = null if spectrum.n_null else 0.0

    def variances(self):
        lifted = self.spectrum.lift(self.factor)
        ones = np.ones_like(self.along)
        along, reach = self.spectrum.squares(np.column_stack([self.along, ones])).T
        out = along + (lifted**2).sum(axis=1)
        if self.spectrum.n_null:
            out = out + np.maximum(1.0 - reach, 0.0) * self.null
        return out

    def leverage(self, X):
        along = self.spectrum.project(X)
        out = along**2 @ self.along + ((along @ self.factor) ** 2).sum(axis=1)
        if self.spectrum.n_null:
            rest = (X**2).sum(axis=1) - (along**2).sum(axis=1)
            out = out + np.maximum(rest, 0.0) * self.null
        return out

    def inner(self, X):
        along = self.spectrum.project(X)
        inside = along @ self.factor
        out = (along * self.along) @ along.T + inside @ inside.T
        if self.spectrum.n_null:
            out = out + self.null * (X @ X.T - along @ along.T)
        return out

    def _matmat(self, M):
        along = self.spectrum.project(M.T).T
        inside = self.along[:, None] * along + self.factor @ (self.factor.T @ along)
        inside = inside - self.null * along
        return self.spectrum.lift(inside) + self.null * M

    def covariance(self):
        """A matrix, or a LinearOperator where the rows are the smaller side."""
        if self.spectrum.rows is not None:
            return symmetric_operator(self.spectrum.dim, self._matmat)
        V = self.spectrum.vectors
        middle = np.diag(self.along - self.null) + self.factor @ self.factor.T
        return V @ middle @ V.T + self.null * np.eye(self.spectrum.dim)


def symmetric_operator(dim, matmat):
    """A symmetric LinearOperator from its product with a matrix of columns."""

    def matvec(v):
        return matmat(np.reshape(v, (dim, 1)))[:, 0]

    return LinearOperator(
        (dim, dim), matvec=matvec, rmatvec=matvec, matmat=matmat, dtype=np.float64
    )


def restricted(covariance, at):
    """The part of a covariance (a matrix or a LinearOperator) at some positions."""
    if not isinstance(covariance, LinearOperator):
        return covariance[np.ix_(at, at)]

    def matmat(M):
        whole = np.zeros((covariance.shape[0], M.shape[1]))
        whole[at] = M
        return (covariance @ whole)[at]

    return symmetric_operator(len(at), matmat)


def as_matrix(covariance):
    """A matrix or LinearOperator as a matrix: for few dimensions."""
    if isinstance(covariance, LinearOperator):
        return covariance @ np.eye(covariance.shape[0])
    return covariance


def scaled_covariance(covariance, scale):
    """``diag(scale) C diag(scale)`` of a matrix, a LinearOperator or a variance."""
    if isinstance(covariance, LinearOperator):
        column = np.broadcast_to(scale, covariance.shape[:1])[:, None]
        return symmetric_operator(
            covariance.shape[0], lambda M: column * covariance.matmat(column * M)
        )
    if np.ndim(covariance) == 0:
        return covariance * np.square(scale)
    scale = np.broadcast_to(scale, covariance.shape[:-1])
    return covariance * scale[..., :, None] * scale[..., None, :]
