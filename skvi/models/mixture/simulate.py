"""The generative direction of a mixture: its log joint, and data drawn from its prior.

In standard units, as the model is. Draws are dicts as ``local.py`` and the posterior
give them: weights, means, precisions, assignments, and scales of Student-t rows.
"""

import numpy as np
from scipy import stats

from skvi.distributions import NormalWishart
from skvi.distributions.gaussian import LOG_2PI


def sample_prior_predictive(model, n_rows, rng):
    """(X, draws): one draw of every variable from the prior, and rows given it."""
    weights = model.weights_prior.sample(1, rng)
    draws = {"weights": weights, **model.components_prior.sample(1, rng)}
    z = rng.choice(model.n_components, size=n_rows, p=weights[0] / weights[0].sum())
    u = np.ones(n_rows)
    if np.isfinite(model.emission.dof):
        half = 0.5 * model.emission.dof
        u = rng.standard_gamma(half, size=n_rows) / half
        draws["scales"] = u[None]
    draws["assignments"] = z[None]
    factor = _factors(model, draws["precisions"][0])
    noise = rng.standard_normal((n_rows, draws["means"].shape[2], 1))
    # L = F F', so that F'^-1 noise has the covariance L^-1.
    noise = np.linalg.solve(np.swapaxes(factor, 1, 2)[z], noise)[..., 0]
    return draws["means"][0, z] + noise / np.sqrt(u)[:, None], draws


def log_joint(model, X, draws):
    """``log p(x, z, u, weights, means, precisions)`` of complete rows, shape (n,)."""
    z, means = draws["assignments"], draws["means"]
    n, _, dim = means.shape
    total = model.weights_prior.log_density(draws["weights"])
    total = total + model.components_prior.log_density(draws)
    at = np.arange(n)[:, None]
    total += np.log(draws["weights"][at, z]).sum(axis=1)
    u = draws.get("scales", np.ones(z.shape))
    if np.isfinite(model.emission.dof):
        half = 0.5 * model.emission.dof
        total += stats.gamma.logpdf(u, half, scale=1.0 / half).sum(axis=1)
    for i in range(n):
        factor = _factors(model, draws["precisions"][i])
        log_det = 2.0 * np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
        white = (X - means[i, z[i]])[:, None, :] @ factor[z[i]]
        square = u[i] * np.einsum("nij,nij->n", white, white)
        log_det = log_det[z[i]] + dim * np.log(u[i])
        total[i] += 0.5 * np.sum(log_det - dim * LOG_2PI - square)
    return total


def _factors(model, precisions):
    """Cholesky factors (K, D, D) of one draw of the precisions."""
    K, dim = model.components_prior.location.shape
    if isinstance(model.components_prior, NormalWishart):
        return np.broadcast_to(np.linalg.cholesky(precisions), (K, dim, dim))
    each = np.broadcast_to(precisions.reshape(K, -1), (K, dim))
    return np.sqrt(each)[:, :, None] * np.eye(dim)
