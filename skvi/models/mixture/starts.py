"""Where a mixture's fit starts: cheap partitions of a sample of the rows.

Starts depend on the weighted set of rows, not on their order or repetition: a row is in
the sample or not by a hash of its values, and equal rows are merged and sorted before
anything random happens.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans, kmeans_plusplus

from skvi.models.mixture import agglomeration
from skvi.models.mixture.rows import Rows

SAMPLE_ROWS = 5000
SAMPLE_ROWS_LATENT = 500  # where every row is a pattern of missing entries of its own
FINEST = 50, 5  # groups before merging: so many, and so many more a component
FINEST_ROWS = 2  # distinct rows that a group holds at least, on average
FINEST_ELEMENTS = 1 << 22  # of all groups' second moments
MERGED = {"merged": 1.0, "coarsely merged": 0.5}  # the share of the finest groups
FINE_SWEEPS = 20  # of the k-means that makes them


@dataclass(frozen=True)
class Sample:
    """Distinct rows that stand for all.

    Attributes
    ----------
    rows : Rows
        Their weights add up to those of all rows: the prior keeps its proportion.
    X : array of shape (n, D)
        Them in standard units, without gaps: a missing entry is its column's mean.
    Z : array of shape (n, D)
        The same, scaled to unit variance.
    distinct : array of shape (n,)
        The number of a row among the distinct rows of X.
    """

    rows: Rows
    X: np.ndarray
    Z: np.ndarray
    distinct: np.ndarray

    @classmethod
    def of(cls, rows, totals, rng, common=False, limit=np.inf, size=SAMPLE_ROWS):
        """A sample of rows.

        `common` asks for one scale for all columns; X and Z stop at `limit` scales.
        """
        scale = totals.scale
        index = sample_rows(rows, scale, rng, size)
        X = rows.standard(index)
        X = np.asarray(X.toarray() if rows.is_sparse else X, dtype=np.float64)
        missing = np.isnan(X)
        if missing.any():
            # A row without a number says nothing, and might lie on a border.
            told = ~missing.all(axis=1)
            index, X, missing = index[told], X[told], missing[told]
        X = np.where(missing, totals.mean, X)
        keys = np.hstack([X, missing]) if missing.any() else X
        _, first, which = np.unique(
            keys, axis=0, return_index=True, return_inverse=True
        )
        weight = rows.weights(index)
        weight = np.bincount(which.ravel(), weight).astype(np.float64)
        weight *= rows.total_weight / weight.sum()
        X = X[first]
        if common:
            scale = np.sqrt(np.mean(totals.variance)) or 1.0
        chosen = rows.X[index[first]].astype(np.float64)
        chosen = Rows(chosen, weight, rows.frame)
        Z = (X - totals.mean) / scale
        if np.isfinite(limit):
            Z = np.clip(Z, -limit, limit)
            X = totals.mean + Z * scale
        return cls(chosen, X, Z, _distinct(Z))

    @property
    def n_distinct(self):
        return int(self.distinct.max()) + 1


def _distinct(Z):
    """Numbers of rows that squared distances can tell apart."""
    resolution = 1e-7 * np.abs(Z).max(initial=np.finfo(np.float64).tiny)
    return np.unique(np.rint(Z / resolution), axis=0, return_inverse=True)[1].ravel()


def sample_rows(rows, scale, rng, size=SAMPLE_ROWS):
    """Indices of all that equal one of ``size`` distinct rows, which a hash chooses."""
    if rows.n <= size:
        return np.arange(rows.n)
    keys = np.empty(rows.n, dtype=np.uint64)
    odd = rng.integers(1 << 63, size=rows.dim, dtype=np.uint64) * np.uint64(2)
    odd += np.uint64(1)
    for _, part in rows.blocks(rows.dim):
        x = rows.standard(part)
        x = x.toarray() if rows.is_sparse else x
        # Rounded, so that a change of units that rounds differently chooses the same.
        x = np.nan_to_num(np.rint(x / scale * 2.0**20), nan=2.0**40)
        keys[part] = mixed((x.astype(np.int64).view(np.uint64) * odd).sum(axis=1))
    chosen = np.unique(keys)[:size]
    return np.flatnonzero(keys <= chosen[-1])


def mixed(keys):
    """Integers whose order has nothing to do with that of the keys (SplitMix64)."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def labels(kind, sample, prior, rng):
    """Labels of a sample by one kind of start, shape (n,)."""
    n_components = len(prior.location)
    Z, weight = sample.Z, sample.rows.weight
    state = np.random.RandomState(rng.integers(2**31))
    if kind in MERGED:
        return merged(sample, prior, MERGED[kind], state)
    if sample.n_distinct <= n_components:
        return sample.distinct  # the other components stay empty
    if kind == "kmeans":
        return _kmeans(Z, weight, n_components, state)
    if kind == "random":
        return state.randint(n_components, size=len(Z))
    if kind == "k-means++":
        centres, _ = kmeans_plusplus(
            Z, n_components, sample_weight=weight, random_state=state
        )
    else:
        p = weight / weight.sum()
        centres = Z[state.choice(len(Z), n_components, replace=False, p=p)]
    distance = (centres**2).sum(axis=1) - 2.0 * Z @ centres.T
    return distance.argmin(axis=1)


def merged(sample, prior, share, state, within=None):
    """Labels of a fine partition whose parts are merged by their evidence.

    Parameters
    ----------
    share : float
        Of the number of parts that is the finest.
    within : array of shape (n,) or None
        Labels that no part may cross, so that parts of what they label can be put
        together anew: all splits and merges of them at once.
    """
    n_components, dim = prior.location.shape
    size = int(share * (FINEST[0] + FINEST[1] * n_components))
    size = min(size, sample.n_distinct // FINEST_ROWS, FINEST_ELEMENTS // dim**2)
    size = max(size, n_components)
    fine = sample.distinct
    if size < sample.n_distinct:
        fine = _kmeans(sample.Z, sample.rows.weight, size, state, FINE_SWEEPS)
    if within is not None:
        fine = fine * (within.max() + 1) + within
    return agglomeration.merged_labels(
        prior, sample.X, sample.Z, sample.rows.weight, fine
    )


def _kmeans(Z, weight, n_clusters, state, max_iter=300):
    model = KMeans(n_clusters, n_init=1, max_iter=max_iter, random_state=state)
    return model.fit(Z, sample_weight=weight).labels_


def assigned(model, q, sample):
    """The likeliest component of every row of a sample."""
    out = np.empty(sample.rows.n, dtype=int)
    for _, block in model.blocks(sample.rows):
        for piece, part in model.geometry.pieces(sample.rows, block):
            out[part] = model.shares(q, piece)[0].argmax(axis=0)
    return out


def start(model, data, labels):
    """The posterior of labelled rows."""
    r = np.zeros((model.n_components, data.n))
    r[labels, np.arange(data.n)] = 1.0 if data.weight is None else data.weight
    return model.global_step(model.labelled_statistics(data, r), None)
