"""The generative direction: draws of the states and of steps, and their log joint."""

import numpy as np
from scipy import special

from skvi.distributions.gaussian import LOG_2PI


def states(model, bounds, rng):
    """States of sequences under a known model, (T, K)."""
    A = model.dynamics.matrix
    root = np.linalg.cholesky(np.linalg.inv(model.dynamics.precision))
    first = np.linalg.cholesky(np.linalg.inv(model.initial.precision))
    x = rng.standard_normal((bounds[-1] - bounds[0], len(A)))
    begins = np.asarray(bounds[:-1]) - bounds[0]
    starts = np.zeros(len(x), dtype=bool)
    starts[begins] = True
    for t in range(len(x)):
        if starts[t]:
            x[t] = model.initial.mean + first @ x[t]
        else:
            x[t] = A @ x[t - 1] + root @ x[t]
    return x


def steps(model, x, rng):
    """Observations given states (..., K), of a known model."""
    obs = model.observations
    eta = x @ obs.matrix.T + obs.intercept
    if obs.counts:
        # numpy draws no rates above 2^63
        return rng.poisson(np.exp(np.minimum(eta, 43.0))).astype(np.float64)
    noise = rng.standard_normal(eta.shape)
    return eta + noise / np.sqrt(obs.noise_prior.value)


def log_joint(model, x, block):
    """``log p(y, x)`` of states x (T, K) under a known model, whole sequences."""
    A, P = model.dynamics.matrix, model.dynamics.precision
    first = block.sequences.firsts
    inner = np.flatnonzero(block.sequences.begins[1:-1] == 0) + 1
    total = _normal(x[first] - model.initial.mean, model.initial.precision)
    total += _normal(x[inner] - x[inner - 1] @ A.T, P)
    obs = model.observations
    eta = x @ obs.matrix.T + obs.intercept
    patterns, which = block.observed
    y, seen = block.filled, patterns[which]
    if obs.counts:
        each = y * eta - np.exp(np.minimum(eta, 700.0)) - special.gammaln(y + 1.0)
    else:
        noise = obs.noise_prior.value
        each = 0.5 * (np.log(noise) - LOG_2PI - noise * (y - eta) ** 2)
    return total + float(np.sum(seen * each))


def _normal(z, precision):
    log_det = np.linalg.slogdet(precision)[1]
    square = np.einsum("ti,ij,tj->", z, precision, z)
    return 0.5 * (len(z) * (log_det - z.shape[1] * LOG_2PI) - square)
