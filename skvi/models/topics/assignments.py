"""q(z): for every cell (document, word), how its tokens share the topics.

Two forms. `Stored` keeps the shares of every cell. `Tied` keeps a weight for every
document and topic and one for every word and topic, and the shares are their product,
normalised: a smaller family, which holds the q(z) of mean field, in far less memory.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from skvi.kernels import documents

CELLS = 16384  # at a time, where logs of all would take memory


@dataclass(frozen=True)
class Stored:
    """Shares of every cell, (n_cells, K), as the corpus orders cells."""

    shares: np.ndarray

    kind = "stored"

    def of(self, corpus, cells):
        """Shares of some cells (a slice or an array of indices), (n, K)."""
        return self.shares[cells]

    def all(self, corpus):
        return self.shares

    def counts(self, corpus):
        """Expected counts (of words (n_words, K), of documents (n_documents, K))."""
        indptr, order = corpus.by_word
        counts, cells = corpus.counts.astype(np.float64), np.arange(corpus.n_cells)
        columns = corpus.n_cells
        words = sparse.csr_array(
            (counts[order], order, indptr), shape=(corpus.n_words, columns)
        )
        documents = sparse.csr_array(
            (counts, cells, corpus.indptr), shape=(corpus.n_documents, columns)
        )
        return words @ self.shares, documents @ self.shares

    def toward(self, log_counts):
        """Steps to the fixed point of the bound: a function of their length."""
        start = self.shares
        goal = log_counts.by_cell()
        tiny = np.finfo(start.dtype).tiny

        def at(length):
            out = np.empty_like(start)
            for first in range(0, len(start), CELLS):
                part = slice(first, first + CELLS)
                log_shares = np.log(np.maximum(start[part], tiny, dtype=np.float64))
                log_shares += length * (goal[part] - log_shares)
                log_shares -= log_shares.max(axis=1, keepdims=True)
                shares = np.exp(log_shares, out=log_shares)
                out[part] = shares / shares.sum(axis=1, keepdims=True)
            return Stored(out)

        return at


@dataclass(frozen=True)
class Tied:
    """Weights of documents (n_documents, K), by position, and of words (n_words, K)."""

    documents: np.ndarray
    words: np.ndarray

    kind = "streaming"

    def of(self, corpus, cells):
        rows = np.ascontiguousarray(corpus.cell_documents[cells])
        words = np.ascontiguousarray(corpus.words[cells])
        shares = np.empty((len(rows), self.words.shape[1]), self.words.dtype)
        documents.normalised(rows, words, self.documents, self.words, shares)
        return shares

    def all(self, corpus):
        return self.of(corpus, slice(0, corpus.n_cells))

    def toward(self, log_counts):
        """Steps to where each weight is the average that its cells ask for."""
        dtype = self.words.dtype
        tiny = np.finfo(dtype).tiny
        pairs = [
            (np.log(np.maximum(weights, tiny, dtype=np.float64)), goal)
            for weights, goal in zip(
                (self.documents, self.words), log_counts.averages()
            )
        ]

        def at(length):
            weights = [before + length * (goal - before) for before, goal in pairs]
            return Tied(*(_scaled(w, dtype) for w in weights))

        return at


def _scaled(log_weights, dtype):
    """exp of each row, its largest entry 1; small ones do not underflow in products."""
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True, initial=-1e9))
    return np.maximum(weights, np.sqrt(np.finfo(dtype).tiny)).astype(dtype)
