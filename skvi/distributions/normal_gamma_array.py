"""Means and precisions of independent coordinates, jointly and factorised."""

from abc import abstractmethod
from functools import cached_property

import numpy as np
from scipy import special

from skvi.distributions.base import Distribution, ExponentialFamily
from skvi.distributions.gamma import Gamma
from skvi.distributions.gaussian import LOG_2PI
from skvi.distributions.wishart import stored


class MeansAndGamma(Distribution):
    """What the joint and the factorised form share.

    Both have ``E[mu_kd] = location_kd``, and a precision of mu_kd that is
    mean_precision_kd times tau_kd or times E[tau_kd]; so their ``expect`` is the same.
    """

    def __init__(
        self, mean, mean_precision, shape, rate, names=("means", "precisions")
    ):
        self.location = np.array(mean, dtype=np.float64)
        rate = np.asarray(rate, dtype=np.float64)
        self.spherical = rate.ndim < self.location.ndim
        self.mean_precision = self._coordinates(mean_precision).copy()
        if self.spherical:
            shape = np.broadcast_to(shape, self.location.shape[:-1])
            rate = np.broadcast_to(rate, self.location.shape[:-1])
        else:
            shape, rate = self._coordinates(shape), self._coordinates(rate)
        self.noise = Gamma(shape, rate)
        self.names = tuple(names)

    def __getstate__(self):
        return stored(self)

    def _coordinates(self, value):
        """A value for each component or each coordinate as one for each coordinate."""
        value = np.asarray(value, dtype=np.float64)
        if value.ndim == self.location.ndim - 1:
            value = value[..., None]
        if value.shape == self.location.shape:
            return value
        return np.broadcast_to(value, self.location.shape)

    def _spread(self, value):
        """A value for each tau as one for each mu."""
        return value[..., None] if self.spherical else value

    def _gathered(self, value):
        """A value for each mu as one for each tau."""
        return value.sum(axis=-1) if self.spherical else value

    @property
    @abstractmethod
    def _inverse(self):
        """The variance of a mu whose mean_precision is one, for each tau."""

    @property
    @abstractmethod
    def _unit_law(self):
        """Its Student-t law: degrees of freedom and squared scale."""

    @abstractmethod
    def _precision(self, tau):
        """What mean_precision multiplies in q(mu | tau)."""

    @property
    @abstractmethod
    def _mean_log(self):
        """The expectation of its log."""

    @property
    def mean(self):
        means, precisions = self.names
        return {means: self.location.copy(), precisions: self.noise.mean}

    def variance(self, name):
        """Marginal variances."""
        means, precisions = self.names
        if name == precisions:
            return self.noise.variance()
        if name != means:
            raise KeyError(f"no variable {name!r}; the variables are {self.names}")
        return self._spread(self._inverse) / self.mean_precision

    def covariance(self, name):
        """Marginal covariance along the last axis: of the means (..., K, D, D)."""
        if name == self.names[1]:
            return self.noise.covariance()
        variance = self.variance(name)
        out = np.zeros((*variance.shape, variance.shape[-1]))
        index = np.arange(variance.shape[-1])
        out[..., index, index] = variance
        return out

    @cached_property
    def _expected(self):
        e = self.noise.expect()
        linear = self._spread(e["value"]) * self.location
        quadratic = linear * self.location + 1.0 / self.mean_precision
        return {**e, "linear": linear, "quadratic": quadratic}

    def expect(self):
        """E[tau], E[log tau], E[tau mu] and E[tau mu^2].

        They are called value, log, linear and quadratic.
        """
        return dict(self._expected)

    def entropy(self):
        log_precision = np.log(self.mean_precision) + self._spread(self._mean_log)
        normal = 1.0 + LOG_2PI - log_precision
        return float(0.5 * np.sum(normal) + self.noise.entropy())

    def sample(self, n, rng):
        means, precisions = self.names
        tau = self.noise.sample(n, rng)
        noise = rng.standard_normal((n, *self.location.shape))
        noise /= np.sqrt(self.mean_precision * self._spread(self._precision(tau)))
        return {means: self.location + noise, precisions: tau}

    def log_density(self, z):
        mu, tau = (np.asarray(z[name], dtype=np.float64) for name in self.names)
        precision = self.mean_precision * self._spread(self._precision(tau))
        centred = mu - self.location
        normal = 0.5 * (np.log(precision) - LOG_2PI - precision * centred**2)
        normal = normal.reshape(mu.shape[0], -1).sum(axis=1)
        return normal + self.noise.log_density(tau)

    def predictive(self):
        """The Student-t laws of a new row of each component.

        Diagonal: the coordinates are independent, each ``t(df; loc, scale)``.
        Spherical: jointly one Student-t of ``df`` degrees of freedom, whose shape
        matrix is diagonal with elements ``scale ** 2``.

        Returns
        -------
        df : array of shape (K, D), or (K,) in the spherical form
            ``2 shape``.
        loc, scale : arrays of shape (K, D)
        """
        ratio = self._spread(self.noise.rate / self.noise.shape)
        scale = np.sqrt(ratio * (1.0 + 1.0 / self.mean_precision))
        return 2.0 * self.noise.shape, self.location.copy(), scale

    def distance(self, other):
        # A Student-t with few degrees of freedom has no variance: its scale serves.
        scale = self.mean_precision * self._spread(self.noise.mean)
        moves = np.abs(self.location - other.location) * np.sqrt(scale)
        return max(self.noise.distance(other.noise), float(np.max(moves, initial=0.0)))

    def rescaled(self, scale, shift=0.0):
        """The law of the parameters of ``shift + scale * x``.

        The scale has shape (D,); it is one number in the spherical form.
        """
        return type(self)(
            shift + scale * self.location,
            self.mean_precision,
            self.noise.shape,
            self.noise.rate * np.square(scale),
            self.names,
        )

    def means_law(self):
        """Marginal Student-t laws of the means: (df, loc, scale), (K, D) each."""
        df, square = (self._spread(value) for value in self._unit_law)
        scale = np.sqrt(square / self.mean_precision)
        return np.broadcast_to(df, scale.shape).copy(), self.location.copy(), scale

    def square(self, k, step):
        """``sum_d E[tau_kd] step_d^2``."""
        return float(np.sum(self.noise.mean[k] * step**2))

    def coordinates(self):
        """Unconstrained numbers that determine the distribution."""
        noise = self.noise
        parts = np.log(self.mean_precision), self.location, np.log(noise.shape)
        parts = (*parts, np.log(noise.rate / noise.shape))
        return np.concatenate([part.ravel() for part in parts])

    def at(self, coordinates):
        """The distribution of other coordinates."""
        size, n = self.location.size, self.noise.shape.size
        parts = np.split(coordinates, [size, 2 * size, 2 * size + n])
        shape = np.exp(parts[2]).reshape(self.noise.shape.shape)
        return type(self)(
            parts[1].reshape(self.location.shape),
            np.exp(parts[0]).reshape(self.location.shape),
            shape,
            shape * np.exp(parts[3]).reshape(shape.shape),
            self.names,
        )

    def reordered(self, order):
        """With the components in another order."""
        axis = -1 if self.spherical else -2
        return type(self)(
            np.take(self.location, order, axis=-2),
            np.take(self.mean_precision, order, axis=-2),
            np.take(self.noise.shape, order, axis=axis),
            np.take(self.noise.rate, order, axis=axis),
            self.names,
        )


class DiagonalNormalGamma(MeansAndGamma, ExponentialFamily):
    """``mu_kd | tau_kd ~ N(mean_kd, 1 / (mean_precision_kd tau_kd))``, tau ~ Gamma.

    The density is that of Bishop 2006, 2.154, for every coordinate d of every component
    k (all are independent):

        N(mu_kd | mean_kd, (mean_precision_kd tau_kd)^-1) Gamma(tau_kd | shape, rate)

    In the *spherical* form one tau_k serves all coordinates of its component:

        Gamma(tau_k | shape_k, rate_k)
            prod_d N(mu_kd | mean_kd, (mean_precision_kd tau_k)^-1)

    Parameters
    ----------
    mean : array of shape (K, D)
        Kept as ``location``; ``mean`` is that of both variables, by name.
    mean_precision : float or array of shape (K,) or (K, D)
    shape : float or array of shape (K,), or (K, D) in the diagonal form
    rate : array of shape (K, D), or of shape (K,): the spherical form
    names : (str, str), default=("means", "precisions")
        What mu and tau are called in draws.
    """

    @property
    def _inverse(self):
        return self.noise.mean_inverse

    @property
    def _unit_law(self):
        return 2.0 * self.noise.shape, self.noise.rate / self.noise.shape

    def _precision(self, tau):
        return tau

    @property
    def _mean_log(self):
        return self._expected["log"]

    def natural(self):
        n_means = self.location.shape[-1] if self.spherical else 1
        linear = self.mean_precision * self.location
        return {
            "value": -self.noise.rate - 0.5 * self._gathered(linear * self.location),
            "log": self.noise.shape + 0.5 * n_means,
            "linear": linear,
            "quadratic": -0.5 * self.mean_precision,
        }

    @staticmethod
    def log_normalizer(natural):
        mean_precision = -2.0 * natural["quadratic"]
        square = natural["linear"] ** 2 / mean_precision
        n_means = 1
        if natural["log"].ndim < square.ndim:
            square, n_means = square.sum(axis=-1), square.shape[-1]
        rate = -natural["value"] - 0.5 * square
        shape = natural["log"] - 0.5 * n_means
        normal = 0.5 * (LOG_2PI - np.log(mean_precision))
        return normal.sum() + (special.gammaln(shape) - shape * np.log(rate)).sum()

    def statistics(self, z):
        mu, tau = (np.asarray(z[name], dtype=np.float64) for name in self.names)
        linear = self._spread(tau) * mu
        return {
            **self.noise.statistics(tau),
            "linear": linear,
            "quadratic": linear * mu,
        }

    def absorb(self, count, total, square, origin=0.0, rows=None):
        """The conjugate update by weighted rows x of every component.

        Parameters
        ----------
        count : array of shape (K,), or (K, D) where entries are missing
            Sums of the weights.
        total : array of shape (K, D)
            Weighted sums of x - origin.
        square : array of shape (K, D)
            Weighted sums of (x - origin)^2.
        origin : array of shape (K, D) or (D,), default=0
            Near a component's rows it saves the digits that squares of a distant one
            would cost.
        rows : array of the shapes of count, default=count
            Twice what the shape gains, where the weights have a factor that scales the
            precision of their row: log tau counts the rows without it.
        """
        count = self._coordinates(count)
        rows = count if rows is None else self._coordinates(rows)
        mean_precision = self.mean_precision + count
        start = self.location - origin
        moved = total - count * start  # the sums of x - location
        end = start + moved / mean_precision
        # Never negative but by rounding.
        rise = np.maximum(square - moved * end - start * total, 0.0)
        return DiagonalNormalGamma(
            origin + end,
            mean_precision,
            self.noise.shape + 0.5 * self._gathered(rows),
            self.noise.rate + 0.5 * self._gathered(rise),
            self.names,
        )

    def expected_log_density(self, other):
        """``E_other[log self]`` for another distribution of the same variables."""
        e = other.expect()
        along = self._spread(e["value"]) * self.location - 2.0 * e["linear"]
        square = e["quadratic"] + self.location * along  # E[tau (mu - location)^2]
        normal = np.log(self.mean_precision) - LOG_2PI + self._spread(e["log"])
        normal = normal - self.mean_precision * square
        return float(0.5 * np.sum(normal)) + self.noise.expected_log_density(other)

    def factorised(self):
        """The closest ``q(mu) q(tau)``, by KL(q || self).

        E[tau] is the same: the means that a tau serves add a half each to its shape,
        and their spread adds 1 / (2 E[tau]) each to its rate.
        """
        # The rate r solves r = rate + n_means r / (2 shape).
        n_means = self.location.shape[-1] if self.spherical else 1
        shape = self.noise.shape + 0.5 * n_means
        rate = shape / self.noise.shape * self.noise.rate
        return FactorisedDiagonalNormalGamma(
            self.location, self.mean_precision, shape, rate, self.names
        )


class FactorisedDiagonalNormalGamma(MeansAndGamma):
    """``mu_kd ~ N(mean_kd, 1 / (mean_precision_kd E[tau_kd]))``, and ``tau ~ Gamma``.

    All are independent, also the mu_kd of tau_kd. In the *spherical* form one tau_k
    serves all coordinates of its component. ``predictive`` is an approximation: given
    its mean a new row is a Student-t and the mean is Gaussian; the Student-t that is
    returned adds their two spreads, and is exact as ``mean_precision`` grows.

    Parameters
    ----------
    mean : array of shape (K, D)
        Kept as ``location``; ``mean`` is that of both variables, by name.
    mean_precision : float or array of shape (K,) or (K, D)
    shape : float or array of shape (K,), or (K, D) in the diagonal form
    rate : array of shape (K, D), or of shape (K,): the spherical form
    names : (str, str), default=("means", "precisions")
        What mu and tau are called in draws.
    """

    @property
    def _inverse(self):
        return 1.0 / self.noise.mean

    @property
    def _unit_law(self):
        return np.full(self.noise.shape.shape, np.inf), 1.0 / self.noise.mean

    def _precision(self, tau):
        return self.noise.mean

    @property
    def _mean_log(self):
        return np.log(self.noise.mean)
