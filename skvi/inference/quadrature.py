"""Quadrature: densities known on a grid, and expectations under a Gaussian.

A density that is smooth and decays at both ends is integrated by equally spaced nodes
to rounding error as soon as the nodes are finer than its features (the trapezoid rule;
Trefethen & Weideman 2014, SIAM Review 56, section 5). Expectations of functions that
are smooth on the scale of a Gaussian take a few nodes of Gauss-Hermite.
"""

from functools import cache

import numpy as np
from scipy import special, stats
from scipy.interpolate import CubicSpline
from scipy.special import logsumexp

NEGLIGIBLE = 46.0  # exp(-46) is 1e-20
MAX_NODES = 1 << 14
LARGEST = 1e13  # a log density beyond this has lost the digits that count


class GridDensity:
    """The law of a scalar u whose log density is known at equally spaced nodes.

    Attributes
    ----------
    nodes, weights : arrays of shape (G,)
        Quadrature nodes and probabilities: ``E[f(u)] = weights @ f(nodes)``.
    log_density : array of shape (G,)
        Normalised log density at the nodes.
    log_mass : float
        Log of the integral of the density before normalisation.
    """

    def __init__(self, nodes, log_unnormalised):
        self.nodes = nodes
        # Averaged: one difference of two nodes far from zero has lost digits.
        step = (nodes[-1] - nodes[0]) / (len(nodes) - 1)
        self.log_mass = float(logsumexp(log_unnormalised) + np.log(step))
        self.log_density = log_unnormalised - self.log_mass
        weights = np.exp(self.log_density) * step
        self.weights = weights / weights.sum()

    def thinned(self):
        """(nodes, weights) of every other node, those of negligible weight left out.

        The integral was the same before the last halving of the step, so these serve
        as well, at less than half the cost in all that is summed over them.
        """
        keep = np.flatnonzero(self.weights[::2] > 1e-14) * 2
        weights = self.weights[keep]
        return self.nodes[keep], weights / weights.sum()

    def entropy(self):
        return float(-self.weights @ self.log_density)

    def sample(self, n, rng):
        """Draws by the inverse CDF of the interpolated density."""
        fine = np.linspace(self.nodes[0], self.nodes[-1], 16 * len(self.nodes) + 1)
        density = np.exp(CubicSpline(self.nodes, self.log_density)(fine))
        cdf = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
        return np.interp(rng.random(n) * cdf[-1], cdf, fine)


def integrate(log_density, low, high, step):
    """Scan [low, high] for the density's whole support and refine there.

    Parameters
    ----------
    log_density : callable
        Unnormalised log density at an array of points.
    low, high : float
        An interval that contains all of the mass that can matter.
    step : float
        First spacing; fine enough that no mode hides between two nodes.

    Returns
    -------
    density : GridDensity
        Nodes halved until the integral no longer changes.
    """
    nodes = np.arange(low, high + step, step)
    values = log_density(nodes)
    if max(values[0], values[-1]) > values.max() - 0.75 * NEGLIGIBLE:
        raise ValueError(
            f"The density does not end within [{low:.3g}, {high:.3g}], where its whole "
            "mass should lie."
        )
    previous = -np.inf
    while True:
        if not abs(values.max()) < LARGEST:
            raise ValueError(
                f"The log evidence is of order {values.max():.0e}, too large for its "
                "differences to be numbers: a precision that was given does not fit "
                "the units of the data."
            )
        keep = np.flatnonzero(values > values.max() - NEGLIGIBLE)
        first, last = max(keep[0] - 1, 0), min(keep[-1] + 2, len(nodes))
        nodes, values = nodes[first:last], values[first:last]
        mass = logsumexp(values) + np.log(step)
        if (abs(mass - previous) < 1e-13 * max(1.0, abs(mass)) and len(nodes) > 8) or (
            len(nodes) > MAX_NODES
        ):
            return GridDensity(nodes, values)
        previous = mass
        middle = nodes[:-1] + 0.5 * step
        merged = np.empty(len(nodes) + len(middle))
        new = np.empty_like(merged)
        merged[::2], merged[1::2] = nodes, middle
        new[::2], new[1::2] = values, log_density(middle)
        nodes, values, step = merged, new, 0.5 * step


def gamma_nodes(distribution, step=0.35):
    """(tau, weights): nodes for expectations under a scalar Gamma, in log tau."""
    a, b = float(distribution.shape), float(distribution.rate)
    # log tau has curvature of at most a near its mode and a tail of slope a below it.
    spread = 1.0 / np.sqrt(a)
    mode = np.log(a / b)
    density = integrate(
        lambda u: a * (u - mode) - a * np.exp(u - mode) + a,
        mode - NEGLIGIBLE / a - 10 * spread - 2,
        mode + 10 * spread + 4,
        step * min(spread, 1.0) * 2,
    )
    return np.exp(density.nodes), density.weights


# -- expectations under a Gaussian -----------------------------------------------------

# The function's width (how far its singularities are from the real axis) over the
# Gaussian's sd, and the Gauss-Hermite nodes that then leave an error of about 1e-12.
HERMITE = ((16.0, 5), (4.0, 12), (2.4, 32))
STEP = 0.24  # of the trapezoid rule, in widths of the function: 1e-12, too
PRODUCT_STEP = 0.3  # of products of rules: 1e-9
REACH = 8.6  # sds at which the Gaussian ends: beyond there is 1e-17 of it
WIDEST = 10  # powers of two of the ratio of sd to width; wider ones have as many nodes
CELLS = 1 << 14  # of rows by nodes that are looked at together: they fit the cache
FINEST_PRODUCT = len(HERMITE) + 1  # the rule of which products are taken at most


def rule_of(sd, width):
    """The number of the rule that suits each sd; ``gaussian_rule`` has its nodes."""
    ratio = np.asarray(sd, dtype=np.float64) / width
    edges = np.append([1.0 / least for least, _ in HERMITE], 2.0 ** np.arange(WIDEST))
    return np.searchsorted(edges, ratio)


@cache
def gaussian_rule(k, step=STEP):
    """(nodes, weights) of a rule for the standard Gaussian."""
    if k < len(HERMITE):
        nodes, weights = special.roots_hermitenorm(HERMITE[k][1])
    else:
        step = step * 0.5 ** (k - len(HERMITE))
        nodes = np.arange(-np.ceil(REACH / step), np.ceil(REACH / step) + 1.0) * step
        weights = np.exp(-0.5 * nodes**2)
    return nodes, weights / weights.sum()


def groups_of_rules(rules, cells=CELLS, rule=gaussian_rule):
    """Yield (rows, nodes, weights): rows of one rule, so many that cells stay few."""
    for k in np.flatnonzero(np.bincount(rules)):
        nodes, weights = rule(int(k))
        members = np.flatnonzero(rules == k)
        step = max(1, cells // len(weights))
        for start in range(0, len(members), step):
            yield members[start : start + step], nodes, weights


@cache
def product_rule(k, dim):
    """(points (m, dim), weights) for the standard Gaussian in one or two dimensions."""
    nodes, weights = gaussian_rule(min(k, FINEST_PRODUCT), PRODUCT_STEP)
    points = np.stack(np.meshgrid(*[nodes] * dim, indexing="ij"), axis=-1)
    each = np.stack(np.meshgrid(*[weights] * dim, indexing="ij"), axis=-1)
    points, weights = points.reshape(-1, dim), each.reshape(-1, dim).prod(axis=1)
    keep = weights > 1e-12 * weights.max()
    return points[keep], weights[keep] / weights[keep].sum()


@cache
def random_rule(n_points, dim):
    """(points (m, dim), weights): quasi-random points and their reflections.

    Their moments of order one to three are those of the standard Gaussian.
    """
    engine = stats.qmc.Sobol(dim, scramble=True, rng=0)
    half = special.ndtri(engine.random(n_points // 2))
    points = np.concatenate([half, -half])
    root = np.linalg.cholesky(points.T @ points / len(points))
    points = np.linalg.solve(root, points.T).T
    return points, np.full(len(points), 1.0 / len(points))
