"""Gaussian with a structured precision: full and factorised forms are one family."""

import numpy as np

from skvi.distributions.base import ExponentialFamily
from skvi.linalg import as_matrix

LOG_2PI = np.log(2.0 * np.pi)


def as_rows(z):
    """Draws of a vector, (n, dim), also where a dimension of one was dropped."""
    z = np.asarray(z, dtype=np.float64)
    return z.reshape(z.shape[0], -1)


class Gaussian(ExponentialFamily):
    """``x ~ N(mean, precision^-1)``; the precision's class says what is stored.

    Parameters
    ----------
    mean : array of shape (p,)
    precision : one of skvi.linalg's structured precisions
        ``DiagonalPrecision`` makes the coordinates independent (mean field).
    """

    def __init__(self, mean, precision):
        self.mean = np.asarray(mean, dtype=np.float64)
        self.precision = precision

    @property
    def dim(self):
        return self.mean.shape[0]

    def variance(self):
        return self.precision.variances()

    def covariance(self):
        return self.precision.covariance()

    def expect(self):
        return {
            "value": self.mean,
            "outer": np.outer(self.mean, self.mean) + as_matrix(self.covariance()),
        }

    def natural(self):
        # The matrix is rebuilt from its columns, so this is for small p.
        eye = np.eye(self.dim)
        root = self.precision.quadratic
        diag = root(eye)
        sums = root((eye[:, None, :] + eye[None, :, :]).reshape(-1, self.dim))
        P = 0.5 * (sums.reshape(self.dim, self.dim) - diag[:, None] - diag[None, :])
        return {"value": P @ self.mean, "outer": -0.5 * P}

    @staticmethod
    def log_normalizer(natural):
        P = -2.0 * natural["outer"]
        P = 0.5 * (P + P.T)
        h = natural["value"]
        _, logdet = np.linalg.slogdet(P)
        return 0.5 * (h @ np.linalg.solve(P, h) - logdet + len(h) * LOG_2PI)

    @staticmethod
    def statistics(z):
        return {"value": z, "outer": z[:, :, None] * z[:, None, :]}

    def entropy(self):
        return 0.5 * (self.dim * (1.0 + LOG_2PI) - self.precision.logdet())

    def sample(self, n, rng):
        return self.mean + self.precision.sample(n, rng)

    def log_density(self, z):
        quadratic = self.precision.quadratic(as_rows(z) - self.mean)
        return 0.5 * (self.precision.logdet() - self.dim * LOG_2PI - quadratic)

    def distance(self, other):
        moves = np.abs(self.mean - other.mean) / np.sqrt(self.variance())
        return float(np.max(moves, initial=0.0))
