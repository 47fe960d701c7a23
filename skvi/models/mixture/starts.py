"""Where a mixture's fit starts: cheap partitions of a sample of the rows.

Starts depend on the weighted set of rows and not on their order: a row is in the sample
or not by a hash of its values, and the sample is sorted before anything random happens.
"""

import numpy as np
from sklearn.cluster import KMeans, kmeans_plusplus

SAMPLE_ROWS = 5000


def sample_rows(rows, scale, rng, size=SAMPLE_ROWS):
    """Indices of about ``size`` rows chosen by their values; all if there are fewer."""
    if rows.n <= size:
        return np.arange(rows.n)
    keys = np.empty(rows.n)
    mixer = rng.standard_normal(rows.dim)
    for _, part in rows.blocks(rows.dim):
        x = rows.standard(part)
        # Rounded, so that a change of units that rounds differently chooses the same.
        x = np.nan_to_num(np.rint(x / scale * 2.0**20))
        keys[part] = np.modf(np.abs(np.sin(x @ mixer) * 1e6))[0]
    return np.sort(np.argpartition(keys, size)[:size])


def labels(kind, Z, weight, n_components, rng):
    """Labels of rows Z by one kind of start, shape (n,)."""
    state = np.random.RandomState(rng.integers(2**31))
    if kind == "kmeans":
        return (
            KMeans(n_components, n_init=1, random_state=state)
            .fit(Z, sample_weight=weight)
            .labels_
        )
    if kind == "random":
        return state.randint(n_components, size=len(Z))
    if kind == "k-means++":
        centres, _ = kmeans_plusplus(
            Z, n_components, sample_weight=weight, random_state=state
        )
    else:
        p = None if weight is None else weight / weight.sum()
        centres = Z[state.choice(len(Z), n_components, replace=False, p=p)]
    distance = (centres**2).sum(axis=1) - 2.0 * Z @ centres.T
    return distance.argmin(axis=1)


def start(model, data, labels):
    """The posterior of labelled rows."""
    r = np.zeros((model.n_components, data.n))
    r[labels, np.arange(data.n)] = 1.0 if data.weight is None else data.weight
    return model.global_step(model.labelled_statistics(data, r), None)
