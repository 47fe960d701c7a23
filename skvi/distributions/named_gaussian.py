"""One Gaussian over several named variables."""

import numpy as np

from skvi.distributions.base import Distribution
from skvi.linalg import restricted


class NamedGaussian(Distribution):
    """Variables of any shape that are jointly Gaussian.

    Parameters
    ----------
    gaussian : Gaussian
        Of all of them in one vector.
    parts : dict of str to int array
        For each variable the positions of its entries in the vector, in its own shape.
    """

    def __init__(self, gaussian, parts):
        self.gaussian = gaussian
        self.parts = parts
        self.names = tuple(parts)

    @property
    def mean(self):
        return {name: self.gaussian.mean[at] for name, at in self.parts.items()}

    def variance(self, name):
        return self.gaussian.variance()[self.parts[name]]

    def covariance(self, name):
        """Covariance of a variable's entries in order: a matrix, or a LinearOperator.

        The latter where the precision is dual; of a single number its variance.
        """
        at = self.parts[name]
        if np.ndim(at) == 0:
            return self.variance(name)
        return restricted(self.gaussian.covariance(), np.ravel(at))

    def expect(self):
        return self.mean

    def entropy(self):
        return self.gaussian.entropy()

    def sample(self, n, rng):
        draws = self.gaussian.sample(n, rng)
        return {name: draws[:, at] for name, at in self.parts.items()}

    def log_density(self, z):
        n = len(np.asarray(z[self.names[0]]))
        vector = np.empty((n, self.gaussian.dim))
        for name, at in self.parts.items():
            vector[:, np.ravel(at)] = np.reshape(z[name], (n, -1))
        return self.gaussian.log_density(vector)

    def distance(self, other):
        return self.gaussian.distance(other.gaussian)
