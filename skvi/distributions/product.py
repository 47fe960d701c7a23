"""Independent factors by name, and the same posterior in other units."""

import numpy as np

from skvi.distributions.base import Distribution, PointMass
from skvi.linalg import scaled_covariance


class Product(Distribution):
    """``q(z) = prod_k q_k``: independent factors.

    Parameters
    ----------
    factors : dict of str to Distribution
        A factor of one variable is named by its key; a joint factor (one with
        ``names``) brings the names of its variables and its key is only a label.
    """

    def __init__(self, factors):
        self.factors = dict(factors)
        names = []
        for key, factor in self.factors.items():
            names.extend([key] if factor.names is None else factor.names)
        self.names = tuple(names)

    def __getitem__(self, key):
        return self.factors[key]

    def expect(self):
        return {key: factor.expect() for key, factor in self.factors.items()}

    def entropy(self):
        return float(sum(factor.entropy() for factor in self.factors.values()))

    def sample(self, n, rng):
        out = {}
        for key, factor in self.factors.items():
            draws = factor.sample(n, rng)
            out.update({key: draws} if factor.names is None else draws)
        return out

    def log_density(self, z):
        total = 0.0
        for key, factor in self.factors.items():
            total = total + factor.log_density(z[key] if factor.names is None else z)
        return total

    def distance(self, other):
        theirs = other.factors
        moves = (factor.distance(theirs[k]) for k, factor in self.factors.items())
        return max(moves, default=0.0)

    def covariance(self, name):
        for key, factor in self.factors.items():
            if factor.names is None and key == name:
                return factor.covariance()
            if factor.names is not None and name in factor.names:
                return factor.covariance(name)
        raise KeyError(f"no variable {name!r}; the variables are {self.names}")

    @property
    def fixed(self):
        out = {k for k, factor in self.factors.items() if isinstance(factor, PointMass)}
        return out.union(*(factor.fixed for factor in self.factors.values()))

    @property
    def mean(self):
        out = {}
        for key, factor in self.factors.items():
            out.update({key: factor.mean} if factor.names is None else factor.mean)
        return out


class Rescaled(Distribution):
    """A joint distribution in other units: ``z[name] = shift + scale * inner z``.

    Models work in units in which the data are of order one; this is how their
    posterior is handed to a user, whose data may be metres or picograms.

    Parameters
    ----------
    inner : Distribution with ``names``
    scale, shift : dict of str to float or array
        Names that are missing keep their units. A scale has the variable's own shape,
        because every coordinate counts in the volume.
    """

    def __init__(self, inner, scale, shift):
        self.inner = inner
        self.scale = {k: np.asarray(v, dtype=np.float64) for k, v in scale.items()}
        self.shift = {k: np.asarray(v, dtype=np.float64) for k, v in shift.items()}
        self.names = inner.names

    @property
    def log_volume(self):
        """Nats that the entropy gains (and the log density loses) by the units."""
        return float(
            sum(
                np.sum(np.log(np.abs(scale)))
                for name, scale in self.scale.items()
                if name not in self.inner.fixed  # a known value has no volume
            )
        )

    def _outward(self, name, value):
        return value * self.scale.get(name, 1.0) + self.shift.get(name, 0.0)

    def _inward(self, name, value):
        return (value - self.shift.get(name, 0.0)) / self.scale.get(name, 1.0)

    @property
    def mean(self):
        return {name: self._outward(name, v) for name, v in self.inner.mean.items()}

    def expect(self):
        """The means, by name; other statistics are read where the model lives."""
        return self.mean

    def entropy(self):
        return self.inner.entropy() + self.log_volume

    def sample(self, n, rng):
        draws = self.inner.sample(n, rng)
        return {name: self._outward(name, value) for name, value in draws.items()}

    def log_density(self, z):
        inside = {name: self._inward(name, np.asarray(z[name])) for name in self.names}
        return self.inner.log_density(inside) - self.log_volume

    def covariance(self, name):
        cov = self.inner.covariance(name)
        scale = self.scale.get(name)
        if scale is None:
            return cov
        # The covariance of an array may be that of all its entries in order.
        in_order = np.ndim(cov) <= 2 < 1 + scale.ndim
        return scaled_covariance(cov, scale.ravel() if in_order else scale)

    def distance(self, other):
        return self.inner.distance(other.inner)
