r"""Posteriors of variance components beyond q's, and effects averaged over them.

q holds effects and variance components independent of each other. The covariances that
this loses are the derivatives of q's means in tilts of the log joint (Giordano,
Broderick & Jordan 2018, eq. 9). All coupling goes through few numbers: lambda, the
elements of every ``E S_f^-1`` and of ``E 1/sigma^2``, and s, the expected squares that
go with them in the log joint, ``-lambda's / 2``. Let theta be unconstrained coordinates
of the S_f and of sigma (``coordinates``). With

.. math::

    K = -2\, \frac{ds}{d\lambda} \;
        \text{(effects at their optimum for each } \lambda \text{)}, \quad
    V = -2\, \frac{d\lambda}{ds} \; \text{(components at theirs)},

and ``c = Cov_q(lambda, theta), v = Cov_q(theta)`` the corrected covariance is

.. math::

    \mathrm{Cov}(\theta) = v + \tfrac14 c^T K (I - \tfrac14 V K)^{-1} c.

The derivatives are central differences of the converged updates, so that a likelihood's
sites respond, too, and crossed factors cost no more code than one: twice as many solves
as there are lambdas.

Linear response knows no more than the curvature at q's own mean, while components are
skewed where groups are few or a variance is near zero. So the bound of ``log p(y |
theta)``, plus the log prior, is explored along the principal axes of Cov(theta), to
both sides until it has fallen by ``DEEP`` nats (as Rue, Martino & Chopin 2009, section
6.5, explore theta). Its averages along an axis correct those of the middle, f(0), ::

    E f = f(0) + sum over axes (E_axis f - f(0)),

for whatever is a function of theta: log sds and correlations, the effects' means m and
conditional covariances; the law of total covariance adds the covariance of m.

Of one factor with one or two effects a level, and rows that are not Gaussian, that
bound is taken from quadrature over each level (``levels.py``), which costs no more and
leaves no gap for levels of few rows.

What axes do to each other is not seen along one. To first order the spread along j
moves the mean along i by half the third derivative, once in i and twice in j (the
skewness term of Laplace's method); nodes along i are tilted by the sum of these, which
takes four more points for every pair of axes.
"""

from typing import NamedTuple

import numpy as np
from scipy import linalg, special

from skvi.distributions import Gaussian
from skvi.models.mixed.families import Structured
from skvi.models.mixed.law import NOISE, EffectsLaw, Moments
from skvi.models.mixed.levels import LevelQuadrature

STEP = 1e-3  # relative, of differences in lambda and in s
N_SUMS = 1024  # draws of functions of theta, sums over axes
N_DRAWS = 4096  # of covariance matrices, for moments of their coordinates
DEEP = 7.0  # nats
SPACING = 0.5  # of nodes z = sinh(k spacing), in sds of an axis
SPACING_OF_MANY, MANY = 0.8, 500  # where a solve has a dense matrix of that order
MOST_NODES = 24  # to one side
STEPS = 0.3, 2.0  # of variances, at whose roots third derivatives are looked at
MOST_SHIFT = 1.0  # of the mean along an axis, in sds
MOST_TILT = 20.0  # nats, of a node for that
SETTLED = 1e-4  # posterior sds of the effects at a node
LEAST_SHARE = 1e-5  # of a node that is kept
NO_RESPONSE = (
    "posterior_covariance='linear_response' is not defined where the ELBO has no "
    "strict maximum: raise max_iter, or give sd_prior a smaller scale."
)


def linear_response(model, block, q):
    """The corrected EffectsLaw of a fit."""
    problem = _Problem(model, block, q)
    if not problem.elements:  # no variance components
        gaussian = model.effects(block, [], q.gaussian, Structured)
        return EffectsLaw(gaussian.mean, [gaussian.precision], {}, None)
    K, V = problem.of_effects(), problem.of_components()
    product = 0.25 * V @ K
    if np.max(np.abs(np.linalg.eigvals(product))) >= 1.0:
        raise ValueError(NO_RESPONSE)
    middle, v, c = problem.moments()
    cov = v + 0.25 * c.T @ K @ np.linalg.solve(np.eye(len(K)) - product, c)
    values, axes = np.linalg.eigh(0.5 * (cov + cov.T))
    if values[0] <= 0.0:
        raise ValueError(NO_RESPONSE)
    return _Average(problem, middle, axes * np.sqrt(values)).law()


def coordinates(S):
    """Unconstrained coordinates of covariance matrices (..., q, q).

    The log diagonal of the Cholesky factor, and its rows divided by their diagonal
    elements, which are free of scale.
    """
    L = np.linalg.cholesky(S)
    diagonal = np.diagonal(L, axis1=-2, axis2=-1)
    below = (L / diagonal[..., None])[..., *np.tril_indices(S.shape[-1], -1)]
    return np.concatenate([np.log(diagonal), below], axis=-1)


def covariance_at(theta, q):
    """(S, log of the volume of S by theta), the inverse of ``coordinates``."""
    L = np.eye(q)
    L[np.tril_indices(q, -1)] = theta[q:]
    L *= np.exp(theta[:q])[:, None]
    # dS/dL has L_kk^(q - k), once more for its log, and a row's others each L_kk.
    return L @ L.T, (q + 1.0) * theta[:q].sum()


class _Problem:
    """The updates as functions of lambda and s, and the density of theta."""

    def __init__(self, model, block, q):
        self.model = model
        self.block = block
        self.q = q
        self.laws = dict(q.components)
        self.priors = dict(model.priors)
        self.counts = [float(J) for J, _ in model.layout.factors]
        if q.noise is not None:
            self.laws[NOISE] = q.noise
            self.priors[NOISE] = model.noise_prior
            self.counts.append(float(block.weight.sum()))
        self.precisions = [law.mean_precision for law in self.laws.values()]
        self.squares = model.squares(block, q.gaussian, self.precisions)
        self.levels = LevelQuadrature.of(model, block)
        self.elements = [
            (f, a, b)
            for f, law in enumerate(self.laws.values())
            for a in range(law.dim)
            for b in range(a, law.dim)
        ]

    def effects(self, precisions):
        return self.model.effects(self.block, precisions, self.q.gaussian)

    # -- linear response ---------------------------------------------------------------

    def _steps(self, matrices):
        """Yield (matrices moved up, moved down, step) for each element."""
        for f, a, b in self.elements:
            # By what is left of the elements given the others, to stay inside the cone.
            inverse = np.linalg.inv(matrices[f])
            step = STEP / np.sqrt(inverse[a, a] * inverse[b, b])
            pair = []
            for sign in (1.0, -1.0):
                moved = [matrix.copy() for matrix in matrices]
                moved[f][a, b] += sign * step
                if a != b:
                    moved[f][b, a] += sign * step
                pair.append(moved)
            yield *pair, step

    def of_effects(self):
        """K."""
        K = []
        for up, down, step in self._steps(self.precisions):
            ends = []
            for precisions in (up, down):
                gaussian = self.effects(precisions)
                squares = self.model.squares(self.block, gaussian, precisions)
                # An element counts as often as it stands in the matrix.
                ends.append(
                    np.array(
                        [
                            (1.0 + (a != b)) * squares[f][a, b]
                            for f, a, b in self.elements
                        ]
                    )
                )
            K.append(-(ends[0] - ends[1]) / step)
        return 0.5 * (np.array(K) + np.transpose(K))

    def of_components(self):
        """V."""
        n, names = len(self.elements), list(self.laws)
        V = np.zeros((n, n))
        for k, (up, down, step) in enumerate(self._steps(self.squares)):
            f, a, b = self.elements[k]
            prior, law = self.priors[names[f]], self.laws[names[f]]
            ends = [
                prior.absorb(self.counts[f], squares[f], law).mean_precision
                for squares in (up, down)
            ]
            change = (ends[0] - ends[1]) / (step * (1.0 + (a != b)))
            for row, (g, i, j) in enumerate(self.elements):
                if g == f:
                    V[row, k] = -change[i, j]
        return 0.5 * (V + V.T)

    def moments(self):
        """(E theta, its covariance, that with lambda) under q."""
        rng, middle, v, c = np.random.default_rng(0), [], [], []
        for law in self.laws.values():
            if law.dim == 1:
                middle.append(0.5 * law.log_variances)
                v.append(np.array([[0.25 * law.spread]]))
                c.append(np.array([[-1.0 / law.scale[0, 0]]]))
                continue
            draws = law.sample(N_DRAWS, rng)
            theta = coordinates(draws)
            at = np.triu_indices(law.dim)
            precision = np.linalg.inv(draws)[:, *at]
            both = np.cov(np.hstack([precision, theta]).T)
            n = precision.shape[1]
            middle.append(theta.mean(axis=0))
            v.append(both[n:, n:])
            c.append(both[:n, n:])
        return np.concatenate(middle), linalg.block_diag(*v), linalg.block_diag(*c)

    # -- the density of theta ----------------------------------------------------------

    def point(self, theta, near):
        """Effects, functions of theta and its log density there."""
        precisions, functions, density, at = [], [], 0.0, 0
        for name, law in self.laws.items():
            n = law.dim * (law.dim + 1) // 2
            S, volume = covariance_at(theta[at : at + n], law.dim)
            precisions.append(np.linalg.inv(S))
            density += self.priors[name].log_density(S[None])[0] + volume
            sd = np.sqrt(np.diag(S))
            R = (S / np.outer(sd, sd))[np.triu_indices(law.dim, 1)]
            functions.extend(
                [np.log(sd), np.arctanh(np.clip(R, -1 + 1e-15, 1 - 1e-15))]
            )
            at += n
        if self.levels is not None:
            gaussian, bound = self.levels.at(precisions[0], near)
            return _Point(gaussian, np.concatenate(functions), density + bound)
        gaussian = self.model.effects(self.block, precisions, near, Structured, SETTLED)
        squares = self.model.squares(self.block, gaussian, precisions)
        density += self.model.evidence(self.block, gaussian, squares, precisions)
        if self.model.layout.n_root > MANY:  # many points are held at a time
            gaussian.precision.let_go()
        return _Point(gaussian, np.concatenate(functions), density)

    def shift(self, theta, gaussian):
        """What means of effects are from the middle's Gaussian."""
        if self.levels is None:
            return 0.0
        (law,) = self.laws.values()
        S, _ = covariance_at(theta, law.dim)
        return self.levels.shift(np.linalg.inv(S), gaussian)


class _Point(NamedTuple):
    gaussian: Gaussian
    functions: np.ndarray
    log_density: float


class _Axis(NamedTuple):
    """Nodes along an axis, the middle first: places in sds, points and weights."""

    z: np.ndarray
    points: list
    weights: np.ndarray

    def moments(self):
        mean = self.weights @ self.z
        return mean, self.weights @ (self.z - mean) ** 2

    def sample(self, values, rng):
        """Stratified draws of functions whose values at the nodes are the rows."""
        order = np.argsort(self.z)
        z, weights = self.z[order], self.weights[order]
        below = special.ndtri(np.cumsum(weights) - 0.5 * weights)
        u = special.ndtri((rng.permutation(N_SUMS) + 0.5) / N_SUMS)
        at = np.interp(u, below, z)
        return np.stack([np.interp(at, z, column[order]) for column in values.T], 1)

    def shifted(self, shift):
        """The weights with the mean moved, by an exponential tilt to first order."""
        mean, variance = self.moments()
        tilt = np.clip(shift / variance * (self.z - mean), -MOST_TILT, MOST_TILT)
        weights = self.weights * np.exp(tilt)
        return self._replace(weights=weights / weights.sum())


class _Average:
    """Averages over theta, explored along the columns of ``axes``."""

    def __init__(self, problem, middle, axes):
        self.problem = problem
        self.middle = middle
        self.axes = axes
        self.many = problem.model.layout.n_root > MANY
        self.spacing = SPACING_OF_MANY if self.many else SPACING

    def _at(self, z, near):
        """The point that many sds from the middle, or None where there is none."""
        try:
            with np.errstate(all="ignore"):
                point = self.problem.point(self.middle + self.axes @ z, near)
        except np.linalg.LinAlgError:
            return None
        return point if np.isfinite(point.log_density) else None

    def _explored(self, axis, start):
        points, zs, widths = [start], [0.0], [1.0]
        highest = start.log_density
        direction = np.eye(len(self.middle))[axis]
        for sign in (1.0, -1.0):
            near = start.gaussian
            for k in range(1, MOST_NODES + 1):
                t = sign * k * self.spacing
                point = self._at(np.sinh(t) * direction, near)
                if point is None:
                    break
                highest = max(highest, point.log_density)
                points.append(point)
                near = point.gaussian
                zs.append(np.sinh(t))
                widths.append(np.cosh(t))
                if point.log_density < highest - DEEP:
                    break
        logs = np.array([point.log_density for point in points])
        weights = np.array(widths) * np.exp(logs - highest)
        return _Axis(np.array(zs), points, weights / weights.sum())

    def _shifts(self, axes, start):
        """What the other axes' spread adds to the mean along each.

        To first order half the sum of the third derivatives, once along the axis and
        twice along another, in units in which all second ones are one.
        """
        d = len(axes)
        out = np.zeros(d)
        steps = np.sqrt([np.clip(axis.moments()[1], *STEPS) for axis in axes])
        signs = (1.0, -1.0)

        def value(i, a, j=None, b=0.0):
            z = np.zeros(d)
            z[i] = a * steps[i]
            if j is not None:
                z[j] = b * steps[j]
            point = self._at(z, start.gaussian)
            return np.nan if point is None else point.log_density

        alone = np.array([[value(i, a) for a in signs] for i in range(d)])
        for i in range(d):
            for j in range(i):
                both = np.array([[value(i, a, j, b) for b in signs] for a in signs])
                along_j = both.sum(axis=1) - 2.0 * alone[i]
                along_i = both.sum(axis=0) - 2.0 * alone[j]
                out[i] += 0.25 * (along_j[0] - along_j[1]) * steps[i]
                out[j] += 0.25 * (along_i[0] - along_i[1]) * steps[j]
        return np.clip(np.nan_to_num(out), -MOST_SHIFT, MOST_SHIFT)

    def law(self):
        near = self.problem.model.effects(
            self.problem.block,
            self.problem.precisions,
            self.problem.q.gaussian,
            Structured,
            SETTLED,
        )
        start = self._at(np.zeros(len(self.middle)), near)
        if start is None:
            raise ValueError(NO_RESPONSE)
        axes = [self._explored(axis, start) for axis in range(len(self.middle))]
        if not self.many:
            shifts = self._shifts(axes, start)
            axes = [axis.shifted(shift) for axis, shift in zip(axes, shifts)]
        means = start.gaussian.mean + self.problem.shift(self.middle, start.gaussian)
        functions = start.functions.copy()
        variance, draws = np.zeros_like(functions), np.tile(functions, (N_SUMS, 1))
        rng = np.random.default_rng(0)
        precisions, shares, along = [start.gaussian.precision], [1.0], []
        for axis in axes:
            points, weights = axis.points, axis.weights
            stack = np.stack([point.gaussian.mean for point in points])
            average = weights @ stack
            means += average - start.gaussian.mean
            along.append((stack - average).T * np.sqrt(weights))
            values = np.stack([point.functions for point in points])
            average = weights @ values
            functions += average - start.functions
            variance += weights @ (values - average) ** 2
            draws += axis.sample(values, rng) - start.functions
            shares[0] += weights[0] - 1.0
            kept = weights > LEAST_SHARE
            kept[0] = False
            # What is left out goes to the nodes that are not.
            scale = (1.0 - weights[0]) / max(weights[kept].sum(), LEAST_SHARE)
            for k in np.flatnonzero(kept):
                precisions.append(points[k].gaussian.precision)
                shares.append(scale * weights[k])
        effects = means, precisions, shares, np.concatenate(along, axis=1)
        # Drawn between nodes they spread by a little more than the nodes do.
        sds = np.sqrt(variance)
        draws = functions + (draws - draws.mean(axis=0)) * (sds / draws.std(axis=0))
        return self._law(effects, functions, sds, draws)

    def _law(self, effects, functions, sds, draws):
        components, moments, at = {}, {}, 0
        for name, law in self.problem.laws.items():
            logs = slice(at, at + law.dim)
            at += law.dim + law.dim * (law.dim - 1) // 2
            angles = slice(logs.stop, at)
            moments[name] = Moments(
                functions[logs],
                sds[logs],
                functions[angles],
                sds[angles],
                draws=draws[:, logs.start : angles.stop],
            )
            corrected = law.with_spread(4.0 * np.mean(sds[logs] ** 2))
            shift = functions[logs] - 0.5 * corrected.log_variances
            components[name] = corrected.rescaled(np.exp(shift))
        noise = components.pop(NOISE) if self.problem.q.noise is not None else None
        means, precisions, shares, along = effects
        law = EffectsLaw(means, precisions, components, noise, shares, along, moments)
        self._check(law)
        return law

    def _check(self, law):
        """That the averages, whose middle may count less than nothing, are laws."""
        good = np.all(np.isfinite(law.mean))
        common = law.common_covariance()
        good = good and np.all(np.linalg.eigvalsh(common) > 0.0)
        model = self.problem.model
        for f, name in enumerate(model.priors):
            at = model.parts[f"effects_{name}"]
            good = good and np.all(law.effect_variances(f, at) > 0.0)
        if not good:
            raise ValueError(NO_RESPONSE)
