"""Fine partitions of rows, whose parts are merged while the evidence asks for it.

The rows of one component have a log evidence in closed form: components are conjugate.
So the gain of a merge needs no pass over rows, and many small groups that a plain
clustering makes (rows that differ little) grow into what the model calls a component,
however unlike a ball that is: wide, narrow, or constant in some columns.
"""

import numpy as np
from scipy import sparse, special

from skvi.distributions.gaussian import LOG_2PI

NEIGHBOURS = 20  # groups nearest to a group, with which it may merge
CHUNK_ELEMENTS = 1 << 15  # of the matrices of merged pairs: they should fit the cache


def has_separate_evidence(prior):
    """Whether the evidence is a sum over components: not where they share a matrix."""
    return not getattr(prior, "tied", False)


def merged_labels(prior, X, Z, weight, labels):
    """Labels of rows X, groups being merged while that gains, and to fit the prior.

    Z are the rows in the units of the distances by which groups are neighbours.
    """
    _, labels = np.unique(labels, return_inverse=True)
    groups = Groups(prior, X, Z, weight, labels)
    while groups.n_left > 1:
        pair = groups.best_pair()
        if groups.n_left <= len(prior.location) and groups.gain[pair] <= 0.0:
            break
        groups.merge(*pair)
    return np.unique(groups.group_of[labels], return_inverse=True)[1]


class Groups:
    """Groups of rows: their moments, evidence, and the gains of merging neighbours.

    Parameters
    ----------
    prior : NormalWishart or DiagonalNormalGamma
        Of any number of equal components.
    X, Z : arrays of shape (n, D)
        The rows in the prior's units, and in those of distances between neighbours.
    weight : array of shape (n,)
    labels : array of shape (n,)
        From 0, none of them missing.
    """

    def __init__(self, prior, X, Z, weight, labels):
        self.prior = prior.reordered(np.zeros(1, dtype=int))
        self._priors = {}  # by their number of components
        self.base = _log_normalizers(self.prior)
        self.moments = _moments(self.prior, X, weight, labels)
        self.n_left = size = len(self.moments[0])
        self.group_of = np.arange(size)
        self.evidence = self._evidence(self.moments)
        self.near = _near(Z, weight, labels, self.moments[0])
        self.gain = np.full((size, size), -np.inf)
        i, j = np.nonzero(np.triu(self.near))
        self.gain[i, j] = self.gain[j, i] = self._gains(i, j)

    def best_pair(self):
        """The neighbours whose merge gains most; when none are left, all are."""
        if np.max(self.gain) == -np.inf:
            left = np.unique(self.group_of)
            self.near[np.ix_(left, left)] = True
            np.fill_diagonal(self.near, False)
            i, j = np.nonzero(np.triu(self.near))
            self.gain[i, j] = self.gain[j, i] = self._gains(i, j)
        return np.unravel_index(np.argmax(self.gain), self.gain.shape)

    def merge(self, i, j):
        """Put the rows of group j into group i."""
        for moment in self.moments:
            moment[i] += moment[j]
        self.evidence[i] = self._evidence([m[i : i + 1] for m in self.moments])[0]
        self.group_of[self.group_of == j] = i
        self.near[i] |= self.near[j]
        self.near[:, i] = self.near[i]
        self.near[j] = self.near[:, j] = self.near[i, i] = False
        self.gain[j] = self.gain[:, j] = -np.inf
        others = np.flatnonzero(self.near[i])
        self.gain[i, others] = self.gain[others, i] = self._gains(
            np.full_like(others, i), others
        )
        self.n_left -= 1

    def _gains(self, i, j):
        """What merging groups i with groups j adds to the evidence."""
        gains = np.empty(len(i))
        step = max(1, CHUNK_ELEMENTS // self.moments[2][0].size)
        for start in range(0, len(i), step):
            a, b = i[start : start + step], j[start : start + step]
            both = self._evidence([m[a] + m[b] for m in self.moments])
            gains[start : start + step] = both - self.evidence[a] - self.evidence[b]
        return gains

    def _evidence(self, moments):
        """Log evidence of the rows of groups, that of their labels included."""
        count, total, outer = moments
        size = len(count)
        if size not in self._priors:
            self._priors[size] = self.prior.reordered(np.zeros(size, dtype=int))
        joint = self._priors[size].absorb(count, total, outer)
        of_rows = _log_normalizers(joint) - self.base
        of_rows -= 0.5 * LOG_2PI * count * total.shape[1]
        return of_rows + special.xlogy(count, count)


def _log_normalizers(components):
    """Log normaliser of every component, but for what all of one prior share."""
    dim = components.location.shape[-1]
    log_precision = np.log(components.mean_precision)
    if hasattr(components, "wishart"):
        return components.wishart.log_normalizers() - 0.5 * dim * log_precision
    noise = components.noise
    out = special.gammaln(noise.shape) - noise.shape * np.log(noise.rate)
    out = out if out.ndim == 1 else out.sum(axis=1)
    return out - 0.5 * np.broadcast_to(log_precision, components.location.shape).sum(1)


def _moments(prior, X, weight, labels):
    """Weight, sum and second moment of every group."""
    order = np.argsort(labels, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(labels))[:-1])
    matrix = hasattr(prior, "wishart")
    total, outer = [], []
    for part in parts:
        x = X[part]
        weighted = weight[part, None] * x
        total.append(weighted.sum(axis=0))
        outer.append(weighted.T @ x if matrix else (weighted * x).sum(axis=0))
    return [np.bincount(labels, weight), np.array(total), np.array(outer)]


def _near(Z, weight, labels, count):
    """Which groups may merge: those whose merge adds least to the sum of squares."""
    size = len(count)
    if size <= NEIGHBOURS + 1:
        return ~np.eye(size, dtype=bool)
    member = sparse.csr_array((weight, (labels, np.arange(len(Z)))))
    mean = (member @ Z) / count[:, None]
    square = (mean**2).sum(axis=1)
    distance = square[:, None] + square - 2.0 * mean @ mean.T
    distance *= count[:, None] * count / (count[:, None] + count)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argpartition(distance, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    near = np.zeros((size, size), dtype=bool)
    near[np.arange(size)[:, None], nearest] = True
    return near | near.T
