"""Stick-breaking: probabilities that independent betas break off a stick."""

import numpy as np
from scipy import special

from skvi.distributions.base import ExponentialFamily
from skvi.distributions.wishart import log_gamma_excess


def before(values):
    """Sums over all that stand before each of the K, from K - 1 values."""
    zero = np.zeros((*values.shape[:-1], 1))
    return np.concatenate([zero, values.cumsum(axis=-1)], axis=-1)


def remainders(weights):
    """``R_k = sum of weights from k on``: small ones keep their digits."""
    return weights[..., ::-1].cumsum(axis=-1)[..., ::-1]


def exp_times_expm1(log_scale, x):
    """``exp(log_scale) expm1(x)`` where the factors alone might overflow."""
    size = np.exp(log_scale + np.maximum(x, 0.0)) * -np.expm1(-np.abs(x))
    return np.copysign(size, x)


def log_weights(log_stick, log_rest):
    """``log pi``, or its expectation, from those of v and 1 - v."""
    zero = np.zeros((*log_stick.shape[:-1], 1))
    return np.concatenate([log_stick, zero], axis=-1) + before(log_rest)


class StickBreaking(ExponentialFamily):
    """Probabilities ``pi_k = v_k prod_{j<k} (1 - v_j)``, v_k ~ Beta(a_k, b_k), v_K = 1.

    The variable is the vector pi of K weights, as a Dirichlet's is, not the sticks v:
    one factor may stand for the other in a model. Its density, over the first K - 1
    weights, includes the Jacobian. With R_k = sum_{j>=k} pi_j (so R_1 = 1, v_k =
    pi_k / R_k and dv/dpi = prod_{k<K} 1 / R_k) it is

        prod_{k<K} Beta(pi_k / R_k | a_k, b_k) / R_k
            = prod_{k<K} v_k^a_k (1 - v_k)^b_k / B(a_k, b_k)  prod_{k<=K} 1 / pi_k

    where Beta(v | a, b) = v^(a-1) (1-v)^(b-1) / B(a, b) (Bishop 2006, B.6). It is a
    Dirichlet where b_k = a_{k+1} + b_{k+1} for k < K - 1 (Connor & Mosimann 1969). The
    truncated Dirichlet process of concentration c has a = 1 and b = c.

    Parameters
    ----------
    a, b : arrays of shape (..., K - 1)
        Broadcast against each other; one distribution over the last axis for every
        index of the leading ones. Without sticks, K = 1, the one weight is 1.

    Notes
    -----
    Weights below the smallest float are zero in draws, and such draws have no density.
    """

    def __init__(self, a, b):
        a, b = np.broadcast_arrays(
            np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
        )
        self.a, self.b = a.copy(), b.copy()

    @property
    def n_components(self):
        return self.a.shape[-1] + 1

    @property
    def _log_mean(self):
        log_total = np.log(self.a + self.b)
        return log_weights(np.log(self.a) - log_total, np.log(self.b) - log_total)

    @property
    def mean(self):
        return np.exp(self._log_mean)

    @property
    def mean_log(self):
        """``E[log pi]``, shape (..., K)."""
        e = self.expect()
        return log_weights(e["log_stick"], e["log_rest"])

    expected_log_weights = mean_log

    def _log_inflation(self):
        """Logs of E[R_k^2] / E[R_k]^2, shape (..., K), without cancellation."""
        return before(np.log1p(self.a / (self.b * (self.a + self.b + 1.0))))

    def variance(self):
        """Variances of the weights."""
        stick = np.log1p(self.b / (self.a * (self.a + self.b + 1.0)))
        inflation = self._log_inflation()
        inflation[..., :-1] += stick
        return exp_times_expm1(2.0 * self._log_mean, inflation)

    def covariance(self):
        """Covariance of the weights, shape (..., K, K), of rank K - 1."""
        log_mean, inflation = self._log_mean, self._log_inflation()
        # Of v_k (1 - v_k), which both of a pair share at the earlier stick.
        inflation[..., :-1] -= np.log1p(1.0 / (self.a + self.b))
        index = np.arange(self.n_components)
        earlier = np.minimum.outer(index, index)
        outer = log_mean[..., :, None] + log_mean[..., None, :]
        out = exp_times_expm1(outer, inflation[..., earlier])
        out[..., index, index] = self.variance()
        return out

    def expect(self):
        """E[log v] and E[log(1 - v)], called log_stick and log_rest."""
        total = special.digamma(self.a + self.b)
        return {
            "log_stick": special.digamma(self.a) - total,
            "log_rest": special.digamma(self.b) - total,
        }

    def natural(self):
        return {"log_stick": self.a, "log_rest": self.b}

    @staticmethod
    def log_normalizer(natural):
        return special.betaln(natural["log_stick"], natural["log_rest"]).sum()

    @staticmethod
    def statistics(z):
        log_remainder = np.log(remainders(z))
        return {
            "log_stick": np.log(z[..., :-1]) - log_remainder[..., :-1],
            "log_rest": np.diff(log_remainder, axis=-1),
        }

    def entropy(self):
        a, b = self.a, self.b
        total = a + b
        # Of the sticks: log B - a E[log v] - b E[log(1 - v)] + E[log v (1 - v)], whose
        # huge terms are cancelled on paper; then E[log pi] of the Jacobian.
        kernel = log_gamma_excess(a) + log_gamma_excess(b) - log_gamma_excess(total)
        return float(kernel.sum() + self.mean_log.sum())

    def absorb(self, counts):
        """The conjugate update by expected counts of the weights, shape (..., K)."""
        counts = np.asarray(counts, dtype=np.float64)
        later = remainders(counts)[..., 1:]
        return StickBreaking(self.a + counts[..., :-1], self.b + later)

    def expected_log_density(self, other):
        """``E_other[log self]`` for another distribution of the same variable."""
        e = other.expect()
        terms = self.a * e["log_stick"] + self.b * e["log_rest"]
        terms = terms - special.betaln(self.a, self.b)
        return float(terms.sum() - log_weights(e["log_stick"], e["log_rest"]).sum())

    def sample(self, n, rng):
        # In logs, because gammas of a small shape underflow: G(a) = G(a + 1) U^(1/a).
        shape = np.stack([self.a, self.b])
        log = np.log(rng.standard_gamma(shape + 1.0, size=(n, *shape.shape)))
        log -= rng.standard_exponential(log.shape) / shape
        log -= np.logaddexp(log[:, :1], log[:, 1:])
        return np.exp(log_weights(log[:, 0], log[:, 1]))

    def log_density(self, z):
        z = np.asarray(z, dtype=np.float64)
        log_remainder = np.log(remainders(z))
        first, later = log_remainder[..., :-1], log_remainder[..., 1:]
        terms = special.xlogy(self.a - 1.0, z[..., :-1])
        terms += self.b * (later - first) - self.a * first
        terms -= special.betaln(self.a, self.b)
        total = terms.sum(axis=-1) - np.log(z[..., -1])
        return total.reshape(z.shape[0], -1).sum(axis=1)

    def coordinates(self):
        """Unconstrained numbers that determine the distribution."""
        return np.log(np.concatenate([self.a.ravel(), self.b.ravel()]))

    def at(self, coordinates):
        """The distribution of other coordinates."""
        a, b = np.split(np.exp(coordinates), 2)
        return StickBreaking(a.reshape(self.a.shape), b.reshape(self.b.shape))

    def distance(self, other):
        # The log odds of a stick are to a beta what the log is to a gamma.
        mine, theirs = self.expect(), other.expect()
        moves = mine["log_stick"] - theirs["log_stick"]
        moves = moves - (mine["log_rest"] - theirs["log_rest"])
        spread = np.sqrt(special.polygamma(1, self.a) + special.polygamma(1, self.b))
        return float(np.max(np.abs(moves) / spread, initial=0.0))
