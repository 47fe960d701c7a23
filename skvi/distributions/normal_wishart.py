"""Means and precision matrices of Gaussian components, jointly and factorised."""

from abc import abstractmethod
from functools import cached_property

import numpy as np

from skvi.distributions.base import Distribution, ExponentialFamily
from skvi.distributions.gaussian import LOG_2PI
from skvi.distributions.wishart import Wishart, stored, transposed, wishart_normalizer


def apply(matrices, vectors):
    """``M x`` for arrays of both."""
    return (matrices @ vectors[..., None])[..., 0]


class MeansAndWishart(Distribution):
    """What the joint and the factorised form share.

    Both have ``E[mu_k] = location_k``, and a precision of mu_k that is mean_precision_k
    times L_k or times E[L_k]; so their ``expect`` is the same.
    """

    def __init__(self, mean, mean_precision, wishart, names=("means", "precisions")):
        self.location = np.array(mean, dtype=np.float64)
        shape = self.location.shape[:-1]
        self.mean_precision = np.broadcast_to(
            np.asarray(mean_precision, dtype=np.float64), shape
        ).copy()
        self.wishart = wishart
        self.names = tuple(names)
        self.tied = wishart.dof.ndim < len(shape)
        if wishart.dof.shape != (shape[:-1] if self.tied else shape):
            raise ValueError(
                f"A Wishart of leading shape {wishart.dof.shape} does not fit means of "
                f"leading shape {shape}: one for each of them, or one for all."
            )

    def __getstate__(self):
        return stored(self)

    @property
    def dim(self):
        return self.location.shape[-1]

    def _spread(self, value):
        """A value for each L as one for each mu: a new axis if L is tied."""
        return value[..., None] if self.tied else value

    def _spread_matrix(self, value):
        return value[..., None, :, :] if self.tied else value

    @property
    @abstractmethod
    def _inverse(self):
        """The covariance of a mu whose mean_precision is one, for each L."""

    @property
    @abstractmethod
    def _unit_law(self):
        """Its Student-t law: degrees of freedom and shape matrix."""

    @abstractmethod
    def _precision(self, L):
        """What mean_precision multiplies in q(mu | L), and its log determinant."""

    @property
    @abstractmethod
    def _mean_log_det(self):
        """The expectation of that log determinant."""

    @property
    def mean(self):
        means, precisions = self.names
        return {means: self.location.copy(), precisions: self.wishart.mean}

    def variance(self, name):
        """Marginal variances."""
        means, precisions = self.names
        if name == precisions:
            return self.wishart.variance()
        if name != means:
            raise KeyError(f"no variable {name!r}; the variables are {self.names}")
        inverse = np.diagonal(self._inverse, axis1=-2, axis2=-1)
        if self.tied:
            inverse = inverse[..., None, :]
        return inverse / self.mean_precision[..., None]

    def covariance(self, name):
        """Marginal covariance along the last axis: of the means (..., K, D, D)."""
        means, precisions = self.names
        if name == precisions:
            return self.wishart.covariance()
        if name != means:
            raise KeyError(f"no variable {name!r}; the variables are {self.names}")
        inverse = self._spread_matrix(self._inverse)
        return inverse / self.mean_precision[..., None, None]

    @cached_property
    def _expected(self):
        e = self.wishart.expect()
        linear = apply(self._spread_matrix(e["value"]), self.location)
        quadratic = (self.location * linear).sum(axis=-1)
        quadratic = quadratic + self.dim / self.mean_precision
        return {**e, "linear": linear, "quadratic": quadratic}

    def expect(self):
        """E[L], E[log|L|], E[L mu] and E[mu' L mu].

        They are called value, log_det, linear and quadratic. In the tied form the
        first two have no axis of components.
        """
        return dict(self._expected)

    def entropy(self):
        log_det = self._spread(self._mean_log_det)
        normal = self.dim * (1.0 + LOG_2PI - np.log(self.mean_precision)) - log_det
        return float(0.5 * np.sum(normal) + self.wishart.entropy())

    def log_density(self, z):
        mu, L = (np.asarray(z[name], dtype=np.float64) for name in self.names)
        precision, log_det = self._precision(L)
        centred = mu - self.location
        square = (centred * apply(self._spread_matrix(precision), centred)).sum(axis=-1)
        normal = self.dim * (np.log(self.mean_precision) - LOG_2PI)
        normal = normal + self._spread(log_det)
        normal = 0.5 * (normal - self.mean_precision * square)
        normal = normal.reshape(mu.shape[0], -1).sum(axis=1)
        return normal + self.wishart.log_density(L)

    def distance(self, other):
        # A Student-t with few degrees of freedom has no variance: its scale serves.
        square = np.diagonal(self.wishart.inverse_mean, axis1=-2, axis2=-1)
        if self.tied:
            square = square[..., None, :]
        spread = np.sqrt(square / self.mean_precision[..., None])
        moves = np.abs(self.location - other.location) / spread
        return max(self.wishart.distance(other.wishart), float(moves.max(initial=0.0)))

    def _student_t(self, inflation):
        """df, loc and factor of a Student-t: (1 + inflation) / df times W^-1."""
        df = self.wishart.dof - self.dim + 1.0
        df = np.broadcast_to(self._spread(df), self.mean_precision.shape)
        factor = self._spread_matrix(self.wishart.factor)
        scale = np.sqrt((1.0 + inflation) / df)[..., None, None] * factor
        return df.copy(), self.location.copy(), scale

    def rescaled(self, scale, shift=0.0):
        """The law of the parameters of ``shift + scale * x``, scale of shape (D,)."""
        location, wishart = shift + scale * self.location, self.wishart.rescaled(scale)
        return type(self)(location, self.mean_precision, wishart, self.names)

    def means_law(self):
        """Marginal Student-t laws of the means: (df, loc, scale), (K, D) each."""
        df, square = self._unit_law
        square = np.diagonal(square, axis1=-2, axis2=-1)
        if self.tied:
            df, square = df[..., None], square[..., None, :]
        scale = np.sqrt(square / self.mean_precision[..., None])
        df = np.broadcast_to(df[..., None], scale.shape)
        return df.copy(), self.location.copy(), scale

    def square(self, k, step):
        """``step' E[L_k] step``."""
        return (
            step
            @ (self._expected["value"] if self.tied else self._expected["value"][k])
            @ step
        )

    def coordinates(self):
        """Unconstrained numbers that determine the distribution."""
        parts = np.log(self.mean_precision), self.location.ravel()
        return np.concatenate([*parts, self.wishart.coordinates()])

    def at(self, coordinates):
        """The distribution of other coordinates."""
        K, size = self.mean_precision.size, self.location.size
        log_precision, location, rest = np.split(coordinates, [K, K + size])
        return type(self)(
            location.reshape(self.location.shape),
            np.exp(log_precision),
            self.wishart.at(rest),
            self.names,
        )

    def reordered(self, order):
        """With the components in another order; a tied L is nobody's in particular."""
        return type(self)(
            np.take(self.location, order, axis=-2),
            np.take(self.mean_precision, order, axis=-1),
            self.wishart if self.tied else self.wishart.reordered(order),
            self.names,
        )


class NormalWishart(MeansAndWishart, ExponentialFamily):
    """``mu_k | L_k ~ N(mean_k, (mean_precision_k L_k)^-1)``, ``L_k ~ Wishart``.

    The density is that of Bishop 2006, 2.157, for every component k (components are
    independent):

        N(mu_k | mean_k, (mean_precision_k L_k)^-1) W(L_k | W_k, dof_k)

    In the *tied* form one L serves all components, which are independent given it:

        W(L | W, dof) prod_k N(mu_k | mean_k, (mean_precision_k L)^-1)

    Parameters
    ----------
    mean : array of shape (K, D)
        Kept as ``location``; ``mean`` is that of both variables, by name.
    mean_precision : float or array of shape (K,)
    wishart : Wishart
        Of K matrices; or of one without a leading axis, the tied form.
    names : (str, str), default=("means", "precisions")
        What mu and L are called in draws.
    """

    @property
    def _inverse(self):
        return self.wishart.mean_inverse

    @property
    def _unit_law(self):
        df = self.wishart.dof - self.dim + 1.0
        return df, self.wishart.inverse_scale / df[..., None, None]

    def _precision(self, L):
        return L, np.linalg.slogdet(L)[1]

    @property
    def _mean_log_det(self):
        return self.wishart.mean_log_det

    def _outer(self, u, v):
        """``u v'`` for each L: in the tied form the sum over components."""
        if self.tied:
            return transposed(u) @ v
        return u[..., :, None] * v[..., None, :]

    def natural(self):
        n_means = self.location.shape[-2] if self.tied else 1
        linear = self.mean_precision[..., None] * self.location
        inverse_scale = self.wishart.inverse_scale + self._outer(self.location, linear)
        return {
            "value": -0.5 * inverse_scale,
            "log_det": 0.5 * (self.wishart.dof + n_means),
            "linear": linear,
            "quadratic": -0.5 * self.mean_precision,
        }

    @staticmethod
    def log_normalizer(natural):
        value, linear = natural["value"], natural["linear"]
        mean_precision = -2.0 * natural["quadratic"]
        location = linear / mean_precision[..., None]
        if natural["log_det"].ndim < mean_precision.ndim:
            outer, n_means = transposed(location) @ linear, linear.shape[-2]
        else:
            outer, n_means = location[..., :, None] * linear[..., None, :], 1
        _, log_det = np.linalg.slogdet(-(value + transposed(value)) - outer)
        dof, dim = 2.0 * natural["log_det"] - n_means, linear.shape[-1]
        normal = 0.5 * dim * (LOG_2PI - np.log(mean_precision))
        return normal.sum() + wishart_normalizer(dof, log_det, dim).sum()

    def statistics(self, z):
        mu, L = (np.asarray(z[name], dtype=np.float64) for name in self.names)
        linear = apply(self._spread_matrix(L), mu)
        return {
            **self.wishart.statistics(L),
            "linear": linear,
            "quadratic": (mu * linear).sum(axis=-1),
        }

    def absorb(self, count, total, outer, origin=0.0, rows=None):
        """The conjugate update by weighted rows x of every component.

        Parameters
        ----------
        count : array of shape (K,)
            Sums of the weights.
        total : array of shape (K, D)
            Weighted sums of x - origin.
        outer : array of shape (K, D, D), or (D, D) in the tied form
            Weighted sums of (x - origin)(x - origin)'; tied, over components too.
        origin : array of shape (K, D) or (D,), default=0
            Near a component's rows it saves the digits that squares of a distant one
            would cost.
        rows : array of shape (K,), default=count
            What dof gains, where the weights have a factor that scales the precision
            of their row: log|L| counts the rows without it.
        """
        count = np.asarray(count, dtype=np.float64)
        rows = count if rows is None else np.asarray(rows, dtype=np.float64)
        mean_precision = self.mean_precision + count
        start = self.location - origin
        moved = total - count[..., None] * start  # the sums of x - location
        end = start + moved / mean_precision[..., None]
        inverse_scale = self.wishart.inverse_scale + outer
        inverse_scale -= self._outer(moved, end) + self._outer(start, total)
        dof = self.wishart.dof + (rows.sum(axis=-1) if self.tied else rows)
        wishart = Wishart(dof, inverse_scale)
        return NormalWishart(origin + end, mean_precision, wishart, self.names)

    def expected_log_density(self, other):
        """``E_other[log self]`` for another distribution of the same variables."""
        e = other.expect()
        along = apply(self._spread_matrix(e["value"]), self.location)
        square = (self.location * (along - 2.0 * e["linear"])).sum(axis=-1)
        square = square + e["quadratic"]  # E[(mu - location)' L (mu - location)]
        normal = self.dim * (np.log(self.mean_precision) - LOG_2PI)
        normal = normal + self._spread(e["log_det"]) - self.mean_precision * square
        return float(0.5 * np.sum(normal)) + self.wishart.expected_log_density(other)

    def sample(self, n, rng):
        means, precisions = self.names
        bartlett = self.wishart.bartlett(n, rng)
        noise = rng.standard_normal((n, *self.location.shape))
        noise /= np.sqrt(self.mean_precision)[..., None]
        # L = B B' with B = inverse_factor' bartlett; the noise of mu is B'^-1 noise.
        upper = self._spread_matrix(transposed(bartlett))
        noise = np.linalg.solve(upper, noise[..., None])[..., 0]
        noise = apply(self._spread_matrix(self.wishart.factor), noise)
        draws = self.wishart.from_bartlett(bartlett)
        return {means: self.location + noise, precisions: draws}

    def predictive(self):
        """The Student-t law of a new row of each component (Bishop 2006, 10.81).

        Returns
        -------
        df : array of shape (K,)
            ``dof - D + 1``.
        loc : array of shape (K, D)
        scale_factor : array of shape (K, D, D)
            Lower Cholesky factor of the shape matrix ``(1 + 1 / mean_precision) /
            (dof - D + 1) W^-1``, which is not the covariance.
        """
        return self._student_t(1.0 / self.mean_precision)

    def factorised(self):
        """The closest ``q(mu) q(L)``, by KL(q || self).

        E[L] is the same: the means that an L serves add one degree of freedom each,
        and their spread adds E[L]^-1 each to its inverse scale.
        """
        # The inverse scale S solves S = W^-1 + n_means S / dof.
        n_means = self.location.shape[-2] if self.tied else 1
        dof = self.wishart.dof + n_means
        ratio = (dof / self.wishart.dof)[..., None, None]
        wishart = Wishart(dof, ratio * self.wishart.inverse_scale)
        return FactorisedNormalWishart(
            self.location, self.mean_precision, wishart, self.names
        )


class FactorisedNormalWishart(MeansAndWishart):
    """``mu_k ~ N(mean_k, (mean_precision_k E[L_k])^-1)``, and ``L_k ~ Wishart``.

    All are independent, also the mu_k of L_k. In the *tied* form one L serves all
    components.

    Parameters
    ----------
    mean : array of shape (K, D)
        Kept as ``location``; ``mean`` is that of both variables, by name.
    mean_precision : float or array of shape (K,)
    wishart : Wishart
        Of K matrices; or of one without a leading axis, the tied form.
    names : (str, str), default=("means", "precisions")
        What mu and L are called in draws.
    """

    @property
    def _inverse(self):
        return self.wishart.inverse_mean

    @property
    def _unit_law(self):
        return np.full(self.wishart.dof.shape, np.inf), self.wishart.inverse_mean

    def _precision(self, L):
        return self.wishart.mean, self.wishart.log_det_mean

    @property
    def _mean_log_det(self):
        return self.wishart.log_det_mean

    def sample(self, n, rng):
        means, precisions = self.names
        factor = self.wishart.factor / np.sqrt(self.wishart.dof)[..., None, None]
        noise = rng.standard_normal((n, *self.location.shape))
        noise = apply(self._spread_matrix(factor), noise)
        noise /= np.sqrt(self.mean_precision)[..., None]
        draws = self.wishart.sample(n, rng)
        return {means: self.location + noise, precisions: draws}

    def predictive(self):
        """A Student-t law that is close to that of a new row of each component.

        Given its mean a row is a Student-t, and the mean is Gaussian. What is returned
        is the Student-t of those degrees of freedom whose shape matrix adds the two
        spreads: an approximation, exact as ``mean_precision`` grows.

        Returns
        -------
        df : array of shape (K,)
            ``dof - D + 1``.
        loc : array of shape (K, D)
        scale_factor : array of shape (K, D, D)
            Lower Cholesky factor of the shape matrix ``(1 / df + 1 / (mean_precision
            dof)) W^-1``, which is not the covariance.
        """
        share = (self.wishart.dof - self.dim + 1.0) / self.wishart.dof
        return self._student_t(self._spread(share) / self.mean_precision)
