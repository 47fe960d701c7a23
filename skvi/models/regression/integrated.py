r"""The exact posterior of ridge regression: lambda integrated by quadrature.

With one lambda and the eigenbasis Z'Z = V diag(d) V', c = V'Z'y, everything given
lambda is closed form (Normal-Gamma), and costs O(rank) a value of lambda:

.. math::

    w \mid \lambda, \tau &\sim N\big(V \tfrac{c}{d + \lambda},\;
        \tfrac1\tau (V \mathrm{diag}(d) V^T + \lambda I)^{-1}\big) \\
    \tau \mid \lambda &\sim \mathrm{Gamma}(a_0 + N/2,\; \beta(\lambda)), \quad
        \beta(\lambda) = b_0 + \tfrac12\Big(R_0 + \sum_k \frac{c_k^2}{d_k}
        \frac{\lambda}{d_k + \lambda}\Big) \\
    \log p(y \mid \lambda) &= -\tfrac N2 \log 2\pi
        + \tfrac12 \log\tfrac{\kappa_0}{N + \kappa_0}
        + \tfrac12 \sum_k \log\tfrac{\lambda}{d_k + \lambda}
        + \log\frac{b_0^{a_0}\,\Gamma(a_0 + N/2)}{\Gamma(a_0)\,\beta^{a_0 + N/2}}

R_0 = y'y - sum c^2/d is the least-squares residual. In u = log lambda,
q(u) = p(y | u) p(u) / Z is the exact posterior, Z is the evidence, and so

.. math:: q = q(u)\, q(\tau \mid u)\, q(w, b \mid \tau, u), \qquad elbo = \log p(y) .

Weights, predictions and noise are finite mixtures over the nodes of u.
"""

import numpy as np
from scipy import stats

from skvi.distributions import LocationScaleMixture
from skvi.distributions.base import Distribution
from skvi.distributions.gaussian import LOG_2PI
from skvi.inference.quadrature import integrate
from skvi.linalg import SpectralCovariance
from skvi.models.regression.model import is_known
from skvi.models.regression.ridge_problem import RidgeProblem


class IntegratedPosterior(Distribution):
    """q(lambda) q(w, b, tau given lambda), exact, as a mixture over nodes of lambda."""

    names = ("coef", "noise_precision", "weight_precision")

    def __init__(self, problem, density):
        self.problem = problem
        self.density = density
        self.log_lambda, self.weights = density.thinned()
        self.given = problem.given(self.log_lambda)
        if problem.level_total is not None:
            self.names = (*self.names, "level")

    @classmethod
    def start(cls, model, values):
        problem = RidgeProblem.from_values(model, values)
        density = integrate(problem.log_density, *problem.support())
        return cls(problem, density)

    def restart(self, model, values):
        """Exact in one go: another fit's posterior has nothing to say."""
        return self.start(model, values)

    def step(self, model, values):
        """Nothing to improve: the posterior is exact."""
        return self

    def coordinates(self):
        return None

    @property
    def fixed(self):
        known = is_known(self.problem.noise_prior)
        return frozenset({"noise_precision"} if known else ())

    @property
    def mean(self):
        e = self.expect()
        out = {"coef": self.coef_mean, "noise_precision": e["tau"]}
        if self.problem.level_total is not None:
            out["level"] = np.zeros(1)
        return {**out, "weight_precision": e["lambda"]}

    def distance(self, other):
        if other is self:
            return 0.0
        spread = np.sqrt(self.coef_law(None, None).variances())
        moves = np.abs(self.coef_mean - other.coef_mean) / spread
        own, its = self.expect(), other.expect()
        log_spread = np.sqrt(self.weights @ (self.log_lambda - own["log_lambda"]) ** 2)
        hyper = abs(own["log_lambda"] - its["log_lambda"]) / log_spread
        noise = abs(own["log_tau"] - its["log_tau"]) * np.sqrt(
            0.5 * self.problem.weight
        )
        return float(max(np.max(moves, initial=0.0), hyper, noise))

    # -- expectations ----------------------------------------------------------------

    def expect(self):
        w, g, problem = self.weights, self.given, self.problem
        lam = np.exp(self.log_lambda)
        tau = g.noise.expect()
        second = tau["value"] * g.mean**2 + g.variance  # (r, G): E[tau (V'w)^2]
        null = problem.spectrum.n_null
        return {
            "tau": w @ np.broadcast_to(tau["value"], w.shape),
            "log_tau": w @ np.broadcast_to(tau["log"], w.shape),
            "tau_coef": problem.spectrum.lift(g.mean @ (w * tau["value"])),
            "tau_coef_outer": _SpectralSecondMoment(problem.spectrum, second @ w),
            "tau_level_square": self._level_variance,
            "lambda": w @ lam,
            "log_lambda": w @ self.log_lambda,
            "penalty": float(w @ (lam * second.sum(axis=0))) + null,
        }

    def entropy(self):
        w, g, p = self.weights, self.given, self.problem.spectrum.dim
        log_tau = g.noise.expect()["log"]
        level = self.problem.level_total
        dims = p + (level is not None)
        logdet = self.problem.logdet(self.log_lambda)
        if level is not None:
            logdet = logdet + np.log(level)
        given = 0.5 * (dims * (1.0 + LOG_2PI - log_tau) - logdet)
        given = given + g.noise.entropies()
        # q(lambda) = q(u) / lambda
        return self.density.entropy() + float(w @ (self.log_lambda + given))

    def sample(self, n, rng):
        problem, spectrum = self.problem, self.problem.spectrum
        u = self.density.sample(n, rng)
        g = problem.given(u)
        tau = np.broadcast_to(g.noise.sample(1, rng)[0], (n,)).copy()
        noise = rng.standard_normal((n, spectrum.dim)) / np.sqrt(tau)[:, None]
        along = spectrum.project(noise)  # (n, r)
        rest = (noise - spectrum.lift(along.T).T) / np.exp(0.5 * u)[:, None]
        inside = g.mean + (along * np.sqrt(g.variance.T)).T
        out = {
            "coef": spectrum.lift(inside).T + rest,
            "noise_precision": tau,
            "weight_precision": np.exp(u),
        }
        if problem.level_total is not None:
            scale = np.sqrt(tau * problem.level_total)
            out["level"] = (rng.standard_normal(n) / scale)[:, None]
        return out

    def log_density(self, z):
        problem, spectrum = self.problem, self.problem.spectrum
        u = np.log(z["weight_precision"])
        tau, g = z["noise_precision"], problem.given(u)
        out = problem.log_density(u) - self.density.log_mass - u
        out = out + _log_density_each(g.noise, tau)
        along = spectrum.project(z["coef"]).T  # (r, n)
        rest = (z["coef"] ** 2).sum(axis=1) - (along**2).sum(axis=0)
        quadratic = ((along - g.mean) ** 2 / g.variance).sum(axis=0)
        quadratic = quadratic + np.exp(u) * np.maximum(rest, 0.0)
        p = spectrum.dim
        out = out + 0.5 * (p * (np.log(tau) - LOG_2PI) + problem.logdet(u))
        out = out - 0.5 * tau * quadratic
        if problem.level_total is not None:
            scale = 1.0 / np.sqrt(tau * problem.level_total)
            out = out + stats.norm.logpdf(np.ravel(z["level"]), scale=scale)
        return out

    # -- what a regression reports -----------------------------------------------------

    @property
    def coef_mean(self):
        return self.problem.spectrum.lift(self.given.mean @ self.weights)

    @property
    def _level_variance(self):
        """Variance of the level in units of 1 / tau."""
        total = self.problem.level_total
        return 0.0 if total is None else 1.0 / total

    @property
    def noise_variance(self):
        return float(self.weights @ self._noise_variances())

    def _noise_variances(self):
        return np.broadcast_to(self.given.noise.mean_inverse, self.weights.shape)

    def noise_sf(self, precision):
        """P(tau > precision)."""
        given = np.broadcast_to(self.given.noise.sf(precision), self.weights.shape)
        return float(self.weights @ given)

    def coef_law(self, model, values, linear_response=False):
        """The exact covariance of w: linear response has nothing to add."""
        variance = self.weights * self._noise_variances()
        centred = self.given.mean - (self.given.mean @ self.weights)[:, None]
        return SpectralCovariance(
            self.problem.spectrum,
            self.given.variance @ variance,
            centred * np.sqrt(self.weights),
            float(variance @ np.exp(-self.log_lambda)),
        )

    def covariance(self, name):
        if name == "coef":
            return self.coef_law(None, None).covariance()
        if name == "level":
            return np.array([[self.noise_variance / self.problem.level_total]])
        nodes = {
            "noise_precision": np.broadcast_to(
                self.given.noise.mean, self.weights.shape
            ),
            "weight_precision": np.exp(self.log_lambda),
        }[name]
        spread = self.weights @ (nodes - self.weights @ nodes) ** 2
        if name == "noise_precision":
            within = np.broadcast_to(self.given.noise.variance(), self.weights.shape)
            spread = spread + self.weights @ within
        return np.asarray(spread)

    def predictive(self, rows, law, level=True, noise=True):
        """A new y (or its parts): a mixture of Student-t over the nodes."""
        g, spectrum = self.given, self.problem.spectrum
        along = spectrum.project(rows)
        spread = along**2 @ g.variance
        unit = noise + np.square(level) * self._level_variance
        spread += np.reshape(unit, (-1, 1))
        if spectrum.n_null:
            rest = (rows**2).sum(axis=1) - (along**2).sum(axis=1)
            spread += np.maximum(rest, 0.0)[:, None] * np.exp(-self.log_lambda)
        known = is_known(g.noise)
        degrees = np.inf if known else 2.0 * g.noise.shape
        return LocationScaleMixture(
            self.weights,
            np.broadcast_to(degrees, self.weights.shape),
            along @ g.mean,
            np.sqrt(spread / np.broadcast_to(g.noise.mean, self.weights.shape)),
        )

    def predictive_covariance(self, rows, law):
        eye = np.eye(rows.shape[0])
        return law.inner(rows) + self.noise_variance * (eye + self._level_variance)


class _SpectralSecondMoment:
    """E[tau w w'] along the eigenbasis, where Z'Z is diagonal."""

    def __init__(self, spectrum, diagonal):
        self.spectrum = spectrum
        self._diagonal = diagonal

    def trace(self, gram):
        return float(self.spectrum.eigenvalues @ self._diagonal)


def _log_density_each(noise, tau):
    """Log density of one draw under each of an array of independent noises."""
    if is_known(noise):
        return np.zeros(len(tau))
    return stats.gamma.logpdf(tau, noise.shape, scale=1.0 / noise.rate)
