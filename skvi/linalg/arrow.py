r"""Arrow precisions: one factor's levels touch each other only through the rest.

With theta = (r, u), r the *root* (common weights and further factors) and u the first
factor's effects,

.. math::

    P = \begin{pmatrix} A & B^T \\ B & D \end{pmatrix}, \qquad
    S = A - B^T D^{-1} B, \quad G = D^{-1} B,

D is block-diagonal and B sparse but for the columns of the common weights, so that u is
eliminated in time linear in its levels, and a Cholesky factor of the root's S is all
that is dense. With C = S^-1 the covariance's blocks are

.. math::

    \mathrm{Cov}(r) = C, \qquad \mathrm{Cov}(u, r) = -G C, \qquad
    \mathrm{Cov}(u_g) = D_g^{-1} + G_g C G_g^T.
"""

from functools import cached_property

import numpy as np
from scipy import linalg, sparse

from skvi.linalg.covariance import symmetric_operator
from skvi.linalg.precision import DensePrecision, VarianceSum

CHUNK = 1 << 22  # numbers of G C that are held at a time
MOST_DENSE = 4096  # dimensions of a covariance that is formed as a matrix


def batched_inverse(blocks):
    """(inverse Cholesky factors, inverses) of positive definite blocks (J, q, q)."""
    if blocks.shape[-1] == 1:
        if np.any(blocks <= 0.0) or not np.all(np.isfinite(blocks)):
            raise linalg.LinAlgError("a level's precision is not positive")
        root = 1.0 / np.sqrt(blocks)
        return root, root * root
    factor = np.linalg.inv(np.linalg.cholesky(blocks))
    return factor, np.swapaxes(factor, -1, -2) @ factor


class ArrowPrecision(VarianceSum):
    """P of an ArrowGram and a prior.

    Parameters
    ----------
    gram : ArrowGram
    ridge : array of shape (p,)
        Prior precisions of the common weights.
    precisions : list of arrays of shape (q_f, q_f)
        Prior precision of a level's effects, by factor.
    """

    def __init__(self, gram, ridge, precisions):
        self.layout = layout = gram.layout
        self.dim = layout.dim
        p = layout.width
        root, blocks = gram.plus_prior(ridge, precisions)
        self.factor, self.inverse = batched_inverse(blocks)
        n_levels, q = layout.first
        cross = gram.cross.reshape(n_levels, q, p)
        white = self.factor @ cross
        flat = white.reshape(n_levels * q, p)
        self.gain = np.swapaxes(self.factor, -1, -2) @ white  # G's dense columns
        root[:p, :p] -= flat.T @ flat
        self.links = None
        if gram.links is not None:
            each = self._blockwise(self.factor) @ gram.links
            root[p:, :p] -= each.T @ flat
            root[:p, p:] = root[p:, :p].T
            root[p:, p:] -= (each.T @ each).toarray()
            lower = self._blockwise(np.swapaxes(self.factor, -1, -2))
            self.links = sparse.csr_array(lower @ each)  # G's sparse columns
        self.root = DensePrecision(root)

    @classmethod
    def of_parts(cls, layout, inverse, gain, root):
        """From D^-1, (J, q, q), G, (J, q, p), and S: of one factor."""
        self = object.__new__(cls)
        self.layout, self.dim = layout, layout.dim
        self.inverse = inverse
        self.factor = np.swapaxes(np.linalg.cholesky(inverse), -1, -2)
        self.gain, self.links = gain, None
        self.root = DensePrecision(root)
        return self

    def _blockwise(self, blocks):
        n, q = len(blocks), blocks.shape[-1]
        if q == 1:
            return sparse.diags_array(blocks.ravel(), format="csr")
        return sparse.csr_array(
            sparse.bsr_array(
                (np.ascontiguousarray(blocks), np.arange(n), np.arange(n + 1)),
                shape=(n * q, n * q),
            )
        )

    # -- G -----------------------------------------------------------------------------

    @property
    def _flat_gain(self):
        n_levels, q = self.layout.first
        return self.gain.reshape(n_levels * q, self.layout.width)

    def _gain_dot(self, root):
        """``G r`` for r of shape (n_root, k)."""
        p = self.layout.width
        out = self._flat_gain @ root[:p]
        return out if self.links is None else out + self.links @ root[p:]

    def _gain_tdot(self, u):
        head = self._flat_gain.T @ u
        if self.links is None:
            return head
        return np.concatenate([head, self.links.T @ u])

    def _coupled(self, start, stop):
        """``G C`` of some levels, (levels, q, n_root)."""
        p, (_, q) = self.layout.width, self.layout.first
        C = self.root.covariance()
        out = self.gain[start:stop] @ C[:p]
        if self.links is not None:
            some = self.links[start * q : stop * q] @ C[p:]
            out = out + some.reshape(stop - start, q, -1)
        return out

    def _chunks(self):
        n_levels, q = self.layout.first
        step = max(1, CHUNK // max(1, q * self.layout.n_root))
        for start in range(0, n_levels, step):
            yield start, min(start + step, n_levels)

    @cached_property
    def _whole(self):
        """``G C`` if it is small enough to keep."""
        chunks = list(self._chunks())
        return self._coupled(*chunks[0]) if len(chunks) == 1 else None

    def _coupled_by_chunk(self):
        for start, stop in self._chunks():
            whole = self._whole
            yield start, stop, self._coupled(start, stop) if whole is None else whole

    # -- marginal covariances ----------------------------------------------------------

    @cached_property
    def _first_blocks(self):
        p, (_, q) = self.layout.width, self.layout.first
        out = self.inverse.copy()
        for start, stop, T in self._coupled_by_chunk():
            out[start:stop] += T[..., :p] @ np.swapaxes(self.gain[start:stop], -1, -2)
            if self.links is None:
                continue
            for b in range(q):
                some = self.links[start * q + b : stop * q : q]
                level = np.repeat(np.arange(stop - start), np.diff(some.indptr))
                for a in range(q):
                    each = some.data * T[level, a, p + some.indices]
                    out[start:stop, a, b] += np.bincount(
                        level, each, minlength=stop - start
                    )
        return 0.5 * (out + np.swapaxes(out, -1, -2))

    @cached_property
    def _root_blocks(self):
        """Blocks of the root's covariance: common weights, levels of each factor."""
        p, C = self.layout.width, self.root.covariance()
        ats = [self.layout.positions(f) for f in range(1, len(self.layout.factors))]
        levels = [C[at[:, :, None], at[:, None, :]] for at in ats]
        return [C[:p, :p].copy(), *levels]

    def blocks(self, factor):
        """Covariances of the effects of each level, (J, q, q)."""
        return self._first_blocks if factor == 0 else self._root_blocks[factor]

    def common_covariance(self):
        """Covariance of the common weights, (p, p)."""
        return self._root_blocks[0]

    def let_go(self):
        """Forget what is large and can be computed again."""
        self.__dict__.pop("_whole", None)
        self.root.let_go()

    def variances(self):
        first = np.diagonal(self._first_blocks, axis1=-2, axis2=-1)
        return np.concatenate([self.root.variances(), first.ravel()])

    def covariance(self):
        """A matrix; a LinearOperator where that would be large."""
        if self.dim > MOST_DENSE:
            return symmetric_operator(self.dim, self.solve)
        C = self.solve(np.eye(self.dim))
        return 0.5 * (C + C.T)

    # -- what every precision answers --------------------------------------------------

    def solve(self, b):
        b = np.asarray(b)
        flat = b[:, None] if b.ndim == 1 else b
        R, (n_levels, q) = self.layout.n_root, self.layout.first
        u = flat[R:].reshape(n_levels, q, flat.shape[1])
        root = self.root.solve(flat[:R] - self._gain_tdot(flat[R:]))
        out = (self.inverse @ u).reshape(flat[R:].shape) - self._gain_dot(root)
        return np.concatenate([root, out]).reshape(b.shape)

    def logdet(self):
        diagonal = np.diagonal(self.factor, axis1=-2, axis2=-1)
        return self.root.logdet() - 2.0 * np.log(diagonal).sum()

    def sample(self, n, rng):
        n_levels, q = self.layout.first
        root = self.root.sample(n, rng)
        noise = rng.standard_normal((n, n_levels, 1, q))
        u = (noise @ self.factor).reshape(n, n_levels * q)
        return np.concatenate([root, u - self._gain_dot(root.T).T], axis=1)

    def quadratic(self, z):
        """``z' P z`` for every row of z."""
        R, (n_levels, q) = self.layout.n_root, self.layout.first
        root = z[:, :R]
        u = z[:, R:] + self._gain_dot(root.T).T
        # D = (F' F)^-1 for F = factor.
        u = u.reshape(len(z), n_levels, q, 1)
        white = np.linalg.solve(np.swapaxes(self.factor, -1, -2), u)
        return self.root.quadratic(root) + (white**2).sum(axis=(1, 2, 3))

    def of_predictors(self, rows):
        """Variances of each row's linear predictor."""
        out = _root_variances(self.root.covariance(), rows)
        if not self.layout.factors:
            return out
        code, term = rows.codes[0], rows.terms[0]
        out += np.einsum("na,nab,nb->n", term, self._first_blocks[code], term)
        if self._whole is not None:
            return out - 2.0 * self._crossed(rows, code, self._whole)
        order = np.argsort(code, kind="stable")
        ranked = code[order]
        for start, stop, T in self._coupled_by_chunk():
            some = order[slice(*np.searchsorted(ranked, [start, stop]))]
            some_rows = rows[some]
            out[some] -= 2.0 * self._crossed(some_rows, code[some] - start, T)
        return out

    def _crossed(self, rows, code, T):
        """``t' (G C)_g r`` of each row."""
        p, term = self.layout.width, rows.terms[0]
        out = np.einsum("na,nap,np->n", term, T[code, :, :p], rows.X)
        if rows.rest is not None:
            columns, values = rows.root_entries
            for k in range(values.shape[1]):
                each = T[code, :, columns[:, k]]
                out += values[:, k] * np.einsum("na,na->n", term, each)
        return out

    def inner(self, rows):
        """Covariance of the rows' linear predictors."""
        Z = rows.dense()
        return Z @ self.solve(Z.T)

    def __getstate__(self):
        # Rebuilt when asked for.
        dropped = "_whole", "_first_blocks", "_root_blocks"
        state = {k: v for k, v in self.__dict__.items() if k not in dropped}
        if self.links is not None:  # plain arrays
            links = self.links
            state["links"] = links.data, links.indices, links.indptr, links.shape
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        if self.links is not None:
            *parts, shape = self.links
            self.links = sparse.csr_array(tuple(parts), shape=shape)


def _root_variances(C, rows):
    p, X = rows.layout.width, rows.X
    out = np.einsum("np,np->n", X @ C[:p, :p], X)
    if rows.rest is None:
        return out
    columns, values = rows.root_entries
    for k in range(values.shape[1]):
        along = np.einsum("np,np->n", C[columns[:, k], :p], X)
        out += 2.0 * values[:, k] * along
        for m in range(values.shape[1]):
            out += values[:, k] * values[:, m] * C[columns[:, k], columns[:, m]]
    return out


class ArrowBlocks(VarianceSum):
    """The diagonal blocks of an arrow precision alone: blocks are independent.

    Parameters are those of ArrowPrecision. The common weights are one block, the
    effects of each level another.
    """

    def __init__(self, gram, ridge, precisions):
        self.layout = layout = gram.layout
        self.dim = layout.dim
        p = layout.width
        root, blocks = gram.plus_prior(ridge, precisions)
        self.common = DensePrecision(root[:p, :p])
        parts = [blocks] if layout.factors else []
        for f in range(1, len(layout.factors)):
            at = layout.positions(f)
            parts.append(root[at[:, :, None], at[:, None, :]])
        self.parts = [batched_inverse(part) for part in parts]

    def _views(self, z):
        """(common, [levels' effects by factor]) of vectors on the last axis."""
        common = z[..., : self.layout.width]
        levels = [z[..., self.layout.positions(f)] for f in range(len(self.parts))]
        return common, levels

    def _joined(self, common, levels):
        out = np.empty((*common.shape[:-1], self.dim))
        out[..., : self.layout.width] = common
        for f, each in enumerate(levels):
            out[..., self.layout.positions(f)] = each
        return out

    def blocks(self, factor):
        return self.parts[factor][1]

    def common_covariance(self):
        return self.common.covariance()

    def solve(self, b):
        b = np.asarray(b)
        common, levels = self._views(b.reshape(self.dim, -1).T)
        levels = [
            (inverse @ each[..., None])[..., 0]
            for (_, inverse), each in zip(self.parts, levels)
        ]
        out = self._joined(self.common.solve(common.T).T, levels)
        return out.T.reshape(b.shape)

    def logdet(self):
        total = self.common.logdet()
        for factor, _ in self.parts:
            diagonal = np.diagonal(factor, axis1=-2, axis2=-1)
            total -= 2.0 * np.log(diagonal).sum()
        return total

    def variances(self):
        levels = [np.diagonal(c, axis1=-2, axis2=-1) for _, c in self.parts]
        return self._joined(self.common.variances(), levels)

    def covariance(self):
        """A matrix; a LinearOperator where that would be large."""
        if self.dim > MOST_DENSE:
            return symmetric_operator(self.dim, self.solve)
        return self.solve(np.eye(self.dim))

    def sample(self, n, rng):
        common = self.common.sample(n, rng)
        levels = []
        for factor, _ in self.parts:
            noise = rng.standard_normal((n, len(factor), 1, factor.shape[-1]))
            levels.append((noise @ factor)[:, :, 0])
        return self._joined(common, levels)

    def quadratic(self, z):
        common, levels = self._views(z)
        out = self.common.quadratic(common)
        for (factor, _), each in zip(self.parts, levels):
            white = np.linalg.solve(np.swapaxes(factor, -1, -2), each[..., None])
            out = out + (white**2).sum(axis=(1, 2, 3))
        return out

    def of_predictors(self, rows):
        """Variances of each row's linear predictor."""
        out = np.einsum("np,np->n", rows.X @ self.common.covariance(), rows.X)
        for (_, C), code, term in zip(self.parts, rows.codes, rows.terms):
            out += np.einsum("na,nab,nb->n", term, C[code], term)
        return out

    def inner(self, rows):
        """Covariance of the rows' linear predictors."""
        Z = rows.dense()
        return Z @ self.solve(Z.T)
