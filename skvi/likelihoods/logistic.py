"""Expectations of softplus, ``log(1 + exp(x))``, and its derivatives."""

import numpy as np

from skvi.inference.quadrature import groups_of_rules, rule_of

WIDTH = np.pi  # of softplus, which has singularities at pi i


def softplus_cells(x):
    """Softplus and its first two derivatives, elementwise."""
    e = np.exp(-np.abs(x))
    below = 1.0 / (1.0 + e)  # sigma(|x|)
    slope = np.where(x >= 0.0, below, e * below)
    return np.maximum(x, 0.0) + np.log1p(e), slope, e * below**2


def softplus_moments(mean, variance):
    """``E softplus(x), E sigma(x), E sigma'(x)`` under Gaussians (n,): (3, n)."""
    sd = np.sqrt(variance)
    out = np.empty((3, len(mean)))
    for rows, nodes, weights in groups_of_rules(rule_of(sd, WIDTH)):
        # Nodes on the first axis: each is one contiguous sweep over the rows.
        cells = softplus_cells(mean[rows] + nodes[:, None] * sd[rows])
        for each, cell in zip(out, cells):
            each[rows] = weights @ cell
    return out
