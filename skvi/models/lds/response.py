r"""Linear response: how sure the variances of a structural series really are.

q(x) and the precisions' laws are independent, so that each precision looks as if the
states were known: its log has the variance psi'(a) of a Gamma law of shape a. Let the
log joint be tilted by ``t log lambda_i``; how the posterior means move with t are the
covariances under the exact tilted law, and estimates of them under q (Giordano,
Broderick & Jordan 2018). Each law is Gamma(a_i + t_i, b_i(u)), where u = log E lambda
sets the chain that makes the rates; with J = d log b / d u at the fixed point

.. math::

    du = (I + J)^{-1} \mathrm{diag}(1 / a)\, dt, \qquad
    \mathrm{cov}(\log\lambda) = \mathrm{diag}(\psi'(a))
        - J (I + J)^{-1} \mathrm{diag}(1 / a).

For priors that weaken this is the inverse of the observed information of the variances,
the states integrated out.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from skvi.distributions import Gamma, Product
from skvi.inference.drivers import Batch
from skvi.models.lds.model import PARTS, LDSPosterior

STEP = 1e-4  # of log precisions, for central differences


@dataclass(frozen=True)
class Response:
    """Corrected covariance of the logs of unknown precisions, in the order of q.

    Attributes
    ----------
    covariance : array of shape (n, n)
    mean : array of shape (n,)
        ``E_q[log precision]``.
    """

    covariance: np.ndarray
    mean: np.ndarray


def gammas(q):
    """The shapes and rates of all factors, which are Gamma."""
    laws = list(q.factors.values())
    shape = np.concatenate([law.shape for law in laws])
    return shape, np.concatenate([law.rate for law in laws])


def with_log_means(q, change):
    """q with the logs of its means moved."""
    taken, parts = 0, []
    for name in PARTS:
        factors = {}
        for key, law in q.parts[name].factors.items():
            size = law.shape.size
            move = change[taken : taken + size].reshape(law.shape.shape)
            factors[key] = Gamma(law.shape, law.rate * np.exp(-move))
            taken += size
        parts.append(Product(factors))
    return LDSPosterior(*parts)


def response(model, blocks, q, n_jobs=None):
    """The Response of a fit."""
    driver = Batch(model, blocks, n_jobs, shared_memory=True)
    shape, rate = gammas(q)
    n = len(shape)

    def log_rates(change):
        moved = with_log_means(q, change)
        after = model.global_step(driver.evaluate(moved).values, moved)
        return np.log(gammas(after)[1])

    J = np.empty((n, n))
    for i, unit in enumerate(STEP * np.eye(n)):
        J[:, i] = (log_rates(unit) - log_rates(-unit)) / (2.0 * STEP)
    gain = np.linalg.solve(np.eye(n) + J, np.diag(1.0 / shape))
    covariance = np.diag(special.polygamma(1, shape)) - J @ gain
    covariance = 0.5 * (covariance + covariance.T)
    return Response(covariance, special.digamma(shape) - np.log(rate))


def mean_changes(model, block, q):
    """d E[x] / d log precision of each, (n, T, d)."""
    n, out = len(gammas(q)[0]), []
    for unit in STEP * np.eye(n):
        ahead, behind = (
            model.chain(with_log_means(q, sign * unit), block).mean
            for sign in (1.0, -1.0)
        )
        out.append((ahead - behind) / (2.0 * STEP))
    return np.array(out).reshape(n, block.n_steps, model.dim)
