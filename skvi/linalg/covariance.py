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


def symmetric_operator(dim, matmat):
    """A symmetric LinearOperator from its product with a matrix of columns."""

    def matvec(v):
        return matmat(np.reshape(v, (dim, 1)))[:, 0]

    return LinearOperator(
        (dim, dim), matvec=matvec, rmatvec=matvec, matmat=matmat, dtype=np.float64
    )


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
