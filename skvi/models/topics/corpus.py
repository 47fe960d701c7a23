"""Documents as the kernels read them: blocks of rows with a vocabulary of their own."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

VECTOR = 8  # numbers that a vector unit takes at once, or a multiple of that


def padded(topics):
    """Rows with zeros added to a whole number of vectors, as kernels like them."""
    missing = -topics.shape[1] % VECTOR
    if missing == 0:
        return np.ascontiguousarray(topics)
    return np.pad(topics, ((0, 0), (0, missing)))


@dataclass(frozen=True)
class Block:
    """Some documents, those of few words first.

    Attributes
    ----------
    documents, cells : slice
        Where they stand in the corpus.
    indptr : int32 array of shape (n_documents + 1,)
    words : int32 array of shape (n_cells,)
        Index into ``vocabulary``.
    vocabulary : int array
        The words of the block, ascending.
    counts : array of shape (n_cells,)
    """

    documents: slice
    cells: slice
    indptr: np.ndarray
    words: np.ndarray
    vocabulary: np.ndarray
    counts: np.ndarray


class Corpus:
    """Counts of words in documents, a cell for every count that is not zero.

    Parameters
    ----------
    X : CSR array of shape (n_documents, n_words)
        Canonical: sorted, no duplicates, no stored zeros.
    block_size : int
        Documents in a block.
    """

    def __init__(self, X, block_size):
        self.n_documents, self.n_words = X.shape
        lengths = np.diff(X.indptr)
        block = np.arange(self.n_documents) // block_size
        self.order = np.lexsort((lengths, block))  # document at each position
        X = X[self.order]
        self.indptr = X.indptr.astype(np.int64)
        self.words = X.indices.astype(np.int32)
        self.counts = np.ascontiguousarray(X.data)
        self.dtype = self.counts.dtype
        firsts = range(0, self.n_documents, block_size)
        self.blocks = [
            self._block(slice(i, min(i + block_size, self.n_documents))) for i in firsts
        ]

    def _block(self, documents):
        indptr = self.indptr[documents.start : documents.stop + 1]
        cells = slice(int(indptr[0]), int(indptr[-1]))
        vocabulary, words = np.unique(self.words[cells], return_inverse=True)
        return Block(
            documents,
            cells,
            (indptr - indptr[0]).astype(np.int32),
            words.astype(np.int32),
            vocabulary.astype(np.int64),
            self.counts[cells],
        )

    @property
    def n_cells(self):
        return len(self.words)

    @cached_property
    def lengths(self):
        """Tokens of each document, in the order of the blocks."""
        starts, sums = self.indptr[:-1], np.zeros(self.n_documents)
        filled = np.diff(self.indptr) > 0
        if filled.any():
            counts = self.counts.astype(np.float64)
            sums[filled] = np.add.reduceat(counts, starts[filled])
        return sums

    @cached_property
    def word_tokens(self):
        """Tokens of each word."""
        return np.bincount(self.words, self.counts, self.n_words)

    @property
    def n_tokens(self):
        return float(self.lengths.sum())

    @cached_property
    def cell_documents(self):
        """Position of the document of each cell."""
        positions = np.arange(self.n_documents, dtype=np.int32)
        return np.repeat(positions, np.diff(self.indptr))

    @cached_property
    def by_word(self):
        """(indptr, cells): word w has the cells ``cells[indptr[w]:indptr[w + 1]]``."""
        cells = np.argsort(self.words, kind="stable")
        occurrences = np.bincount(self.words, minlength=self.n_words)
        return np.concatenate([[0], np.cumsum(occurrences)]), cells

    def restored(self, values):
        """Rows by position in the order of X."""
        out = np.empty_like(values)
        out[self.order] = values
        return out

    def positioned(self, values):
        """Rows in the order of X by position."""
        return values[self.order]
