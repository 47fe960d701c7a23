"""Finite mixtures of multivariate Student-t laws: the predictive laws of mixtures."""

from functools import cached_property

import numpy as np
from scipy import special

from skvi.distributions.gaussian import LOG_2PI
from skvi.distributions.location_scale import LocationScaleMixture
from skvi.distributions.wishart import inverse_lower
from skvi.linalg.rows import block_slices

SERIES_FROM = 50.0  # where the series of log Gamma has all the digits


class StudentMixture:
    """``sum_k weights[k] t(x | df_k, loc_k, scale_k)`` for rows x of D features.

    A missing entry (NaN) of a row is integrated out. An infinite ``df`` is a Gaussian
    component.

    Parameters
    ----------
    weights : array of shape (K,)
        They sum to one.
    df : float or array of shape (K,) or (K, D)
        (K, D): the coordinates of a component are independent, each a univariate
        Student-t. (K,): one df serves the component's joint law, whose coordinates are
        not independent even where the shape matrix is diagonal.
    loc : array of shape (K, D)
    scale : array of shape (K, D, D) or (K, D)
        Lower Cholesky factors of the shape matrices, or the roots of their diagonals
        where they are diagonal. A leading axis of one serves all components.
    """

    def __init__(self, weights, df, loc, scale):
        self.weights = np.asarray(weights, dtype=np.float64)
        kind = JointStudent if np.ndim(df) < np.ndim(loc) else IndependentStudent
        self.components = kind(df, loc, scale)
        with np.errstate(divide="ignore"):
            self._log_weights = np.log(self.weights)[:, None]

    def _of(self, components):
        args = components.df, components.loc, components.scale
        return StudentMixture(self.weights, *args)

    def rescaled(self, scale, shift=0.0):
        """The law of ``shift + scale * x``, scale of shape (D,)."""
        return self._of(self.components.rescaled(scale, shift))

    def marginal(self, features):
        """The law of some features: indices, a mask or a slice."""
        return self._of(self.components.marginal(self._index(features)))

    def _index(self, features):
        return np.atleast_1d(np.arange(self.components.loc.shape[1])[features])

    # Moments ----------------------------------------------------------------------

    @property
    def mean(self):
        return self.weights @ self.components.loc

    def covariance(self):
        """Covariance (D, D); see ``ConditionalStudentMixture.covariance``."""
        nothing = np.full((1, self.components.loc.shape[1]), np.nan)
        return self.conditional(nothing, slice(None)).covariance()[0]

    # Densities --------------------------------------------------------------------

    def _parts(self, X):
        """Yield (rows, log weight + log density of each component, shape (K, b))."""
        for rows, observed in missing_patterns(X):
            law = self.components.marginal(observed)
            for cut in block_slices(rows.shape[0], law.loc.size):
                parts = law.log_density(_columns(X, rows[cut], observed))
                yield rows[cut], self._log_weights + parts

    def _gather(self, function, X, *shape):
        X = np.asarray(X)
        out = np.empty((X.shape[0], *shape))
        for rows, parts in self._parts(X):
            out[rows] = function(parts).T
        return out

    def log_densities(self, X):
        """Log of weight times density of every component, shape (n, K)."""
        return self._gather(lambda parts: parts, X, self.weights.shape[0])

    def log_density(self, X):
        """Log density of every row's observed entries, shape (n,)."""
        return self._gather(_log_sum, X)

    def responsibilities(self, X):
        """Probability of every component given a row, shape (n, K)."""
        return self._gather(
            lambda parts: np.exp(_log_normalised(parts)), X, self.weights.shape[0]
        )

    def sample(self, n, rng):
        """``n`` rows, shape (n, D), and the components they are from, shape (n,)."""
        weights = self.weights / self.weights.sum()
        labels = rng.choice(weights.shape[0], size=n, p=weights)
        return self.components.sample(labels, rng), labels

    # Some features given others ---------------------------------------------------

    def conditional(self, X, features):
        """The laws of some features of every row given its other observed ones.

        What X holds in the asked features is not read.
        """
        X, asked = np.asarray(X), self._index(features)
        others = np.setdiff1d(self._index(slice(None)), asked)
        groups = []
        for rows, observed in missing_patterns(X, others):
            law = self.components.conditional(observed, asked)
            groups.append((rows, _columns(X, rows, observed), law))
        return ConditionalStudentMixture(self._log_weights, groups)

    def impute(self, X):
        """Rows with their conditional means for NaN, and standard deviations.

        Returns
        -------
        filled, std : arrays of shape (n, D)
            The std of an observed entry is zero.
        """
        X = np.asarray(X)
        filled, std = X.astype(np.float64), np.zeros(X.shape)
        for rows, observed in missing_patterns(X):
            missing = np.setdiff1d(self._index(slice(None)), observed)
            if missing.size == 0:
                continue
            law = self.components.conditional(observed, missing)
            groups = [(rows, _columns(X, rows, observed), law)]
            for part, block in ConditionalStudentMixture(self._log_weights, groups):
                filled[np.ix_(part, missing)] = block.mean()
                std[np.ix_(part, missing)] = np.sqrt(block.variance())
        return filled, std


class ConditionalStudentMixture:
    """For each of n rows, the mixture that is the law of m features given others.

    Iterating yields (rows, ``_Block``), blocks of rows that miss the same entries: the
    (n, K, m) locations and scales are never held at once.

    Parameters
    ----------
    log_weights : array of shape (K, 1)
        Before anything is given.
    groups : list of (rows, given of shape (g, rows), ComponentsGiven)
    """

    def __init__(self, log_weights, groups):
        self.log_weights = log_weights
        self.groups = groups
        self.n_rows = sum(rows.shape[0] for rows, _, _ in groups)

    def __iter__(self):
        for rows, given, law in self.groups:
            for cut in block_slices(rows.shape[0], law.size):
                parts, loc, spread = law.at(given[:, cut])
                parts = _log_normalised(parts + self.log_weights)
                yield rows[cut], _Block(parts, loc, spread, law.residual)

    def _gather(self, function):
        out = None
        for rows, block in self:
            value = function(rows, block)
            if out is None:
                out = np.empty((self.n_rows, *value.shape[1:]))
            out[rows] = value
        return out

    @property
    def weights(self):
        """Probability of every component given a row's given entries, (n, K)."""
        return self._gather(lambda rows, block: block.weights.T)

    @property
    def mean(self):
        return self._gather(lambda rows, block: block.mean())

    def variance(self):
        """Variance of each feature, (n, m): infinite where a df is at most 2."""
        return self._gather(lambda rows, block: block.variance())

    def std(self):
        return np.sqrt(self.variance())

    def covariance(self):
        """Covariance of every row's features, (n, m, m).

        Where a joint component's df is at most 2 the variances are infinite, and the
        covariances, which do not exist, NaN.
        """
        return self._gather(lambda rows, block: block.covariance())

    def log_density(self, values):
        """Log density of values (n, m) of the asked features, shape (n,)."""
        values = np.asarray(values, dtype=np.float64)
        return self._gather(lambda rows, block: block.log_density(values[rows]))

    def sample(self, n_samples, rng):
        """Draws of shape (n_samples, n, m)."""
        draws = self._gather(
            lambda rows, block: np.swapaxes(block.sample(n_samples, rng), 0, 1)
        )
        return np.swapaxes(draws, 0, 1)

    def quantile(self, probabilities):
        """Quantiles of each feature's own law, shape (n, m, q)."""
        return self._gather(lambda rows, block: block.quantile(probabilities))

    def interval(self, confidence_level=0.95):
        """Bounds between equal tails of each feature's own law, shape (n, m, 2)."""
        tail = 0.5 * (1.0 - confidence_level)
        return self.quantile([tail, 1.0 - tail])


class _Block:
    """Row i of component k is ``loc[k, :, i] + spread[k, i] * residual_k``.

    Parameters
    ----------
    log_weights, spread : arrays of shape (K, b)
    loc : array of shape (K, m, b), the last axis possibly one
    residual : components of m features about zero
    """

    def __init__(self, log_weights, loc, spread, residual):
        self.log_weights = log_weights
        self.weights = np.exp(log_weights)
        self.spread = spread
        self.loc = np.broadcast_to(loc, (*loc.shape[:2], log_weights.shape[1]))
        self.residual = residual

    def mean(self):
        return np.einsum("kb,kmb->bm", self.weights, self.loc)

    def variance(self):
        centred = self.loc - self.mean().T
        between = np.einsum("kb,kmb,kmb->bm", self.weights, centred, centred)
        return between + self._within(self.residual.variance())

    def covariance(self):
        root = np.sqrt(self.weights)[:, None]
        centred = (root * (self.loc - self.mean().T)).transpose(2, 1, 0)
        between = centred @ np.swapaxes(centred, 1, 2)
        return between + self._within(self.residual.covariance())

    def _within(self, moments):
        """The mean over components of their own moments, shape (b, ...)."""
        weights = self.weights * self.spread**2
        finite = np.where(np.isfinite(moments), moments, 0.0)
        out = np.tensordot(weights.T, finite, axes=1)
        # An infinite moment of a component whose weight is zero must not count.
        axes = tuple(range(1, moments.ndim))
        for k in np.flatnonzero(~np.isfinite(moments).all(axis=axes)):
            out[weights[k] > 0.0] += moments[k] - finite[k]
        return out

    def log_density(self, values):
        z = (values.T - self.loc) / self.spread[:, None]
        parts = self.residual.log_density(z) + self.log_weights
        return _log_sum(parts - self.loc.shape[1] * np.log(self.spread))

    def sample(self, n_samples, rng):
        labels, rows = self._labels(n_samples, rng), np.arange(self.weights.shape[1])
        draws = self.residual.sample(labels.ravel(), rng)
        draws = draws.reshape(*labels.shape, -1)
        draws *= self.spread[labels, rows][:, :, None]
        return draws + self.loc[labels, :, rows]

    def _labels(self, n_samples, rng):
        n_components, n_rows = self.weights.shape
        total = np.cumsum(self.weights.T, axis=1)
        total /= total[:, -1:]
        # One search for all rows: row i has the numbers from i to i + 1.
        uniform = rng.random((n_samples, n_rows))
        start = np.arange(n_rows)
        ends = (total + start[:, None]).ravel()
        found = np.searchsorted(ends, uniform + start, side="right")
        return np.minimum(found - n_components * start, n_components - 1)

    def quantile(self, probabilities):
        rows_last = self.loc.transpose(2, 1, 0)  # (b, m, K), as all of these
        shape, n_components = rows_last.shape, rows_last.shape[2]
        spread = self.spread.T[:, None]
        df = self.residual.df
        df = np.broadcast_to(df if df.ndim == 1 else df.T, shape)
        arrays = self.weights.T[:, None], df, rows_last, spread * self.residual.width.T
        arrays = (np.broadcast_to(a, shape).reshape(-1, n_components) for a in arrays)
        return (
            LocationScaleMixture(*arrays)
            .quantile(probabilities)
            .reshape(*shape[:2], -1)
        )


class ComponentsGiven:
    """The components' laws of some coordinates, given the values of others.

    Parameters
    ----------
    lead : components of the given coordinates
    residual : components of the asked ones, about zero
    loc : array of shape (K, m)
    slope : array of shape (K, m, g) or None
        Of the asked on the whitened given.
    """

    def __init__(self, lead, residual, loc, slope):
        self.lead, self.residual = lead, residual
        self.loc, self.slope = loc[:, :, None], slope
        self.size = lead.loc.size + loc.size  # of all that a row needs

    def at(self, x):
        """Log density of x (g, b), the locations and the spreads, as in ``_Block``."""
        z = self.lead.whiten(x)
        loc = self.loc if self.slope is None else self.loc + self.slope @ z
        return self.lead.log_density_of(z), loc, self.lead.spread(z)


class _Components:
    """What the two forms below share. Arrays of rows are (K, D, b) inside."""

    def __init__(self, df, loc, scale):
        self.loc = np.asarray(loc, dtype=np.float64)
        df, scale = (np.asarray(a, dtype=np.float64) for a in (df, scale))
        n_components = self.loc.shape[0]
        self.df = np.broadcast_to(df, self.loc.shape[: max(1, df.ndim)])
        self.scale = np.broadcast_to(scale, (n_components, *scale.shape[1:]))
        self.full = self.scale.ndim == 3

    @cached_property
    def _whitener(self):
        if self.full and self.scale.size > 0:
            return inverse_lower(self.scale)
        return 1.0 / self.scale

    def whiten(self, x):
        """Standardised coordinates of x, of shape (D, b) or (K, D, b)."""
        z = x - self.loc[:, :, None]
        if self.full:
            return self._whitener @ z
        z *= self._whitener[:, :, None]
        return z

    def log_density(self, x):
        """Log densities (K, b) at x, of shape (D, b) or (K, D, b)."""
        return self.log_density_of(self.whiten(x))

    @property
    def width(self):
        """Scale of each coordinate's own law, shape (K, D)."""
        return np.linalg.norm(self.scale, axis=2) if self.full else self.scale

    def variance(self):
        inflation = self._inflation()
        if self.df.ndim == 1:
            inflation = inflation[:, None]
        return self.width**2 * inflation

    def _inflation(self):
        """The ratio of variance to squared scale."""
        finite = np.isfinite(self.df) & (self.df > 2.0)
        ratio = np.where(np.isinf(self.df), 1.0, np.inf)
        return np.divide(self.df, self.df - 2.0, out=ratio, where=finite)

    def rescaled(self, scale, shift=0.0):
        scale = np.asarray(scale, dtype=np.float64)
        factor = scale[..., None] if self.full else np.abs(scale)
        return type(self)(self.df, shift + scale * self.loc, factor * self.scale)


class JointStudent(_Components):
    """K multivariate Student-t laws: df (K,), scale (K, D, D) or (K, D) if diagonal."""

    @cached_property
    def _constant(self):
        dim = self.loc.shape[1]
        diagonal = self.scale
        if self.full:
            diagonal = np.diagonal(self.scale, axis1=1, axis2=2)
        log_det = np.log(np.abs(diagonal)).sum(axis=1)
        ratio = log_gamma_ratio(0.5 * self.df, 0.5 * dim)
        return (ratio - 0.5 * dim * LOG_2PI - log_det)[:, None]

    def log_density_of(self, z):
        square = np.einsum("kdb,kdb->kb", z, z)
        return self._constant + log_kernel(square, self.df[:, None], z.shape[1])

    def spread(self, z):
        """By what having seen z widens the law of other coordinates, (K, b)."""
        square, df = np.einsum("kdb,kdb->kb", z, z), self.df[:, None]
        gaussian = np.isinf(df)
        df = np.where(gaussian, 1.0, df)
        ratio = (df + square) / (df + z.shape[1])
        return np.sqrt(np.where(gaussian, 1.0, ratio))

    def marginal(self, index):
        if np.array_equal(index, np.arange(self.loc.shape[1])):
            return self
        scale = self.scale[:, index]
        if self.full:
            # A triangular factor of the shape matrix of rows of a factor, which is
            # never formed: its condition is the square of theirs.
            scale = np.linalg.qr(np.swapaxes(scale, 1, 2), mode="r")
            scale = np.swapaxes(scale, 1, 2)
        return JointStudent(self.df, self.loc[:, index], scale)

    def conditional(self, given, asked):
        g = given.shape[0]
        law = self.marginal(np.concatenate([given, asked]))
        scale, loc = law.scale, law.loc
        if self.full:
            head, slope, rest = scale[:, :g, :g], scale[:, g:, :g], scale[:, g:, g:]
        else:
            head, slope, rest = scale[:, :g], None, scale[:, g:]
        lead = JointStudent(self.df, loc[:, :g], head)
        residual = JointStudent(self.df + g, np.zeros_like(loc[:, g:]), rest)
        return ComponentsGiven(lead, residual, loc[:, g:], slope)

    def covariance(self):
        factor = self.scale
        if not self.full:
            factor = factor[:, :, None] * np.eye(factor.shape[1])
        inflation = self._inflation()[:, None, None]
        finite = np.where(np.isinf(inflation), np.nan, inflation)
        out = finite * (factor @ np.swapaxes(factor, 1, 2))
        diagonal = np.arange(factor.shape[1])
        out[:, diagonal, diagonal] = self.variance()
        return out

    def sample(self, labels, rng):
        out = rng.standard_normal((labels.shape[0], self.loc.shape[1]))
        for k in range(self.loc.shape[0]):
            rows, df = np.flatnonzero(labels == k), self.df[k]
            z = out[rows]
            if np.isfinite(df):
                z /= np.sqrt(rng.chisquare(df, (rows.shape[0], 1)) / df)
            z = z @ self.scale[k].T if self.full else z * self.scale[k]
            out[rows] = self.loc[k] + z
        return out


class IndependentStudent(_Components):
    """K products of univariate Student-t laws: df and scale of shape (K, D)."""

    @cached_property
    def _constant(self):
        each = log_gamma_ratio(0.5 * self.df, 0.5) - np.log(self.scale)
        return (each - 0.5 * LOG_2PI).sum(axis=1, keepdims=True)

    def log_density_of(self, z):
        each = log_kernel(np.square(z), self.df[:, :, None], 1)
        return self._constant + each.sum(axis=1)

    def spread(self, z):
        return np.ones((z.shape[0], z.shape[2]))

    def marginal(self, index):
        columns = self.df[:, index], self.loc[:, index], self.scale[:, index]
        return IndependentStudent(*columns)

    def conditional(self, given, asked):
        law = self.marginal(asked)
        residual = IndependentStudent(law.df, np.zeros_like(law.loc), law.scale)
        return ComponentsGiven(self.marginal(given), residual, law.loc, None)

    def covariance(self):
        variance = self.variance()
        out = np.zeros((*variance.shape, variance.shape[1]))
        diagonal = np.arange(variance.shape[1])
        out[:, diagonal, diagonal] = variance
        return out

    def sample(self, labels, rng):
        df = self.df[labels]
        z = rng.standard_normal(df.shape)
        finite = np.isfinite(df)
        z[finite] /= np.sqrt(rng.chisquare(df[finite]) / df[finite])
        return self.loc[labels] + z * self.scale[labels]


def missing_patterns(X, columns=None):
    """The groups of rows that miss the same entries, [(rows, observed columns)].

    Only ``columns`` (default: all) are looked at.
    """
    columns = np.arange(X.shape[1]) if columns is None else columns
    blocks = block_slices(X.shape[0], X.shape[1])
    bits = [np.packbits(np.isnan(X[cut][:, columns]), axis=1) for cut in blocks]
    bits = np.concatenate(bits)
    if not bits.any():
        return [(np.arange(X.shape[0]), columns)]
    # As one item a row: sorting rows of bytes is five times slower.
    items = np.ascontiguousarray(bits).view(f"V{bits.shape[1]}")[:, 0]
    _, first, group = np.unique(items, return_index=True, return_inverse=True)
    rows = np.split(
        np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1]
    )
    missing = np.unpackbits(bits[first], axis=1, count=columns.shape[0])
    return [(r, columns[mask == 0]) for r, mask in zip(rows, missing)]


def log_gamma_ratio(a, b):
    """``log Gamma(a + b) / Gamma(a) - b log a``, which falls to zero as a grows.

    In that range ``betaln`` is a difference of large numbers (1e-9 at a = 1e6).
    """
    a = np.asarray(a, dtype=np.float64)
    small, large = np.minimum(a, SERIES_FROM), np.maximum(a, SERIES_FROM)
    large = np.where(np.isinf(a), SERIES_FROM, large)
    direct = special.gammaln(small + b) - special.gammaln(small) - b * np.log(small)
    series = (large + b - 0.5) * np.log1p(b / large) - b
    series = series + _stirling_rest(large + b) - _stirling_rest(large)
    ratio = np.where(a < SERIES_FROM, direct, series)
    return np.where(np.isinf(a), 0.0, ratio)


def _stirling_rest(x):
    """What Stirling's formula for log Gamma lacks."""
    inverse = 1.0 / x
    square = inverse * inverse
    return inverse * (1 / 12 - square * (1 / 360 - square / 1260))


def log_kernel(square, df, dim):
    """``-(df + dim) / 2 log(1 + square / df)`` and its limit as df grows."""
    gaussian = np.isinf(df)
    if gaussian.all():
        return -0.5 * square
    finite = np.where(gaussian, 1.0, df)
    out = np.log1p(square / finite)
    out *= -0.5 * (finite + dim)
    return np.where(gaussian, -0.5 * square, out) if gaussian.any() else out


def _columns(X, rows, columns):
    """Some entries of X with rows last, float64."""
    return np.ascontiguousarray(X[rows][:, columns].T, dtype=np.float64)


def _log_sum(parts):
    """Log of the sum of exponentials along the first axis."""
    top = parts.max(axis=0)
    return top + np.log(np.exp(parts - top).sum(axis=0))


def _log_normalised(parts):
    # Relative to the largest first: that of a remote row is huge, and its digits would
    # be missing from the sum of the probabilities.
    parts = parts - parts.max(axis=0)
    return parts - _log_sum(parts)
