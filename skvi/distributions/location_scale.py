"""Finite mixtures of Student-t or Gaussian laws: the predictive laws of regression."""

import numpy as np
from scipy import special, stats
from scipy.optimize import elementwise


class LocationScaleMixture:
    """For each of n rows, ``sum_g weights[g] t(df[g]; loc[:, g], scale[:, g])``.

    An infinite ``df`` is a Gaussian component. Rows are not independent of each other;
    this describes their marginal laws only.

    Parameters
    ----------
    weights, df : arrays of shape (G,)
    loc, scale : arrays of shape (n, G)
    """

    def __init__(self, weights, df, loc, scale):
        self.weights = weights
        self.df = np.broadcast_to(df, weights.shape)
        self.loc = loc
        self.scale = scale

    def rescaled(self, scale, shift):
        """The law of ``shift + scale * y``."""
        return LocationScaleMixture(
            self.weights, self.df, shift + scale * self.loc, scale * self.scale
        )

    @property
    def mean(self):
        return self.loc @ self.weights

    def variance(self):
        with np.errstate(invalid="ignore", divide="ignore"):
            inflation = np.where(
                np.isinf(self.df),
                1.0,
                np.where(self.df > 2.0, self.df / (self.df - 2.0), np.inf),
            )
        centred = self.loc - self.mean[:, None]
        return (self.scale**2 * inflation + centred**2) @ self.weights

    def log_density(self, y):
        z = (np.asarray(y)[:, None] - self.loc) / self.scale
        terms = np.where(
            np.isinf(self.df), stats.norm.logpdf(z), stats.t.logpdf(z, self.df)
        )
        return special.logsumexp(
            terms - np.log(self.scale) + np.log(self.weights), axis=1
        )

    def cdf(self, y):
        z = (np.asarray(y)[:, None] - self.loc) / self.scale
        return _standard_cdf(z, self.df) @ self.weights

    def quantile(self, probabilities):
        """Quantiles, shape (n, q): one bracketed root per row and probability."""
        probabilities = np.atleast_1d(np.asarray(probabilities, dtype=np.float64))
        out = np.empty((self.loc.shape[0], probabilities.shape[0]))
        for k, prob in enumerate(probabilities):
            each = self.loc + self.scale * _standard_ppf(prob, self.df)
            low, high = each.min(axis=1), each.max(axis=1)
            if self.weights.shape[0] == 1 or prob in (0.0, 1.0):
                out[:, k] = low if prob < 0.5 else high
            else:
                out[:, k] = self._root(prob, low, high)
        return out

    def _root(self, prob, low, high):
        """The mixture's quantile lies between those of its components."""
        row = np.arange(low.shape[0])
        unit = self.scale @ self.weights  # solve for y in units of each row's spread
        centre = self.mean

        def excess(t, row):
            y = centre[row] + unit[row] * t
            z = (y[..., None] - self.loc[row]) / self.scale[row]
            return _standard_cdf(z, self.df) @ self.weights - prob

        pad = 1e-9
        bracket = (low - centre) / unit - pad, (high - centre) / unit + pad
        result = elementwise.find_root(
            excess, bracket, args=(row,), tolerances={"xatol": 1e-12, "xrtol": 1e-12}
        )
        return centre + unit * result.x


def _standard_cdf(z, df):
    if np.isinf(df).all():
        return special.ndtr(z)
    return special.stdtr(df, z)


def _standard_ppf(prob, df):
    if np.isinf(df).all():
        return np.full(df.shape, special.ndtri(prob))
    return special.stdtrit(df, np.full(df.shape, prob))
