"""Moves between optima that coordinate ascent does not make, judged by the ELBO."""

import itertools

import numpy as np
from scipy import special

from skvi.distributions import StickBreaking

EXHAUSTIVE = 6  # sticks whose every order is looked at
REACH = 900  # places, times sticks, that one of more sticks moves at a time
BY_COMPONENT = ("count", "rows", "weight", "total", "outer")


def reordered_values(values, order, tied):
    """Statistics whose components are permuted."""
    moved = [name for name in BY_COMPONENT if not (tied and name == "outer")]
    return {k: v[order] if k in moved else v for k, v in values.items()}


def stick_gain(prior, counts):
    """The log evidence of counts in the order of their sticks (last axis)."""
    rest = counts[..., ::-1].cumsum(axis=-1)[..., ::-1]
    a, b = prior.a + counts[..., :-1], prior.b + rest[..., 1:]
    return (special.betaln(a, b) - special.betaln(prior.a, prior.b)).sum(axis=-1)


def best_order(prior, counts):
    """The order of components with the most evidence, or None if they have it.

    Decreasing size is a good start but not always best; from there components move to
    other places and pairs change places while that helps.
    """
    if not isinstance(prior, StickBreaking) or len(counts) == 1:
        return None
    K = len(counts)
    if K <= EXHAUSTIVE:
        orders = np.array(list(itertools.permutations(range(K))))
        order = orders[np.argmax(stick_gain(prior, counts[orders]))]
    else:
        order = np.argsort(-counts, kind="stable")
        best = stick_gain(prior, counts[order])
        while True:
            orders = order[_neighbours(K)]
            gains = stick_gain(prior, counts[orders])
            at = int(np.argmax(gains))
            if not gains[at] > best + 1e-9:
                break
            order, best = orders[at], gains[at]
    gain = stick_gain(prior, counts[order]) - stick_gain(prior, counts)
    return order if gain > 1e-9 * (1.0 + abs(gain)) else None


def _neighbours(K):
    """Permutations of K: every swap of two near each other, and every short move."""
    out, reach = [], max(1, REACH // K)
    for i in range(K):
        for j in range(max(0, i - reach), min(K, i + reach + 1)):
            if i == j:
                continue
            order = np.arange(K)
            if i < j:
                swapped = order.copy()
                swapped[[i, j]] = j, i
                out.append(swapped)
                order[i : j + 1] = np.roll(order[i : j + 1], -1)
            else:
                order[j : i + 1] = np.roll(order[j : i + 1], 1)
            out.append(order)
    return np.array(out)


def reordered(model, values):
    """(q, statistics' values) with the sticks in a better order, or None."""
    order = best_order(model.weights_prior, values["count"])
    if order is None:
        return None
    values = reordered_values(values, order, model.geometry.tied)
    return model.global_step(values, None), values


def merges(model, values, q, n_pairs):
    """Posteriors with one of the pairs that overlap most merged into one component."""
    K = model.n_components
    if K < 2:
        return
    for i, j in _closest_pairs(q, n_pairs):
        merged = {k: np.array(v, copy=True) for k, v in values.items()}
        tied = model.geometry.tied
        for name in BY_COMPONENT:
            if not (tied and name == "outer"):
                merged[name][i] += merged[name][j]
                merged[name][j] = 0.0
        moved = reordered(model, merged)
        yield model.global_step(merged, None) if moved is None else moved[0]


def _closest_pairs(q, n_pairs):
    """Pairs of components that hold rows, by the distance of their means in sds."""
    location = q.components.location
    held = np.flatnonzero(q.weights.mean > 1e-6)
    pairs = []
    for i, j in itertools.combinations(held, 2):
        step = location[i] - location[j]
        square = sum(q.components.square(k, step) for k in (i, j))
        pairs.append((square, i, j))
    return [(i, j) for _, i, j in sorted(pairs)[:n_pairs]]
