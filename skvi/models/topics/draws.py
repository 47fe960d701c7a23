"""Draws of topics for tokens, and densities of joint draws.

Tokens are in the order of X: by document, then by word, the tokens of a cell together.
"""

import numpy as np
from scipy import special


def cell_order(corpus):
    """Cells by document of X, then by word."""
    documents = corpus.order[corpus.cell_documents]
    return np.lexsort((corpus.words, documents))


class Tokens:
    """The tokens of a corpus one by one.

    Attributes
    ----------
    cells : array of shape (n_tokens,)
        Cell of each token, in the order of X.
    documents, words : arrays of shape (n_tokens,)
        Document of X and word of each.
    """

    def __init__(self, corpus):
        counts = corpus.counts.astype(np.float64)
        if np.any(counts != np.round(counts)):
            raise ValueError(
                "X has counts that are not whole numbers, so there are no tokens to "
                "draw topics for; call this without X."
            )
        order = cell_order(corpus)
        self.cells = np.repeat(order, counts[order].astype(np.int64))
        self.documents = corpus.order[corpus.cell_documents[self.cells]]
        self.words = corpus.words[self.cells]
        self.shape = (corpus.n_documents, corpus.n_words)

    def draw(self, shares, n, rng):
        """Topics of all tokens, (n, n_tokens), from shares by cell."""
        cumulative = np.cumsum(shares, axis=1, dtype=np.float64)
        cumulative /= cumulative[:, -1:]
        cumulative = cumulative[self.cells]
        out = np.empty((n, len(self.cells)), dtype=np.int64)
        for i in range(n):
            u = rng.random((len(self.cells), 1))
            out[i] = np.minimum((u > cumulative).sum(axis=1), shares.shape[1] - 1)
        return out

    def log_density(self, shares, assignments):
        """log q of drawn topics, (n,)."""
        tiny = np.finfo(np.float64).tiny
        logs = np.log(np.maximum(shares, tiny, dtype=np.float64))[self.cells]
        picked = np.take_along_axis(logs[None], assignments[..., None], axis=2)
        return picked[..., 0].sum(axis=1)

    def counts(self, assignments, K):
        """Of every draw: (documents (n, D, K), topics (n, K, V))."""
        n_documents, n_words = self.shape
        by_document, by_topic = [], []
        for z in assignments:
            index = self.documents * K + z
            counts = np.bincount(index, minlength=n_documents * K)
            by_document.append(counts.reshape(n_documents, K))
            index = z * n_words + self.words
            counts = np.bincount(index, minlength=n_words * K)
            by_topic.append(counts.reshape(K, n_words))
        return np.array(by_document, dtype=float), np.array(by_topic, dtype=float)


def sample_dirichlet(concentration, rng):
    """One draw of each Dirichlet of the last axis, in logs because shapes are small."""
    log = np.log(rng.standard_gamma(concentration + 1.0))
    log -= rng.standard_exponential(log.shape) / concentration
    return special.softmax(log, axis=-1)


def dirichlet_log_density(concentration, z):
    """log density of z under each Dirichlet of the last axis, summed but for axis 0."""
    terms = special.xlogy(concentration - 1.0, z) - special.gammaln(concentration)
    each = terms.sum(axis=-1) + special.gammaln(concentration.sum(axis=-1))
    return each.reshape(len(z), -1).sum(axis=1)
