"""Coefficients of linear regressions side by side, each with its own noise."""

from functools import cached_property

import numpy as np
from scipy import special

from skvi.distributions.base import ExponentialFamily, PointMass
from skvi.distributions.gaussian import LOG_2PI


class Regressions(ExponentialFamily):
    """``theta_r | tau_r ~ N(m_r, (tau_r P_r)^-1)``, ``tau_r ~ noise``, for rows r.

    Parameters
    ----------
    mean : array of shape (R, p)
    precision : array of shape (R, p, p), or (1, p, p) if all rows share it
        P_r.
    noise : Gamma or PointMass of shape (R,)
        The distribution of the noise precisions tau; known ones are no variable.
    names : (coefficients, intercept or None, noise precision)
        What they are called in draws. With an intercept it is the last of theta_r.
    """

    def __init__(self, mean, precision, noise, names=("coef", None, "noise_precision")):
        self.location = np.asarray(mean, dtype=np.float64)
        self.precision = np.asarray(precision, dtype=np.float64)
        self.noise = noise
        self.all_names = tuple(names)
        known = isinstance(noise, PointMass)
        coef, intercept, tau = names
        used = [coef, intercept, None if known else tau]
        self.names = tuple(name for name in used if name is not None)

    def __getstate__(self):
        cached = "covariance_given_noise", "_log_det"
        return {k: v for k, v in self.__dict__.items() if k not in cached}

    @property
    def dim(self):
        return self.location.shape[1]

    @property
    def n_rows(self):
        return self.location.shape[0]

    @cached_property
    def covariance_given_noise(self):
        """P^-1, (R, p, p) or (1, p, p)."""
        inverse = np.linalg.inv(self.precision)
        return 0.5 * (inverse + np.swapaxes(inverse, 1, 2))

    @cached_property
    def _log_det(self):
        return np.broadcast_to(np.linalg.slogdet(self.precision)[1], (self.n_rows,))

    def full_covariance(self):
        """Covariances of theta_r, (R, p, p)."""
        scale = np.broadcast_to(self.noise.mean_inverse, (self.n_rows,))
        return scale[:, None, None] * self.covariance_given_noise

    def _split(self, theta):
        """By name, from arrays whose last axis is theta's."""
        coef, intercept, _ = self.all_names
        if intercept is None:
            return {coef: theta}
        return {coef: theta[..., :-1], intercept: theta[..., -1]}

    def _joined(self, z):
        """theta of draws by name, (n, R, p)."""
        coef, intercept, _ = self.all_names
        theta = np.asarray(z[coef], dtype=np.float64)
        theta = theta.reshape(len(theta), self.n_rows, -1)
        if intercept is None:
            return theta
        last = np.asarray(z[intercept], dtype=np.float64)
        return np.concatenate([theta, last.reshape(len(last), -1, 1)], axis=2)

    def _tau(self, z):
        if isinstance(self.noise, PointMass):
            return np.broadcast_to(self.noise.value, (self.n_rows,))
        return np.asarray(z[self.all_names[2]], dtype=np.float64)

    @property
    def mean(self):
        out = self._split(self.location)
        if self.all_names[2] in self.names:
            out[self.all_names[2]] = self.noise.mean
        return out

    def variance(self, name):
        """Marginal variances: those of Student-t laws where the noise is not known."""
        if name == self.all_names[2]:
            return self.noise.variance()
        each = np.diagonal(self.full_covariance(), axis1=1, axis2=2)
        return self._split(each)[name]

    def covariance(self, name):
        """Of the coefficients of each row, (R, k, k); of the others along the rows."""
        _, intercept, tau = self.all_names
        if name == tau:
            return self.noise.covariance()
        if name == intercept:
            return np.diag(self.variance(name))
        k = self.dim - (intercept is not None)
        return self.full_covariance()[:, :k, :k]

    @cached_property
    def _expected(self):
        e = self.noise.expect()
        value, log = (np.broadcast_to(e[k], (self.n_rows,)) for k in ("value", "log"))
        linear = value[:, None] * self.location
        outer = linear[:, :, None] * self.location[:, None, :]
        quadratic = outer + self.covariance_given_noise
        return {"value": value, "log": log, "linear": linear, "quadratic": quadratic}

    def expect(self):
        """E[tau], E[log tau], E[tau theta] and E[tau theta theta'].

        They are called value, log, linear and quadratic.
        """
        return dict(self._expected)

    def natural(self):
        precision = np.broadcast_to(self.precision, (self.n_rows, self.dim, self.dim))
        linear = np.einsum("rij,rj->ri", precision, self.location)
        rate = self.noise.rate + 0.5 * np.sum(linear * self.location, axis=1)
        log = self.noise.shape + 0.5 * self.dim
        return {
            "value": -rate,
            "log": log,
            "linear": linear,
            "quadratic": -0.5 * precision,
        }

    @staticmethod
    def log_normalizer(natural):
        P = -2.0 * natural["quadratic"]
        P, h = 0.5 * (P + np.swapaxes(P, 1, 2)), natural["linear"]
        m = np.linalg.solve(P, h[..., None])[..., 0]
        dim = h.shape[1]
        rate = -natural["value"] - 0.5 * np.sum(h * m, axis=1)
        shape = natural["log"] - 0.5 * dim
        normal = 0.5 * (dim * LOG_2PI - np.linalg.slogdet(P)[1])
        return np.sum(normal + special.gammaln(shape) - shape * np.log(rate))

    def statistics(self, z):
        tau, theta = self._tau(z), self._joined(z)
        return {
            "value": tau,
            "log": np.log(tau),
            "linear": tau[..., None] * theta,
            "quadratic": tau[..., None, None]
            * theta[..., :, None]
            * theta[..., None, :],
        }

    def entropy(self):
        log_tau = self.noise.expect()["log"]
        normal = self.dim * (1.0 + LOG_2PI - log_tau) - self._log_det
        return float(0.5 * np.sum(normal) + self.noise.entropy())

    def expected_log_density_of_rows(self, prior_mean, prior_precision):
        """``E[log N(theta; m0, (tau diag(P0))^-1)]`` but for E[log P0]'s half.

        The prior precision (p,) is an expectation itself.
        """
        e = self._expected
        square = np.einsum("rii->ri", e["quadratic"])
        square = square - 2.0 * prior_mean * e["linear"]
        square = square + prior_mean**2 * e["value"][:, None]
        normal = self.dim * (np.sum(e["log"]) - self.n_rows * LOG_2PI)
        return 0.5 * (normal - np.sum(square * prior_precision))

    def sample(self, n, rng):
        tau = self.noise.sample(n, rng)
        noise = rng.standard_normal((n, self.n_rows, self.dim, 1))
        roots = np.linalg.cholesky(self.precision)
        theta = np.linalg.solve(np.swapaxes(roots, 1, 2), noise)[..., 0]
        theta = self.location + theta / np.sqrt(tau)[..., None]
        out = self._split(theta)
        if self.all_names[2] in self.names:
            out[self.all_names[2]] = tau
        return out

    def log_density(self, z):
        tau, centred = self._tau(z), self._joined(z) - self.location
        precision = np.broadcast_to(self.precision, (self.n_rows, self.dim, self.dim))
        square = np.einsum("nri,rij,nrj->nr", centred, precision, centred)
        normal = self.dim * (np.log(tau) - LOG_2PI) + self._log_det - tau * square
        out = 0.5 * np.sum(normal, axis=1)
        if isinstance(self.noise, PointMass):
            return out
        return out + self.noise.log_density(tau)

    def distance(self, other):
        # A Student-t with few degrees of freedom has no variance: its scale serves.
        scale = 1.0 / np.broadcast_to(self.noise.mean, (self.n_rows,))
        each = np.diagonal(self.covariance_given_noise, axis1=1, axis2=2)
        moves = np.abs(self.location - other.location)
        moves = moves / np.sqrt(scale[:, None] * each)
        return max(self.noise.distance(other.noise), float(np.max(moves, initial=0.0)))

    def rescaled(self, scale, shift=0.0):
        """The law of the coefficients of ``shift + scale * y``, (R,) each."""
        scale = np.broadcast_to(scale, (self.n_rows,))
        location = scale[:, None] * self.location
        if self.all_names[1] is not None:
            location[:, -1] += shift
        noise = self.noise
        if not isinstance(noise, PointMass):
            noise = type(noise)(noise.shape, noise.rate * scale**2)
        else:
            noise = PointMass(noise.value / scale**2)
        return Regressions(location, self.precision, noise, self.all_names)

    def turned(self, R):
        """The law of ``R theta_r`` for an orthogonal R, the same for all rows."""
        precision = R @ self.precision @ R.T
        return Regressions(self.location @ R.T, precision, self.noise, self.all_names)

    def coordinates(self):
        """Numbers in which the engine may extrapolate: locations and noise.

        Locations in units of the noise, so that those of the data do not matter.
        """
        noise = [] if isinstance(self.noise, PointMass) else self.noise.coordinates()
        scaled = self.location * self._unit(self.noise)
        return np.concatenate([scaled.ravel(), noise])

    def _unit(self, noise):
        mean = np.broadcast_to(noise.mean, (self.n_rows,))
        return np.sqrt(mean)[:, None]

    def at(self, coordinates):
        """The distribution with other coordinates, its precisions as they are."""
        location, rest = np.split(coordinates, [self.location.size])
        noise = self.noise if isinstance(self.noise, PointMass) else self.noise.at(rest)
        location = location.reshape(self.location.shape) / self._unit(noise)
        return Regressions(location, self.precision, noise, self.all_names)
