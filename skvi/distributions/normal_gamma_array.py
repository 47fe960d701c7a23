"""Diagonal Normal-Gamma: means and precisions of independent coordinates."""

import numpy as np
from scipy import special

from skvi.distributions.base import ExponentialFamily
from skvi.distributions.gamma import Gamma
from skvi.distributions.gaussian import LOG_2PI


class DiagonalNormalGamma(ExponentialFamily):
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

    def _coordinates(self, value):
        """A value for each component or each coordinate as one for each coordinate."""
        value = np.asarray(value, dtype=np.float64)
        if value.ndim == self.location.ndim - 1:
            value = value[..., None]
        return np.broadcast_to(value, self.location.shape)

    def _spread(self, value):
        """A value for each tau as one for each mu."""
        return value[..., None] if self.spherical else value

    def _gathered(self, value):
        """A value for each mu as one for each tau."""
        return value.sum(axis=-1) if self.spherical else value

    @property
    def mean(self):
        means, precisions = self.names
        return {means: self.location.copy(), precisions: self.noise.mean}

    def variance(self, name):
        """Marginal variances; of the means those of a Student-t."""
        means, precisions = self.names
        if name == precisions:
            return self.noise.variance()
        if name != means:
            raise KeyError(f"no variable {name!r}; the variables are {self.names}")
        return self._spread(self.noise.mean_inverse) / self.mean_precision

    def covariance(self, name):
        """Marginal covariance along the last axis: of the means (..., K, D, D)."""
        if name == self.names[1]:
            return self.noise.covariance()
        variance = self.variance(name)
        out = np.zeros((*variance.shape, variance.shape[-1]))
        index = np.arange(variance.shape[-1])
        out[..., index, index] = variance
        return out

    def expect(self):
        """E[tau], E[log tau], E[tau mu] and E[tau mu^2].

        They are called value, log, linear and quadratic.
        """
        e = self.noise.expect()
        linear = self._spread(e["value"]) * self.location
        quadratic = linear * self.location + 1.0 / self.mean_precision
        return {**e, "linear": linear, "quadratic": quadratic}

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

    def entropy(self):
        log_tau = self._spread(self.noise.mean_log)
        normal = 1.0 + LOG_2PI - np.log(self.mean_precision) - log_tau
        return float(0.5 * np.sum(normal) + self.noise.entropy())

    def absorb(self, count, total, square, origin=0.0):
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
        """
        count = self._coordinates(count)
        mean_precision = self.mean_precision + count
        start = self.location - origin
        moved = total - count * start  # the sums of x - location
        end = start + moved / mean_precision
        # Never negative but by rounding.
        rise = np.maximum(square - moved * end - start * total, 0.0)
        return DiagonalNormalGamma(
            origin + end,
            mean_precision,
            self.noise.shape + 0.5 * self._gathered(count),
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

    def sample(self, n, rng):
        means, precisions = self.names
        tau = self.noise.sample(n, rng)
        noise = rng.standard_normal((n, *self.location.shape))
        noise /= np.sqrt(self.mean_precision * self._spread(tau))
        return {means: self.location + noise, precisions: tau}

    def log_density(self, z):
        mu, tau = (np.asarray(z[name], dtype=np.float64) for name in self.names)
        precision = self.mean_precision * self._spread(tau)
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
        return DiagonalNormalGamma(
            shift + scale * self.location,
            self.mean_precision,
            self.noise.shape,
            self.noise.rate * np.square(scale),
            self.names,
        )
