"""Rows of a design with columns for everybody and effects of groups.

The vector theta = (beta, effects of the further factors, effects of the first factor)
holds p common weights and, for each factor, J levels of q effects. Row i meets, of each
factor, the q effects of one level, with the coefficients ``terms``. Normal matrices of
such rows are arrows: the first factor's block is block-diagonal, the rest is dense.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse


@dataclass(frozen=True)
class ArrowLayout:
    """Where theta's parts are.

    Attributes
    ----------
    width : int
        Number p of common weights.
    factors : tuple of (n_levels, n_effects)
        The first is the one that is eliminated: let it be the largest.
    """

    width: int
    factors: tuple = ()

    @cached_property
    def first(self):
        """(levels, effects) of the first factor; of none, no level."""
        return self.factors[0] if self.factors else (0, 1)

    @cached_property
    def starts(self):
        """Where each factor's effects start."""
        at, starts = self.width, []
        for n_levels, n_effects in self.factors[1:]:
            starts.append(at)
            at += n_levels * n_effects
        return [at, *starts]

    @cached_property
    def n_root(self):
        return self.starts[0]

    @cached_property
    def dim(self):
        n_levels, n_effects = self.first
        return self.n_root + n_levels * n_effects

    def positions(self, factor):
        """Positions of a factor's effects in theta, (levels, effects)."""
        n_levels, n_effects = self.factors[factor]
        flat = np.arange(n_levels * n_effects) + self.starts[factor]
        return flat.reshape(n_levels, n_effects)


class GroupedRows:
    """Rows of the design.

    Parameters
    ----------
    layout : ArrowLayout
    X : array of shape (n, p)
    codes : list of int arrays of shape (n,)
        The level of each factor; -1: none of the levels there are.
    terms : list of arrays of shape (n, q_f)
        Coefficients of the level's effects.
    """

    def __init__(self, layout, X, codes, terms):
        self.layout = layout
        self.X = X
        self.codes = [np.maximum(code, 0) for code in codes]
        self.terms = [
            np.where((code >= 0)[:, None], term, 0.0)
            for code, term in zip(codes, terms)
        ]
        if not self.codes:
            self.codes = [np.zeros(len(X), dtype=np.intp)]
            self.terms = [np.zeros((len(X), 1))]

    @property
    def shape(self):
        return len(self.X), self.layout.dim

    @cached_property
    def first(self):
        """Sparse columns of the first factor."""
        return self._sparse([0], [0], self.layout.dim - self.layout.n_root)

    @cached_property
    def first_transposed(self):
        return self.first.T

    @cached_property
    def rest(self):
        """Sparse columns of the other factors, or None."""
        if len(self.codes) == 1:
            return None
        p, factors = self.layout.width, range(1, len(self.codes))
        shifts = [self.layout.starts[f] - p for f in factors]
        return self._sparse(factors, shifts, self.layout.n_root - p)

    def _sparse(self, factors, shifts, width):
        n = len(self.X)
        columns, values = self.entries(factors, shifts)
        if width == 0:
            return sparse.csr_array((n, 0))
        k = values.shape[1]
        return sparse.csr_array(
            (values.ravel(), columns.ravel(), np.arange(n + 1) * k), shape=(n, width)
        )

    def entries(self, factors, shifts):
        """(columns, values), each (n, entries of a row), of some factors."""
        columns, values = [], []
        for f, shift in zip(factors, shifts):
            term = self.terms[f]
            q = term.shape[1]
            columns.append(shift + q * self.codes[f][:, None] + np.arange(q))
            values.append(term)
        return np.concatenate(columns, axis=1), np.concatenate(values, axis=1)

    @cached_property
    def root_entries(self):
        """(columns, values) of the other factors, positions being those in theta."""
        factors = range(1, len(self.codes))
        return self.entries(factors, [self.layout.starts[f] for f in factors])

    def __getitem__(self, rows):
        out = object.__new__(GroupedRows)
        out.layout = self.layout
        out.X = self.X[rows]
        out.codes = [code[rows] for code in self.codes]
        out.terms = [term[rows] for term in self.terms]
        return out

    def dot(self, theta):
        p, root = self.layout.width, self.layout.n_root
        out = self.X @ theta[:p]
        if self.layout.factors:
            out = out + self.first @ theta[root:]
        if self.rest is not None:
            out = out + self.rest @ theta[p:root]
        return out

    def tdot(self, v):
        parts = [self.X.T @ v]
        if self.rest is not None:
            parts.append(self.rest.T @ v)
        parts.append(self.first_transposed @ v)
        return np.concatenate(parts)

    def dense(self):
        parts = [self.X]
        if self.rest is not None:
            parts.append(self.rest.toarray())
        return np.concatenate([*parts, self.first.toarray()], axis=1)

    def gram(self, weight):
        """``sum_i weight_i x_i x_i'`` as an ArrowGram."""
        p, root = self.layout.width, self.layout.n_root
        n_levels, q = self.layout.first
        X, WX = self.X, self.X * weight[:, None]
        out = np.empty((root, root))
        out[:p, :p] = X.T @ WX
        links = None
        if self.rest is not None:
            weighted = _row_scaled(self.rest, weight)
            out[p:, :p] = weighted.T @ X
            out[:p, p:] = out[p:, :p].T
            out[p:, p:] = (weighted.T @ self.rest).toarray()
            links = sparse.csr_array(_row_scaled(self.first, weight).T @ self.rest)
        blocks = np.empty((n_levels, q, q))
        code, term = self.codes[0], self.terms[0]
        for a in range(q):
            for b in range(a, q) if n_levels else ():
                each = weight * term[:, a] * term[:, b]
                blocks[:, a, b] = np.bincount(code, each, minlength=n_levels)
                blocks[:, b, a] = blocks[:, a, b]
        return ArrowGram(self.layout, out, self.first_transposed @ WX, links, blocks)


def _row_scaled(matrix, weight):
    data = matrix.data * np.repeat(weight, np.diff(matrix.indptr))
    return sparse.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


class ArrowGram:
    """A normal matrix of grouped rows; ``+`` adds those of more rows.

    Attributes
    ----------
    layout : ArrowLayout
    root : array of shape (n_root, n_root)
        Of the common weights and the further factors.
    cross : array of shape (J q, p)
        First factor by common weights.
    links : sparse array of shape (J q, n_root - p), or None
        First factor by further ones.
    blocks : array of shape (J, q, q)
        The first factor's own.
    """

    def __init__(self, layout, root, cross, links, blocks):
        self.layout = layout
        self.root = root
        self.cross = cross
        self.links = links
        self.blocks = blocks

    def __add__(self, other):
        links = None if self.links is None else self.links + other.links
        return ArrowGram(
            self.layout,
            self.root + other.root,
            self.cross + other.cross,
            links,
            self.blocks + other.blocks,
        )

    def __mul__(self, scale):
        links = None if self.links is None else self.links * scale
        return ArrowGram(
            self.layout,
            self.root * scale,
            self.cross * scale,
            links,
            self.blocks * scale,
        )

    __rmul__ = __mul__

    def coordinates(self):
        """All numbers in one vector."""
        parts = [self.root.ravel(), self.cross.ravel(), self.blocks.ravel()]
        return np.concatenate(
            parts if self.links is None else [*parts, self.links.data]
        )

    def at(self, coordinates):
        """The matrix of other numbers in the same places."""
        sizes = self.root.size, self.cross.size, self.blocks.size
        root, cross, blocks, data = np.split(coordinates, np.cumsum(sizes))
        links = self.links
        if links is not None:
            links = sparse.csr_array(
                (data, links.indices, links.indptr), shape=links.shape
            )
        return ArrowGram(
            self.layout,
            root.reshape(self.root.shape),
            cross.reshape(self.cross.shape),
            links,
            blocks.reshape(self.blocks.shape),
        )

    def plus_prior(self, ridge, precisions):
        """With the precisions of the common weights (p,) and of each factor's levels.

        Returns
        -------
        root, blocks : arrays
        """
        p, root = self.layout.width, self.root.copy()
        root[np.arange(p), np.arange(p)] += ridge
        for f, precision in enumerate(precisions[1:], start=1):
            at = self.layout.positions(f)
            root[at[:, :, None], at[:, None, :]] += precision
        blocks = self.blocks + precisions[0] if precisions else self.blocks
        return root, blocks
