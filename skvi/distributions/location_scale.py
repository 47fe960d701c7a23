"""Finite mixtures of Student-t or Gaussian laws: the predictive laws of regression."""

import numpy as np
from scipy import special, stats
from scipy.optimize import elementwise

MAX_NEWTON = 10


class LocationScaleMixture:
    """For each of n rows, ``sum_g weights[g] t(df[g]; loc[:, g], scale[:, g])``.

    An infinite ``df`` is a Gaussian component. Rows are not independent of each other;
    this describes their marginal laws only.

    Parameters
    ----------
    weights, df : arrays of shape (G,), or both of shape (n, G) if rows differ in them
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
        return _average(self.loc, self.weights)

    def variance(self):
        with np.errstate(invalid="ignore", divide="ignore"):
            inflation = np.where(
                np.isinf(self.df),
                1.0,
                np.where(self.df > 2.0, self.df / (self.df - 2.0), np.inf),
            )
        centred = self.loc - self.mean[:, None]
        return _average(self.scale**2 * inflation + centred**2, self.weights)

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
        return _average(_standard_cdf(z, self.df), self.weights)

    def quantile(self, probabilities):
        """Quantiles, shape (n, q): one bracketed root per row and probability."""
        probabilities = np.atleast_1d(np.asarray(probabilities, dtype=np.float64))
        # Solved about each row's mean in units of its spread, so that a location far
        # from zero costs no digits.
        centre, unit = self.mean, _average(self.scale, self.weights)
        loc = (self.loc - centre[:, None]) / unit[:, None]
        scale = self.scale / unit[:, None]
        out = np.empty((loc.shape[0], probabilities.shape[0]))
        for k, prob in enumerate(probabilities):
            # An upper quantile is a lower one of -y: small tails keep their digits.
            sign, tail = (1.0, prob) if prob <= 0.5 else (-1.0, 1.0 - prob)
            root = self._lower_quantile(tail, sign * loc, scale)
            out[:, k] = centre + sign * unit * root
        return out

    def _lower_quantile(self, prob, loc, scale):
        """Roots t of ``cdf(t) = prob`` for standardised components."""
        if prob == 0.0:
            return np.full(loc.shape[0], -np.inf)
        each = loc + scale * _standard_ppf(prob, self.df)
        # The mixture's quantile lies between those of its components.
        low, high = each.min(axis=1), each.max(axis=1)
        if self.weights.shape[-1] == 1:
            return low
        row = np.arange(loc.shape[0])

        def excess(t, row):
            weights, df = self._of_rows(row)
            z = (t[..., None] - loc[row]) / scale[row]
            return _average(_standard_cdf(z, df), weights) - prob

        def density(t, row):
            weights, df = self._of_rows(row)
            z = (t[..., None] - loc[row]) / scale[row]
            return _average(_standard_pdf(z, df) / scale[row], weights)

        # Newton from the components' average is nearly always there in four steps;
        # the rows where it is not are bracketed.
        root, going = _average(each, self.weights), row
        with np.errstate(all="ignore"):
            for _ in range(MAX_NEWTON):
                step = excess(root[going], going) / density(root[going], going)
                root[going] -= step
                # Below this the next step would be rounding.
                going = going[~(np.abs(step) < 1e-9)]
                if going.size == 0:
                    break
        found = (low <= root) & (root <= high)
        found[going] = False
        if not found.all():
            rest = ~found
            root[rest] = self._bracketed(excess, low[rest], high[rest], row[rest])
        return root

    def _of_rows(self, row):
        if self.weights.ndim == 1:
            return self.weights, self.df
        return self.weights[row], self.df[row]

    @staticmethod
    def _bracketed(excess, low, high, row):
        pad = 1e-9
        bracket = low - pad * (1.0 + np.abs(low)), high + pad * (1.0 + np.abs(high))
        return elementwise.find_root(
            excess, bracket, args=(row,), tolerances={"xatol": 1e-15, "xrtol": 1e-15}
        ).x


def _average(values, weights):
    """Over the last axis; the weights are the same for all rows or differ by row."""
    if weights.ndim == 1:
        return values @ weights
    return np.einsum("...g,...g->...", values, weights)


def _standard_cdf(z, df):
    if np.isinf(df).all():
        return special.ndtr(z)
    return special.stdtr(df, z)


def _standard_pdf(z, df):
    if np.isinf(df).all():
        return np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    # scipy's t.pdf validates at ten times the cost of the formula.
    log_scale = special.betaln(0.5, 0.5 * df) + 0.5 * np.log(df)
    return np.exp(-0.5 * (df + 1.0) * np.log1p(z**2 / df) - log_scale)


def _standard_ppf(prob, df):
    if np.isinf(df).all():
        return np.full(df.shape, special.ndtri(prob))
    return special.stdtrit(df, np.full(df.shape, prob))
