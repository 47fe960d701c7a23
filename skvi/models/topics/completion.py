"""Document completion: judge topics by the half of a document they have not seen.

Each document's tokens are dealt into two halves; its proportions are inferred from one,
and the other is predicted (Wallach, Murray, Salakhutdinov & Mimno 2009). The deal is a
pseudo-random function of the document alone, so a document's score depends neither on
which others are scored with it nor on where it stands.
"""

import numpy as np
from scipy import sparse

MOST = 256  # tokens of a word in a document that are dealt one by one
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mixed(x):
    """splitmix64, a hash of 64-bit integers."""
    with np.errstate(over="ignore"):
        x = x + GOLDEN
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def halves(X):
    """(observed, hidden): the two halves of every document's tokens.

    Parameters
    ----------
    X : CSR array of shape (n_documents, n_words)
        Canonical. A count that is not whole is dealt as the next whole number of equal
        parts.

    Returns
    -------
    observed, hidden : CSR arrays of the shape of X
        The first has the odd token, so a document of one token hides none.
    """
    whole = np.ceil(X.data).astype(np.int64)
    # Of a count that is large most is dealt evenly, the rest like any other.
    even = np.maximum(whole - MOST, 0) // 2
    parts = whole - 2 * even
    cells = np.repeat(np.arange(len(parts)), parts)
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    starts = np.cumsum(parts) - parts
    rank = np.arange(len(cells)) - starts[cells]
    with np.errstate(over="ignore"):
        keys = _mixed(X.indices.astype(np.uint64))
        weighted = _mixed(keys ^ whole.astype(np.uint64))
        document = np.zeros(X.shape[0], dtype=np.uint64)
        np.add.at(document, rows, weighted)  # wherever the document's words stand
        noise = _mixed(
            _mixed(keys[cells] + rank.astype(np.uint64)) ^ document[rows[cells]]
        )
    order = np.lexsort((noise, rows[cells]))
    sizes = np.bincount(rows[cells], minlength=X.shape[0])
    first = np.cumsum(sizes) - sizes
    place = np.arange(len(cells)) - np.repeat(first, sizes)
    seen = order[place < np.repeat((sizes + 1) // 2, sizes)]
    share = (even + np.bincount(cells[seen], minlength=len(parts))) / whole
    observed = _like(X, X.data * share)
    hidden = _like(X, X.data * (1.0 - share))
    return observed, hidden


def _like(X, data):
    out = sparse.csr_array(
        (data.astype(X.dtype), X.indices.copy(), X.indptr.copy()), shape=X.shape
    )
    out.eliminate_zeros()
    return out


def log_predictive(hidden, theta, topics):
    """Sum over hidden tokens of log p(word), theta (n, K) and topics (n_words, K)."""
    total = 0.0
    for first in range(0, hidden.shape[0], 256):
        part = hidden[first : first + 256].tocoo()
        rows = theta[first : first + 256]
        p = np.einsum("ik,ik->i", rows[part.coords[0]], topics[part.coords[1]])
        total += float(part.data @ np.log(p))
    return total
