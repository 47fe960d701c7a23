"""Ridge regression given lambda: every law in closed form, in the eigenbasis.

The formulas are those of ``integrated.py``'s docstring.
"""

import numpy as np
from scipy import stats

from skvi.distributions.gaussian import LOG_2PI
from skvi.inference.quadrature import NEGLIGIBLE


class RidgeProblem:
    """Everything given lambda, in the eigenbasis.

    ``given(u)`` returns the conditional laws at an array of u = log lambda.
    """

    def __init__(self, spectrum, moment, residual, weight, level, noise, prior):
        self.spectrum = spectrum
        self.moment = moment  # V'Z'y, (r,)
        self.residual = residual  # R_0
        self.weight = weight
        self.level_total = None if level is None else weight + level
        self.noise_prior = noise
        self.weight_prior = prior
        share = 0.0 if level is None else np.log(level / (weight + level))
        self.constant = 0.5 * (share - weight * LOG_2PI)

    @classmethod
    def from_values(cls, model, values):
        spectrum = values["gram"].spectrum()
        moment = spectrum.project(values["cross"][None, :])[0]
        explained = np.sum(moment**2 / spectrum.eigenvalues)
        residual = max(float(values["square"]) - explained, 0.0)
        return cls(
            spectrum,
            moment,
            residual,
            values["weight"],
            model.level_precision,
            model.noise_prior,
            model.weight_prior,
        )

    def _shrinkage(self, u):
        """lambda / (d + lambda), shape (r, G)."""
        return 1.0 / (1.0 + np.multiply.outer(self.spectrum.eigenvalues, np.exp(-u)))

    def _rate(self, shrinkage):
        power = self.moment**2 / self.spectrum.eigenvalues
        return 0.5 * (self.residual + power @ shrinkage)

    def log_density(self, u):
        """``log p(y | u) + log p(u)``, unnormalised in nothing."""
        shrinkage = self._shrinkage(u)
        out = self.constant + 0.5 * np.log(shrinkage).sum(axis=0)
        out = out + self.noise_prior.log_absorbed(
            0.5 * self.weight, self._rate(shrinkage)
        )
        lam = self.weight_prior
        log_prior = stats.loggamma.logpdf(u + np.log(lam.rate), lam.shape)
        return out + log_prior

    def logdet(self, u):
        """Log determinant of Z'Z + lambda I."""
        d = self.spectrum.eigenvalues[:, None]
        return np.log(d + np.exp(u)).sum(axis=0) + self.spectrum.n_null * u

    def given(self, u):
        shrinkage = self._shrinkage(u)
        d = self.spectrum.eigenvalues[:, None]
        inverse = 1.0 / (d + np.exp(u))
        noise = self.noise_prior.absorb(0.5 * self.weight, self._rate(shrinkage))
        return _Given(self.moment[:, None] * inverse, inverse, noise)

    def support(self):
        """(low, high, step) of u: the prior's whole support that the data can leave."""
        lam, d = self.weight_prior, self.spectrum.eigenvalues
        # p(y | u) exp(-r u / 2) does not rise with u, so the mass ends where that of a
        # Gamma with r / 2 more in its shape does.
        reach = stats.gamma.isf(1e-20, lam.shape + 0.5 * len(d), scale=1.0 / lam.rate)
        high = float(np.log(reach))
        slope = float(lam.shape) + 0.5 * len(d)
        if slope < 0.05:
            raise ValueError(
                "The data say nothing about the weights (one row, or constant columns) "
                f"and weight_precision_prior=({float(lam.shape)}, {float(lam.rate)}) "
                "is too vague to stand alone. Use the default prior, or fix "
                "weight_precision."
            )
        # Below the floor log p(y | u) p(u) is a line of that slope: lambda is smaller
        # than every d, its prior rate does not reach, and the likelihood's own fall in
        # lambda, of E[tau] sum(c^2 / d^2) / 2 nats a unit, has not begun.
        floor = -np.log(float(lam.rate))
        if len(d):
            floor = min(floor, np.log(d[0]))
            tau = self.noise_prior.absorb(0.5 * self.weight, 0.5 * self.residual).mean
            fall = 0.5 * float(tau) * np.sum(self.moment**2 / d**2)
            if fall > 0.0:
                floor = min(floor, -np.log(fall))
        low = floor - 5.0 - NEGLIGIBLE / slope
        count = 0.125 * len(d) + 0.25 * (0.5 * self.weight + 1.0)
        return low, high, float(np.clip(2.0 / np.sqrt(count), 0.02, 0.25))


class _Given:
    """Laws given lambda at G nodes: means and variances along V, noise."""

    def __init__(self, mean, variance, noise):
        self.mean = mean
        self.variance = variance
        self.noise = noise
