"""Wishart(dof, inverse_scale), an array of independent ones."""

from functools import cached_property

import numpy as np
from scipy import special

from skvi.distributions.base import ExponentialFamily

LOG_2 = np.log(2.0)
LOG_PI = np.log(np.pi)
SERIES_FROM = 30.0  # where the series of log_gamma_excess has all the digits
SMALL = 10  # up to this dimension one call of LAPACK inverts faster than halves do


def transposed(matrices):
    return np.swapaxes(matrices, -1, -2)


def stored(instance):
    """The attributes without what cached properties hold: rebuilt when asked for."""
    kind, state = type(instance), instance.__dict__
    return {
        name: value
        for name, value in state.items()
        if not isinstance(getattr(kind, name, None), cached_property)
    }


def inverse_lower(factor):
    """Inverses of lower triangular matrices, by halves.

    Scaling a row or column by a power of two scales the result and changes no digit,
    which pivoting would not promise.
    """
    dim = factor.shape[-1]
    if dim == 1:
        return 1.0 / factor
    if dim <= SMALL:
        # Upper triangular: all below a pivot is zero, so there is nothing to exchange.
        return transposed(np.linalg.inv(transposed(factor)))
    half = dim // 2
    upper = inverse_lower(factor[..., :half, :half])
    lower = inverse_lower(factor[..., half:, half:])
    out = np.zeros_like(factor)
    out[..., :half, :half] = upper
    out[..., half:, half:] = lower
    out[..., half:, :half] = -(lower @ factor[..., half:, :half]) @ upper
    return out


def log_gamma_excess(x):
    """``log Gamma(x) - x digamma(x) + x``: of order log x, where its terms are huge."""
    x = np.asarray(x, dtype=np.float64)
    small, y = np.minimum(x, SERIES_FROM), np.maximum(x, SERIES_FROM)
    direct = special.gammaln(small) - small * special.digamma(small) + small
    square = 1.0 / (y * y)
    tail = 1 / 6 - square * (1 / 90 - square * (1 / 210 - square / 210))
    series = 0.5 * (LOG_2 + LOG_PI - np.log(y) + 1.0) + tail / y
    return np.where(x < SERIES_FROM, direct, series)


def halves(dof, dim):
    """``(dof - j) / 2`` for j = 0 ... dim - 1, the arguments of its gammas."""
    return 0.5 * (np.asarray(dof)[..., None] - np.arange(dim))


def log_multigamma(dof, dim):
    """``log Gamma_dim(dof / 2)``, for an array of dof."""
    each = special.gammaln(halves(dof, dim)).sum(axis=-1)
    return each + 0.25 * dim * (dim - 1) * LOG_PI


def wishart_normalizer(dof, log_det_inverse_scale, dim):
    """``-log B`` of each, B being the constant of the density in ``Wishart``."""
    log_scale = dim * LOG_2 - log_det_inverse_scale
    return 0.5 * dof * log_scale + log_multigamma(dof, dim)


class Wishart(ExponentialFamily):
    """Independent precision matrices ``L ~ Wishart(W, dof)``: mean dof W.

    With ``W = inverse_scale^-1`` and dimension D the density over the D (D + 1) / 2
    free elements of L is (Bishop 2006, 2.155 and appendix B)

        B |L|^((dof - D - 1) / 2) exp(-tr(W^-1 L) / 2)
        log B = (dof log|W^-1| - dof D log 2) / 2 - log Gamma_D(dof / 2)

    In one dimension it is Gamma(dof / 2, inverse_scale / 2).

    Parameters
    ----------
    dof : float or array of shape (...)
        Above D - 1.
    inverse_scale : array of shape (..., D, D)
        Positive definite; what is not symmetric in it is ignored. The leading axes are
        broadcast against those of ``dof``; the variable has their common shape
        (..., D, D), one independent matrix for every index of the leading axes.
    """

    def __init__(self, dof, inverse_scale):
        self.dof = np.array(dof, dtype=np.float64)
        matrix = np.asarray(inverse_scale, dtype=np.float64)
        self.inverse_scale = 0.5 * (matrix + transposed(matrix))
        try:
            self.factor = np.linalg.cholesky(self.inverse_scale)  # times its transpose
        except np.linalg.LinAlgError:
            raise ValueError(
                "The inverse scale of a Wishart is not positive definite to working "
                "precision: a prior with a larger one makes it so."
            ) from None
        if self.dof.shape != matrix.shape[:-2]:
            leading = np.broadcast_shapes(self.dof.shape, matrix.shape[:-2])
            shape = (*leading, *matrix.shape[-2:])
            self.dof = np.broadcast_to(self.dof, leading).copy()
            self.inverse_scale = np.broadcast_to(self.inverse_scale, shape).copy()
            self.factor = np.broadcast_to(self.factor, shape).copy()

    def __getstate__(self):
        return stored(self)

    @property
    def dim(self):
        return self.inverse_scale.shape[-1]

    @cached_property
    def inverse_factor(self):
        """Lower triangular G with ``W = G' G``: E[x' L x] = dof |G x|^2."""
        return inverse_lower(self.factor)

    @cached_property
    def scale(self):
        """W."""
        return transposed(self.inverse_factor) @ self.inverse_factor

    @cached_property
    def log_det_inverse_scale(self):
        diagonal = np.diagonal(self.factor, axis1=-2, axis2=-1)
        return 2.0 * np.log(diagonal).sum(axis=-1)

    @property
    def mean(self):
        return self.dof[..., None, None] * self.scale

    @cached_property
    def _digamma(self):
        return special.digamma(halves(self.dof, self.dim))

    @cached_property
    def mean_log_det(self):
        """``E[log|L|]``."""
        each = self._digamma.sum(axis=-1)
        return each + self.dim * LOG_2 - self.log_det_inverse_scale

    @property
    def inverse_mean(self):
        """``E[L]^-1``."""
        return self.inverse_scale / self.dof[..., None, None]

    @property
    def log_det_mean(self):
        """``log|E[L]|``."""
        return self.dim * np.log(self.dof) - self.log_det_inverse_scale

    @property
    def mean_inverse(self):
        """``E[L^-1]``, the expected covariance; infinite for dof <= D + 1."""
        excess = (self.dof - self.dim - 1.0)[..., None, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(excess > 0.0, self.inverse_scale / excess, np.inf)

    def variance(self):
        """Variance of every element."""
        diagonal = np.diagonal(self.scale, axis1=-2, axis2=-1)
        outer = diagonal[..., :, None] * diagonal[..., None, :]
        return self.dof[..., None, None] * (self.scale**2 + outer)

    def covariance(self):
        """Covariance of the elements within each row of L, shape (..., D, D, D)."""
        W = self.scale
        diagonal = np.diagonal(W, axis1=-2, axis2=-1)[..., None, None]
        outer = W[..., :, :, None] * W[..., :, None, :]
        return self.dof[..., None, None, None] * (diagonal * W[..., None, :, :] + outer)

    @cached_property
    def _expected(self):
        return {"value": self.mean, "log_det": self.mean_log_det}

    def expect(self):
        return dict(self._expected)

    def natural(self):
        return {"value": -0.5 * self.inverse_scale, "log_det": 0.5 * self.dof}

    @staticmethod
    def log_normalizer(natural):
        value = natural["value"]
        _, log_det = np.linalg.slogdet(-(value + transposed(value)))
        dof, dim = 2.0 * natural["log_det"], value.shape[-1]
        return wishart_normalizer(dof, log_det, dim).sum()

    @staticmethod
    def statistics(z):
        return {"value": z, "log_det": np.linalg.slogdet(z)[1]}

    def entropies(self):
        """Entropy of each of the independent matrices."""
        # The huge terms of log Gamma_D and dof log|L| are cancelled on paper.
        D, j, x = self.dim, np.arange(self.dim), halves(self.dof, self.dim)
        each = log_gamma_excess(x) + 0.5 * (j + (D + 1 - j) * self._digamma)
        each = each.sum(axis=-1) + 0.25 * D * (D - 1) * LOG_PI
        return each + 0.5 * (D + 1) * (D * LOG_2 - self.log_det_inverse_scale)

    def entropy(self):
        return float(np.sum(self.entropies()))

    def absorb(self, count, scatter):
        """The conjugate update by ``count`` Gaussian rows x of known mean m.

        ``scatter`` is their sum of (x - m)(x - m)'. This adds count / 2 to the
        coefficient of log|L| and -scatter / 2 to that of L.
        """
        return Wishart(self.dof + count, self.inverse_scale + scatter)

    @cached_property
    def _log_normalizers(self):
        return wishart_normalizer(self.dof, self.log_det_inverse_scale, self.dim)

    def log_normalizers(self):
        """Log normaliser of each of the independent matrices."""
        return self._log_normalizers

    def _log_kernel(self, log_det, value):
        trace = np.einsum("...ij,...ij->...", self.inverse_scale, value)
        return 0.5 * ((self.dof - self.dim - 1.0) * log_det - trace)

    def expected_log_density(self, other):
        """``E_other[log self]`` for another distribution of the same variable."""
        e = other.expect()
        terms = self._log_kernel(e["log_det"], e["value"]) - self.log_normalizers()
        return float(np.sum(terms))

    def bartlett(self, n, rng):
        """Lower triangular A: ``inverse_factor' A`` times its transpose is a draw."""
        lead, dim = (n, *self.dof.shape), self.dim
        out = np.zeros((*lead, dim, dim))
        rows, columns = np.tril_indices(dim, -1)
        out[..., rows, columns] = rng.standard_normal((*lead, rows.size))
        shape = halves(self.dof, dim)
        diagonal = np.sqrt(2.0 * rng.standard_gamma(shape, size=(n, *shape.shape)))
        out[..., np.arange(dim), np.arange(dim)] = diagonal
        return out

    def from_bartlett(self, bartlett):
        """The draws that belong to Bartlett's factors."""
        factor = transposed(self.inverse_factor) @ bartlett
        return factor @ transposed(factor)

    def sample(self, n, rng):
        return self.from_bartlett(self.bartlett(n, rng))

    def log_density(self, z):
        z = np.asarray(z, dtype=np.float64)
        terms = self._log_kernel(np.linalg.slogdet(z)[1], z) - self.log_normalizers()
        return terms.reshape(z.shape[0], -1).sum(axis=1)

    def distance(self, other):
        # In coordinates in which the mean of this is dof I, so that a direction of
        # little precision counts as much as the others; there W of other is R' R with
        # R = I + E. By differences, so that nothing moved is exactly zero.
        E = (other.inverse_factor - self.inverse_factor) @ self.factor
        dof, other_dof = self.dof[..., None, None], other.dof[..., None, None]
        identity = np.eye(self.dim)
        rise = E + transposed(E) + transposed(E) @ E
        moves = (other_dof - dof) * identity + other_dof * rise
        spread = np.sqrt(dof * (1.0 + identity))
        return float(np.max(np.abs(moves) / spread, initial=0.0))

    def coordinates(self):
        """Unconstrained: of dof, and of the Cholesky factor of the inverse mean."""
        factor = self.factor / np.sqrt(self.dof)[..., None, None]
        index = np.arange(self.dim)
        log_diagonal = np.log(factor[..., index, index])
        below = factor[..., *np.tril_indices(self.dim, -1)]
        excess = np.log(self.dof - (self.dim - 1.0))
        return np.concatenate([np.ravel(p) for p in (excess, log_diagonal, below)])

    def at(self, coordinates):
        """The Wishart of other coordinates."""
        lead, dim = self.dof.shape, self.dim
        n = self.dof.size
        excess, log_diagonal, below = np.split(coordinates, [n, n * (1 + dim)])
        dof = np.exp(excess).reshape(lead) + (dim - 1.0)
        factor = np.zeros(self.factor.shape)
        index = np.arange(dim)
        factor[..., index, index] = np.exp(log_diagonal).reshape(*lead, dim)
        factor[..., *np.tril_indices(dim, -1)] = below.reshape(*lead, -1)
        return Wishart(dof, dof[..., None, None] * (factor @ transposed(factor)))

    def rescaled(self, scale):
        """The law of the precision of ``scale * x``, L being that of x."""
        scale = np.asarray(scale, dtype=np.float64) * np.ones(self.dim)
        outer = scale[..., :, None] * scale[..., None, :]
        return Wishart(self.dof, self.inverse_scale * outer)

    def reordered(self, order):
        """With the matrices in another order along the last of the leading axes."""
        return Wishart(
            np.take(self.dof, order, axis=-1),
            np.take(self.inverse_scale, order, axis=-3),
        )
