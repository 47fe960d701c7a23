"""The precision of Gaussian chains: block-tridiagonal, steps of a kind alike."""

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from skvi.kernels import tridiagonal

SETTLED = 1e-13  # relative change of a precision that is rounding
ROOM = 256  # different steps to begin with


def pair_shares(first, second, weight):
    """The different pairs of two labels of steps, and the weight of each.

    Returns
    -------
    first, second : arrays of int of shape (n,)
    share : array of shape (n,)
        Sums of the weights of the steps that have the pair.
    """
    n = int(second.max()) + 1
    code = first * n + second
    if int(code.max()) < 4 * len(code):  # no need to sort
        share = np.bincount(code, weights=weight)
        pairs = np.flatnonzero(np.bincount(code))
        share = share[pairs]
    else:
        pairs, pair = np.unique(code, return_inverse=True)
        share = np.bincount(pair.reshape(-1), weights=weight)
    return pairs // n, pairs % n, share


@dataclass(frozen=True)
class StepCovariances:
    """Covariances of steps, each stored once where many steps share it.

    Attributes
    ----------
    variances : array of shape (n, d, d)
    lagged : array of shape (n, d, d)
        ``cov(x_t, x_{t+1})``, zero at the end of a sequence.
    whose : array of int of shape (T,)
        Which of them a step has.
    """

    variances: np.ndarray
    lagged: np.ndarray
    whose: np.ndarray

    def of_steps(self):
        """The variance of every step, (T, d, d)."""
        return self.variances[self.whose]

    def lagged_of_steps(self):
        return self.lagged[self.whose]


class BlockTridiagonalPrecision:
    """P of chains ``x_t ~ N(A x_{t-1}, Q)`` with further information about each step.

    With L = Q^-1 its blocks are ``K_t + L [not first] + A'LA [not last]`` on the
    diagonal and ``-LA`` below it. Several sequences stand one after the other; there is
    no block between them.

    Parameters
    ----------
    information : array of shape (n_kinds, d, d)
        K_t of each kind of steps; the first and the last step of a sequence are of
        kinds of their own.
    kind : array of int of shape (T,)
    matrix : array of shape (d, d)
        A.
    covariance : array of shape (d, d)
        Q.
    precision : array of shape (d, d)
        L.
    begins : array of uint8 of shape (T + 1,)
        Marks of first steps, and of the step after the last.
    """

    def __init__(self, information, kind, matrix, covariance, precision, begins):
        as_floats = partial(np.ascontiguousarray, dtype=np.float64)
        self.information = as_floats(information)
        self.kind = np.ascontiguousarray(kind, dtype=np.int64)
        self.matrix = as_floats(matrix)
        self.covariance = as_floats(covariance)
        self.precision = as_floats(precision)
        self.begins = np.ascontiguousarray(begins, dtype=np.uint8)
        self.off = self.precision @ self.matrix
        self.back = as_floats(self.matrix.T @ self.off)

    @cached_property
    def blocks(self):
        """The diagonal blocks of each kind, (n_kinds, d, d)."""
        n = len(self.information)
        first, last = np.zeros((2, n, 1, 1), dtype=bool)
        first[self.kind, 0, 0] = self.begins[:-1]
        last[self.kind, 0, 0] = self.begins[1:]
        inner = np.where(first, 0.0, self.precision) + np.where(last, 0.0, self.back)
        return self.information + inner

    @property
    def n_steps(self):
        return self.kind.shape[0]

    @property
    def dim(self):
        return self.matrix.shape[0]

    def _rooms(self):
        """Numbers of different steps to try: all of them where most differ."""
        n, room = self.n_steps, ROOM + 4 * len(self.information)
        while room < n // 2:
            yield room
            room *= 8
        yield n

    @property
    def factors(self):
        """(S^-1, G, log|S|, which): see the kernel."""
        return self._eliminated[:-1]

    @property
    def predicted(self):
        """The precision of a step given those before it, of each different step."""
        return self._eliminated[-1]

    @cached_property
    def _eliminated(self):
        d, which = self.dim, np.empty(self.n_steps, dtype=np.int64)
        for room in self._rooms():
            inverses, gains, predicted = np.empty((3, room, d, d))
            log_dets = np.empty(room)
            n, step = tridiagonal.eliminate(
                self.information,
                self.matrix,
                self.covariance,
                self.back,
                self.kind,
                self.begins,
                inverses,
                gains,
                log_dets,
                which,
                predicted,
                SETTLED,
            )
            if n >= 0:
                return inverses[:n], gains[:n], log_dets[:n], which, predicted[:n]
            if n == -1:
                raise np.linalg.LinAlgError(
                    f"The precision of the chain is not positive definite at step "
                    f"{step}, to working precision: a variance or a prior is out of "
                    "proportion to the others. Give it another size, or leave it out."
                )
        raise AssertionError("room for every step")

    def log_dets(self):
        """Each step's share of log|P|."""
        _, _, log_dets, which = self.factors
        return log_dets[which]

    def logdet(self):
        return float(self.log_dets().sum())

    def forward(self, h):
        """Linear terms given those of the steps before: g of the kernel."""
        _, gains, _, which = self.factors
        g = np.array(h, dtype=np.float64, order="C")
        tridiagonal.forward(gains, which, self.begins, g)
        return g

    def solve(self, h):
        """``P^-1 h`` for h of shape (T, d)."""
        inverses, gains, _, which = self.factors
        m = self.forward(h)
        tridiagonal.backward(inverses, gains, which, self.begins, m)
        return m

    @cached_property
    def covariances(self):
        inverses, gains, _, which = self.factors
        d, whose = self.dim, np.empty(self.n_steps, dtype=np.int64)
        n = -2
        for room in self._rooms():
            variances, lagged = np.empty((2, room, d, d))
            n = tridiagonal.covariances(
                inverses,
                gains,
                which,
                self.begins,
                variances,
                lagged,
                whose,
                SETTLED,
            )
            if n >= 0:
                break
        return StepCovariances(variances[:n], lagged[:n], whose)

    def innovations(self, matrix, weight):
        """``sum_t weight_t cov(x_t - A x_{t-1})`` for the A of the chain.

        By ``Q - QPQ + QP V PQ`` with the precision P of x_t given the past: relative to
        Q, a difference of covariances of x would have few digits where noise is small.
        """
        found, which, Q = self.covariances, self.factors[-1], self.covariance
        factor, variance, share = pair_shares(which, found.whose, weight)
        P, V = self.predicted[factor], found.variances[variance]
        each = Q - Q @ P @ Q + Q @ P @ V @ P @ Q
        return np.tensordot(share, each, 1)

    def sample(self, n, rng):
        """Draws of N(0, P^-1), (n, T, d): the last step of a sequence first."""
        inverses, gains, _, which = self.factors
        roots = np.linalg.cholesky(inverses)
        out = rng.standard_normal((n, self.n_steps, self.dim))
        for t in range(self.n_steps - 1, -1, -1):
            out[:, t] = out[:, t] @ roots[which[t]].T
            if not self.begins[t + 1]:
                out[:, t] += out[:, t + 1] @ gains[which[t]].T
        return out

    def quadratic(self, z):
        """``z' P z`` for draws z of shape (n, T, d)."""
        blocks = self.blocks[self.kind]
        total = np.einsum("nti,tij,ntj->n", z, blocks, z, optimize=True)
        inner = np.flatnonzero(self.begins[1:-1] == 0)
        cross = np.einsum("nti,ij,ntj->n", z[:, inner + 1], self.off, z[:, inner])
        return total - 2.0 * cross


class BlockDiagonalPrecision:
    """The diagonal blocks of a BlockTridiagonalPrecision: steps independent."""

    def __init__(self, blocks, kind):
        self.blocks = np.asarray(blocks, dtype=np.float64)
        self.kind = kind

    @property
    def n_steps(self):
        return self.kind.shape[0]

    @property
    def dim(self):
        return self.blocks.shape[-1]

    def log_dets(self):
        return np.linalg.slogdet(self.blocks)[1][self.kind]

    def logdet(self):
        return float(self.log_dets().sum())

    @cached_property
    def covariances(self):
        variances = np.linalg.inv(self.blocks)
        variances = 0.5 * (variances + np.swapaxes(variances, 1, 2))
        return StepCovariances(variances, np.zeros_like(variances), self.kind)

    def innovations(self, matrix, weight):
        """``sum_t weight_t cov(x_t - A x_{t-1})``."""
        before = np.append(weight[1:], 0.0)  # of x_{t-1}
        now, past = (
            np.bincount(self.kind, weights=w, minlength=len(self.blocks))
            for w in (weight, before)
        )
        V = self.covariances.variances
        past = np.tensordot(past, V, 1)
        return np.tensordot(now, V, 1) + matrix @ past @ matrix.T

    def sample(self, n, rng):
        roots = np.linalg.cholesky(self.covariances.variances)[self.kind]
        noise = rng.standard_normal((n, self.n_steps, self.dim))
        return np.einsum("tij,ntj->nti", roots, noise)

    def quadratic(self, z):
        blocks = self.blocks[self.kind]
        return np.einsum("nti,tij,ntj->n", z, blocks, z, optimize=True)
