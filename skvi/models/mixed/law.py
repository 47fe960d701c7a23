"""The law of effects and variance components that predictions and tables read."""

from typing import NamedTuple

import numpy as np

N_DRAWS = 4096  # of correlations
NOISE = None  # for a name: factors may have any str
REACH, N_NODES = 2.6, 14  # of laws of log variances, in sds
TAIL = 0.005  # of laws of log variances that is left out


class Moments(NamedTuple):
    """Of a covariance matrix.

    Attributes
    ----------
    log_mean, log_sd : arrays of shape (q,)
        Of the logs of standard deviations.
    angle_mean, angle_sd : arrays of shape (q (q - 1) / 2,)
        Of the inverse hyperbolic tangents of correlations, those of the upper triangle.
    shape : float or None
        Of the inverse gamma laws of variances, if these are what variances have.
    draws : array of shape (k, q + q (q - 1) / 2) or None
        Draws of the logs and of the inverse tangents, where there is no such law.
    """

    log_mean: np.ndarray
    log_sd: np.ndarray
    angle_mean: np.ndarray
    angle_sd: np.ndarray
    shape: float | None = None
    draws: np.ndarray | None = None


class EffectsLaw:
    """Covariances of the effects, and laws of the variance components.

    Parameters
    ----------
    mean : array of shape (dim,)
        Of all effects.
    precisions : list of ArrowPrecision or ArrowBlocks
        Covariances are averages over these, ...
    components : dict of str to InverseWishart
    noise : InverseWishart or None
    shares : list of float, optional
        ... with these weights, ...
    along : array of shape (dim, k), optional
        ... and have ``along along'`` added.
    moments : dict of str to Moments, optional
        Of components and noise (NOISE), if they are not those of their laws.
    """

    def __init__(
        self,
        mean,
        precisions,
        components,
        noise,
        shares=(1.0,),
        along=None,
        moments=None,
    ):
        self.mean = mean
        self.precisions = precisions
        self.shares = shares
        self.components = components
        self.noise = noise
        self.along = along
        self._moments = moments

    def _mean(self, read):
        pairs = zip(self.shares, self.precisions)
        return sum(share * read(each) for share, each in pairs)

    def of_predictors(self, rows):
        """Variances of each row's linear predictor."""
        out = self._mean(lambda P: P.of_predictors(rows))
        for column in () if self.along is None else self.along.T:
            out = out + rows.dot(column) ** 2
        return np.maximum(out, 0.0)

    def inner(self, rows):
        """Covariance of the rows' linear predictors."""
        out = self._mean(lambda P: P.inner(rows))
        for column in () if self.along is None else self.along.T:
            each = rows.dot(column)
            out = out + np.outer(each, each)
        return out

    def common_covariance(self):
        """Covariance of the common weights."""
        out = self._mean(lambda P: P.common_covariance())
        if self.along is not None:
            along = self.along[: len(out)]
            out = out + along @ along.T
        return out

    def effect_variances(self, factor, at):
        """Variances of a factor's effects, (levels, effects)."""
        out = self._mean(lambda P: np.diagonal(P.blocks(factor), axis1=-2, axis2=-1))
        if self.along is not None:
            out = out + np.sum(self.along[at] ** 2, axis=-1)
        return out

    def moments(self, name):
        """Moments of a component, or of the noise."""
        if self._moments is not None:
            return self._moments[name]
        law = self.noise if name is NOISE else self.components[name]
        sd = np.full(law.dim, 0.5 * np.sqrt(law.spread))
        if law.dim == 1:
            none = np.zeros(0)
            return Moments(0.5 * law.log_variances, sd, none, none, law.shape)
        draws = law.sample(N_DRAWS, np.random.default_rng(0))
        roots = np.sqrt(np.diagonal(draws, axis1=-2, axis2=-1))
        R = draws / (roots[:, :, None] * roots[:, None, :])
        angles = np.arctanh(R[:, *np.triu_indices(law.dim, 1)])
        return Moments(
            0.5 * law.log_variances,
            sd,
            angles.mean(axis=0),
            angles.std(axis=0),
            law.shape,
        )

    def of_new_levels(self, rows):
        """(mean, variance) of what levels that were not seen add to each variance.

        ``rows`` has ``new``: for each component the coefficients of new levels'
        effects, zero where the level is known.
        """
        mean = variance = np.zeros(len(rows.X))
        for name, term in rows.new.items():
            law = self.components[name]
            if self._moments is None:
                # The variance is inverse gamma, of whatever combination of effects.
                square = np.einsum("na,ab,nb->n", term, law.scale, term)
                each, spread = _log_normal_moments(square, law)
            else:
                squares = np.einsum("na,kab,nb->nk", term, self._points(name), term)
                each, spread = squares.mean(axis=1), squares.var(axis=1)
            mean, variance = mean + each, variance + spread
        return mean, variance

    def _points(self, name):
        """Covariance matrices that stand for the law of one, (k, q, q)."""
        law = self.components[name]
        logs = self._moments[name].draws[:, : law.dim]
        logs = np.clip(logs, *np.quantile(logs, [TAIL, 1.0 - TAIL], axis=0))
        sds, roots = np.exp(logs), np.sqrt(np.diag(law.scale))
        correlations = law.scale / np.outer(roots, roots)
        return correlations * sds[:, :, None] * sds[:, None, :]

    def of_noise(self):
        """(mean, variance) of the noise variance, by its log-normal law."""
        return _log_normal_moments(self.noise.scale[0, 0], self.noise)

    def shared(self, rows):
        """Expected covariance of rows that meet the same new levels, (n, n)."""
        out = np.zeros((len(rows.X), len(rows.X)))
        for name, term in rows.new.items():
            law, ids = self.components[name], rows.new_ids[name]
            if self._moments is None:
                center = law.scale * _log_normal_moments(1.0, law)[0]
            else:
                center = self._points(name).mean(axis=0)
            same = (ids[:, None] == ids) & (ids >= 0)
            out += same * (term @ center @ term.T)
        return out


def _log_normal_moments(scale, law):
    """Moments of an inverse gamma variable by the log-normal of the same log moments.

    Its own may be infinite where groups are few.
    """
    ratio = law.log_variances[0] - np.log(law.scale[0, 0])
    spread = law.spread
    mean = scale * np.exp(ratio + 0.5 * spread)
    return mean, mean**2 * np.expm1(spread)


def variance_nodes(mean, variance):
    """Nodes (n, k) and weights of log-normal laws with these moments.

    They end at the 99.5 % quantile: exponentials of variances, which rates have for
    means, have no expectation under laws with longer tails.
    """
    nodes = np.linspace(-REACH, REACH, N_NODES)
    weights = np.exp(-0.5 * nodes**2)
    safe = np.where(mean > 0.0, mean, 1.0)
    spread = np.log1p(variance / safe**2)
    logs = np.log(safe) - 0.5 * spread
    at = np.exp(logs[:, None] + np.sqrt(spread)[:, None] * nodes)
    return at * (mean > 0.0)[:, None], weights / weights.sum()
