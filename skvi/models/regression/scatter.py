"""Weight, mean and scatter of rows, in one pass and without losing digits.

Rows are centred about a provisional shift (the mean of a sample of rows) inside
cache-sized blocks, so neither a copy of X is made nor digits are lost to a large mean;
each block's moments, its sums included, come from one BLAS rank-k update.
"""

import numpy as np
from scipy import sparse

from skvi.inference.blocks import map_reduce

N_SHIFT_ROWS = 256  # rows sampled for the provisional shift
N_BLOCK_ROWS = 1024  # rows of a block: its update is one BLAS call in the cache


def _sampled(n):
    """Indices of at most N_SHIFT_ROWS rows, spread over all."""
    return np.unique(np.linspace(0, n - 1, min(n, N_SHIFT_ROWS)).astype(np.intp))


def units(X, Y):
    """Powers of two near columns so large or small that their squares would overflow.

    One for all other columns: dividing by a power of two changes no digit, but it
    takes a copy.
    """
    rows = _sampled(X.shape[0])
    largest = abs(X[rows]).max(axis=0)
    if sparse.issparse(X):
        largest = largest.toarray().ravel()
    largest = np.concatenate([largest, np.abs(Y[rows]).max(axis=0)])
    exponent = np.frexp(largest.astype(np.float64))[1]
    limit = 30 if X.dtype == np.float32 else 250
    return np.ldexp(1.0, np.where(np.abs(exponent) > limit, exponent, 0))


def divide(columns, unit):
    if np.all(unit == 1.0):
        return columns
    if sparse.issparse(columns):
        return columns.multiply(1.0 / unit).asformat(columns.format)
    return columns / unit.astype(columns.dtype)


def scatter(X, Y, sample_weight, n_jobs=None):
    """(weight, mean, scatter) of the columns of [X, Y]."""
    if sparse.issparse(X):
        return _sparse_scatter(X, Y, sample_weight)
    return _dense_scatter(X, Y, sample_weight, n_jobs)


def _centred(total, shift):
    """(weight, mean, scatter) from the moments of [X, Y, 1] about a shift."""
    weight = float(total[-1, -1])
    offset = total[:-1, -1] / weight
    scatter = total[:-1, :-1] - weight * np.outer(offset, offset)
    return weight, shift + offset, scatter


def _dense_scatter(X, Y, sample_weight, n_jobs=None):
    n, p = X.shape
    width = p + Y.shape[1] + 1
    dtype = X.dtype
    sampled = _sampled(n)
    # The shift is a number of X's own type, so that subtracting it rounds least.
    x_shift = X[sampled].mean(axis=0, dtype=np.float64).astype(dtype)
    y_shift = Y[sampled].mean(axis=0)
    root = None if sample_weight is None else np.sqrt(sample_weight).astype(dtype)
    step = min(n, N_BLOCK_ROWS)
    # A shift as large as a block lets numpy subtract in one loop instead of row by row.
    shifts = np.tile(x_shift, (step, 1))

    def moments_of(chunk):
        total = np.zeros((width, width))
        buffer = np.empty((step, p), dtype=dtype)
        other = np.empty((step, width - p), dtype=dtype)
        product = np.empty((p, p), dtype=dtype)
        for start in range(chunk.start, chunk.stop, step):
            rows = slice(start, min(start + step, chunk.stop))
            count = rows.stop - rows.start
            block, rest = buffer[:count], other[:count]
            np.subtract(X[rows], shifts[:count], out=block)
            rest[:, :-1] = Y[rows] - y_shift
            rest[:, -1] = 1.0
            if root is not None:
                block *= root[rows, None]
                rest *= root[rows, None]
            # One operand twice: numpy calls BLAS's rank-k update, and lets other
            # threads run meanwhile. float32 within a block, float64 across blocks.
            total[:p, :p] += np.matmul(block.T, block, out=product)
            total[p:, :p] += rest.T @ block
            total[p:, p:] += rest.T @ rest
        return total

    total = map_reduce(moments_of, n, step, n_jobs)
    total[:p, p:] = total[p:, :p].T
    if sample_weight is None:
        total[-1, -1] = n
    return _centred(total, np.concatenate([x_shift, y_shift]).astype(np.float64))


def _sparse_scatter(X, Y, sample_weight):
    n, p = X.shape
    weight = np.ones(n) if sample_weight is None else sample_weight
    csc = X.tocsc().astype(np.float64)  # a copy
    csc.sum_duplicates()
    # Stored zeros keep a column's mean within sqrt(n) sds, so no digits are lost
    # without a shift; only a column with no zero at all can have a large mean.
    shift = np.zeros(p)
    full = np.flatnonzero(np.diff(csc.indptr) == n)
    if full.size:
        csc = csc.copy()
        for j in full:
            column = slice(csc.indptr[j], csc.indptr[j + 1])
            shift[j] = csc.data[column][0]
            csc.data[column] -= shift[j]
    y_shift = np.average(Y, axis=0, weights=weight)
    rest = np.column_stack([Y - y_shift, np.ones(n)])
    weighted = csc.multiply(weight[:, None]).tocsc()
    total = np.empty((p + rest.shape[1],) * 2)
    total[:p, :p] = (csc.T @ weighted).toarray()
    total[:p, p:] = weighted.T @ rest
    total[p:, :p] = total[:p, p:].T
    total[p:, p:] = rest.T @ (weight[:, None] * rest)
    return _centred(total, np.concatenate([shift, y_shift]))
