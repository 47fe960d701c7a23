r"""Covariances beyond those of q: linear response, and averages over components.

q holds effects and variance components independent of each other. The covariances that
this loses are the derivatives of q's means in tilts of the log joint (Giordano,
Broderick & Jordan 2018, eq. 9). All coupling goes through few numbers: lambda, the
elements of every ``E S_f^-1`` and of ``E 1/sigma^2``, and s, the expected squares that
go with them in the log joint, ``-lambda's / 2``. With

.. math::

    K = -2\, \frac{ds}{d\lambda}, \quad M = \frac{dm}{d\lambda} \qquad
        &\text{(effects at their optimum for each } \lambda \text{)}, \\
    V = -2\, \frac{d\lambda}{ds}, \quad c = \frac{d\lambda}{dt}, \quad
    v = \frac{d\, E g}{dt} \qquad
        &\text{(components at theirs, t a tilt of their log sds g)},

the corrected covariances are, with ``A = (I - V K / 4)^-1``,

.. math::

    \mathrm{Cov}(g) = v + \tfrac14 c^T K A c, \quad
    \mathrm{Cov}(\lambda) = A V, \quad \mathrm{Cov}(\lambda, g) = A c, \quad
    \mathrm{Cov}(\theta) = \mathrm{Cov}(\theta \mid \lambda)
        + M\, \mathrm{Cov}(\lambda)\, M^T.

The derivatives are central differences of the converged updates, so that a likelihood's
sites respond, too, and crossed factors cost no more code than one: twice as many solves
as there are lambdas.

Linear response knows no more than the first two moments at q's own mean, while log sds
are skewed where groups are few. So the bound of ``log p(y | g)``, plus the log prior,
is looked at along the principal axes of Cov(g), at few Gauss-Hermite nodes each (as
Rue, Martino & Chopin 2009 do, section 6.5): nodes are weighted anew by it, and give the
mean and variance of g along the axis, and what the law of total covariance asks for,
the averages over g of ``m(g)`` and ``Cov(theta | g)`` and the covariance of m(g). What
lambda moves by besides g (correlations) enters by linear response.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from skvi.models.mixed.families import Structured
from skvi.models.mixed.law import EffectsLaw

N_NODES = 5  # along an axis
N_NODES_OF_MANY, MANY = 3, 500  # where a solve has a dense matrix of that order
STEP = 1e-3  # relative, of differences in lambda and in s
TILT = 1e-2
NO_RESPONSE = (
    "posterior_covariance='linear_response' is not defined where the ELBO has no "
    "strict maximum: raise max_iter, or give sd_prior a smaller scale."
)


def linear_response(model, block, q):
    """The corrected EffectsLaw of a fit."""
    problem = _Problem(model, block, q)
    n = len(problem.elements)
    if n == 0:  # no variance components
        gaussian = problem.effects([], Structured)
        return EffectsLaw(gaussian.mean, [gaussian.precision], {}, None)
    K, M = problem.of_effects()
    V, c, v = problem.of_components()
    coupled = np.eye(n) - 0.25 * V @ K
    if np.max(np.abs(np.linalg.eigvals(0.25 * V @ K))) >= 1.0:
        raise ValueError(NO_RESPONSE)
    joint = np.linalg.solve(coupled, np.hstack([V, c]))
    of_lambda, cross = joint[:, :n], joint[:, n:]
    of_logs = v + 0.25 * c.T @ K @ cross
    of_logs = 0.5 * (of_logs + of_logs.T)
    values, axes = np.linalg.eigh(of_logs)
    if values[0] <= 0.0:
        raise ValueError(NO_RESPONSE)
    rest = of_lambda - cross @ np.linalg.solve(of_logs, cross.T)
    values_of_rest, vectors = np.linalg.eigh(0.5 * (rest + rest.T))
    along = M @ (vectors * np.sqrt(np.maximum(values_of_rest, 0.0)))
    return problem.law(axes * np.sqrt(values), along)


class _Problem:
    """The updates as functions of lambda, s and tilts."""

    def __init__(self, model, block, q):
        self.model = model
        self.block = block
        self.q = q
        self.laws = dict(q.components)
        self.priors = dict(model.priors)
        self.counts = [float(J) for J, _ in model.layout.factors]
        if q.noise is not None:
            self.laws["noise"] = q.noise
            self.priors["noise"] = model.noise_prior
            self.counts.append(float(block.weight.sum()))
        self.precisions = [law.mean_precision for law in self.laws.values()]
        self.squares = model.squares(block, q.gaussian, self.precisions)
        self.elements = [
            (f, a, b)
            for f, law in enumerate(self.laws.values())
            for a in range(law.dim)
            for b in range(a, law.dim)
        ]

    def _sums(self, squares):
        """s: every element counts as often as it stands in the matrix."""
        return np.array(
            [(1.0 + (a != b)) * squares[f][a, b] for f, a, b in self.elements]
        )

    def _lambdas(self, matrices):
        return np.array([matrices[f][a, b] for f, a, b in self.elements])

    def _steps(self, matrices):
        """Yield (matrices moved up, moved down, step) for each element."""
        for f, a, b in self.elements:
            S = matrices[f]
            step = STEP * np.sqrt(S[a, a] * S[b, b])
            pair = []
            for sign in (1.0, -1.0):
                moved = [matrix.copy() for matrix in matrices]
                moved[f][a, b] += sign * step
                if a != b:
                    moved[f][b, a] += sign * step
                pair.append(moved)
            yield *pair, step

    def of_effects(self):
        """(K, M)."""
        K, M = [], []
        for up, down, step in self._steps(self.precisions):
            ends = []
            for precisions in (up, down):
                gaussian = self.effects(precisions)
                squares = self.model.squares(self.block, gaussian, precisions)
                ends.append((self._sums(squares), gaussian.mean))
            K.append(-(ends[0][0] - ends[1][0]) / step)
            M.append(0.5 * (ends[0][1] - ends[1][1]) / step)
        n = len(self.elements)
        K = np.reshape(K, (n, n))
        return 0.5 * (K + K.T), np.reshape(M, (n, self.model.layout.dim)).T

    def effects(self, precisions, family=None):
        return self.model.effects(self.block, precisions, self.q.gaussian, family)

    def of_components(self):
        """(V, c, v)."""
        n = len(self.elements)
        V, c, v = np.zeros((n, n)), [], []
        for k, (up, down, step) in enumerate(self._steps(self.squares)):
            f, a, b = self.elements[k]
            moved = [self._absorb(f, squares[f]) for squares in (up, down)]
            change = self._change(f, *moved) / (2.0 * step * (1.0 + (a != b)))
            V[:, k] = -2.0 * change
        for f, law in enumerate(self.laws.values()):
            for k in range(law.dim):
                tilt = np.zeros(law.dim)
                tilt[k] = TILT
                ends = [self._absorb(f, self.squares[f], t) for t in (tilt, -tilt)]
                c.append(self._change(f, *ends) / (2.0 * TILT))
                each = np.zeros(sum(other.dim for other in self.laws.values()))
                start = sum(other.dim for other in list(self.laws.values())[:f])
                logs = 0.5 * (ends[0].log_variances - ends[1].log_variances)
                each[start : start + law.dim] = logs / (2.0 * TILT)
                v.append(each)
        d = len(c)
        return 0.5 * (V + V.T), np.reshape(c, (d, n)).T, np.reshape(v, (d, d))

    def _absorb(self, f, square, tilt=None):
        name = list(self.laws)[f]
        prior, law = self.priors[name], self.laws[name]
        return prior.absorb(self.counts[f], square, law, tilt)

    def _change(self, f, up, down):
        """Of all lambdas, when component f goes from down to up."""
        out = np.zeros(len(self.elements))
        gap = up.mean_precision - down.mean_precision
        for k, (g, a, b) in enumerate(self.elements):
            if g == f:
                out[k] = gap[a, b]
        return out

    def law(self, root, along):
        """The averages over the log sds, whose axes are the columns of ``root``."""
        d = len(root)
        nodes, weights = special.roots_hermitenorm(
            N_NODES if self.model.layout.n_root <= MANY else N_NODES_OF_MANY
        )
        middle = len(nodes) // 2
        start = self._point(np.zeros(d))
        moments, columns = np.empty((d, 2)), [along]
        means, precisions, shares = start.mean.copy(), [start.precision], [1.0]
        for axis in range(d):
            points = [
                start if k == middle else self._point(node * root[:, axis])
                for k, node in enumerate(nodes)
            ]
            logs = np.array([point.log_density for point in points])
            share = weights * np.exp(logs - logs.max() + 0.5 * nodes**2)
            share = share / share.sum()
            mean = share @ nodes
            moments[axis] = mean, share @ (nodes - mean) ** 2
            stack = np.stack([point.mean for point in points])
            average = share @ stack
            means += average - start.mean
            columns.append((stack - average).T * np.sqrt(share))
            shares[0] += share[middle] - 1.0
            for k, point in enumerate(points):
                if k != middle:
                    precisions.append(point.precision)
                    shares.append(share[k])
        shift = root @ moments[:, 0]
        sds = np.sqrt((root**2) @ moments[:, 1])
        components, log_sd, at = {}, {}, 0
        for name, law in self.laws.items():
            some = slice(at, at + law.dim)
            log_sd[name] = sds[some]
            spread = 4.0 * np.mean(sds[some] ** 2)
            components[name] = law.with_spread(spread).rescaled(np.exp(shift[some]))
            at += law.dim
        noise = components.pop("noise", None) if self.q.noise is not None else None
        return EffectsLaw(
            means,
            precisions,
            components,
            noise,
            shares,
            np.concatenate(columns, axis=1),
            log_sd,
        )

    def _point(self, shift):
        """Effects, and the log density of the log sds, that far from their means."""
        precisions, prior = [], 0.0
        at = 0
        for name, law in self.laws.items():
            log_sd = 0.5 * law.log_variances + shift[at : at + law.dim]
            ratio = np.exp(log_sd) / np.sqrt(np.diag(law.scale))
            S = law.scale * np.outer(ratio, ratio)
            precisions.append(np.linalg.inv(S))
            # At known correlations dS is the product of its sds' powers q + 1.
            prior += self.priors[name].log_density(S[None])[0]
            prior += (law.dim + 1.0) * log_sd.sum()
            at += law.dim
        gaussian = self.effects(precisions, Structured)
        squares = self.model.squares(self.block, gaussian, precisions)
        bound = self.model.evidence(self.block, gaussian, squares, precisions)
        return _Point(gaussian.mean, gaussian.precision, prior + bound)


class _Point(NamedTuple):
    mean: np.ndarray
    precision: object
    log_density: float
