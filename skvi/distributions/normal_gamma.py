"""Normal-Gamma: Gaussian blocks that share one unknown noise precision."""

import numpy as np
from scipy import special

from skvi.distributions.base import ExponentialFamily, PointMass
from skvi.distributions.gaussian import LOG_2PI, Gaussian, as_rows
from skvi.linalg import as_matrix


class NormalGamma(ExponentialFamily):
    """``x_k | tau ~ N(m_k, (tau P_k)^-1)`` for blocks k, ``tau ~ noise``.

    Parameters
    ----------
    blocks : dict of str to (mean, precision)
        Blocks that are independent given tau, each with a structured precision.
    noise : Gamma or PointMass
        The distribution of tau; a PointMass makes the blocks Gaussian.
    noise_name : str, default="noise_precision"
        What tau is called in draws.
    """

    def __init__(self, blocks, noise, noise_name="noise_precision"):
        self.blocks = {
            name: (np.asarray(mean, dtype=np.float64), precision)
            for name, (mean, precision) in blocks.items()
        }
        self.noise = noise
        self.noise_name = noise_name
        self.names = (*self.blocks, noise_name)

    @property
    def fixed(self):
        known = isinstance(self.noise, PointMass)
        return frozenset({self.noise_name} if known else ())

    @property
    def mean(self):
        out = {name: mean for name, (mean, _) in self.blocks.items()}
        return {**out, self.noise_name: self.noise.mean}

    def variance(self, name):
        """Marginal variances: those of a Student-t with 2 shape degrees of freedom."""
        if name == self.noise_name:
            return self.noise.variance()
        return self.noise.mean_inverse * self.blocks[name][1].variances()

    def covariance(self, name):
        if name == self.noise_name:
            return self.noise.covariance()
        return self.blocks[name][1].covariance() * self.noise.mean_inverse

    def expect(self):
        """E[tau], E[log tau], and per block E[tau x], E[tau x x']."""
        e = self.noise.expect()
        out = {"value": e["value"], "log": e["log"]}
        for name, (mean, precision) in self.blocks.items():
            out[name] = e["value"] * mean
            outer = e["value"] * np.outer(mean, mean)
            out[f"{name}_outer"] = outer + as_matrix(precision.covariance())
        return out

    def natural(self):
        dim = sum(mean.shape[0] for mean, _ in self.blocks.values())
        rate = self.noise.rate
        out = {"log": self.noise.shape + 0.5 * dim}
        for name, (mean, precision) in self.blocks.items():
            eta = Gaussian(mean, precision).natural()
            out[name] = eta["value"]
            out[f"{name}_outer"] = eta["outer"]
            rate = rate + 0.5 * mean @ eta["value"]
        out["value"] = -rate
        return out

    @staticmethod
    def log_normalizer(natural):
        blocks = [k[: -len("_outer")] for k in natural if k.endswith("_outer")]
        rate, shape, total = -natural["value"], natural["log"], 0.0
        for name in blocks:
            P = -2.0 * natural[f"{name}_outer"]
            P = 0.5 * (P + P.T)
            h = natural[name]
            _, logdet = np.linalg.slogdet(P)
            rate = rate - 0.5 * h @ np.linalg.solve(P, h)
            shape = shape - 0.5 * len(h)
            total += 0.5 * (len(h) * LOG_2PI - logdet)
        return total + special.gammaln(shape) - shape * np.log(rate)

    def statistics(self, z):
        tau = z[self.noise_name]
        out = {"value": tau, "log": np.log(tau)}
        for name in self.blocks:
            x = z[name]
            out[name] = tau[:, None] * x
            out[f"{name}_outer"] = tau[:, None, None] * x[:, :, None] * x[:, None, :]
        return out

    def entropy(self):
        log_tau = float(self.noise.expect()["log"])
        out = self.noise.entropy()
        for mean, precision in self.blocks.values():
            dim = mean.shape[0]
            out += 0.5 * (dim * (1.0 + LOG_2PI - log_tau) - precision.logdet())
        return out

    def sample(self, n, rng):
        tau = self.noise.sample(n, rng)
        out = {
            name: mean + precision.sample(n, rng) / np.sqrt(tau)[:, None]
            for name, (mean, precision) in self.blocks.items()
        }
        return {**out, self.noise_name: tau}

    def log_density(self, z):
        tau = np.asarray(z[self.noise_name])
        out = self.noise.log_density(tau)
        for name, (mean, precision) in self.blocks.items():
            dim = mean.shape[0]
            quadratic = precision.quadratic(as_rows(z[name]) - mean)
            out = out + 0.5 * (
                dim * (np.log(tau) - LOG_2PI) + precision.logdet() - tau * quadratic
            )
        return out

    def distance(self, other):
        moves = [self.noise.distance(other.noise)]
        # A Student-t with few degrees of freedom has no variance: its scale serves.
        scale = 1.0 / self.noise.mean
        for name, (mean, precision) in self.blocks.items():
            spread = np.sqrt(scale * precision.variances())
            move = np.abs(mean - other.blocks[name][0]) / spread
            moves.append(np.max(move, initial=0.0))
        return float(max(moves))
