"""The kinds of emissions as users see them: data, priors and attributes of each."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from skvi.distributions import Beta, Dirichlets, Gamma
from skvi.estimators.gaussian_components import GaussianPriors, component_attributes
from skvi.estimators.priors import concentrations, gamma_pair
from skvi.models.hmm import (
    BernoulliEmissions,
    CategoricalEmissions,
    CodeRows,
    CountRows,
    GaussianEmissions,
    PoissonEmissions,
)
from skvi.models.mixture import Frame, Rows, Totals, geometry_for
from skvi.models.mixture.search import OUTLYING
from skvi.models.mixture.totals import pass_slices

RATE_SHAPE = 1.0  # of the prior of a rate: about a factor of three up or down
PROBABILITY = 0.5  # concentration of each outcome: Jeffreys' prior
# Units from the centre at which numbers are as good as infinite, their squares not.
FARTHEST = {"float64": 1e100, "float32": 1e15}
MOST_CATEGORIES = 1 << 20
MOST_FEATURES = 64  # that categories are told apart by where a fit starts


class EmissionKind(ABC):
    """What an estimator asks of a kind of emission.

    It has the parameters of the estimator that concern it, as they are now: a fit's
    own kind answers for it, whatever parameters are set later. All else is a function
    of the data that it is given; the frame holds the units of a fit (or None).
    """

    positive_only = True
    parameters = ()

    def __init__(self, estimator):
        self.owner = type(estimator).__name__
        for name in ("n_components", "emissions", *self.parameters):
            setattr(self, name, getattr(estimator, name))

    @property
    def n_states(self):
        return self.n_components

    def check(self, X):
        """Errors for values that are none of this kind."""
        for part in pass_slices(X):
            if np.any(X[part] < 0.0):
                raise ValueError(
                    "Negative values in data passed to "
                    f"{self.owner} (input X): emissions={self.emissions!r} are counts "
                    "or codes, which start at 0."
                )

    def frame(self, X, weight):
        """The units of a fit to X, rows of which have weights or None."""
        return None

    @abstractmethod
    def rows(self, X, weight, frame):
        """The data as the model reads them."""

    def totals(self, rows, sequences):
        """Sums that default priors rest on; they add over blocks of data."""
        return NoTotals()

    @abstractmethod
    def build(self, totals, frame, rows):
        """(Emissions with a resolved prior, prior attributes)."""

    def emissions_for(self, emissions, rows, for_draws=False):
        """The same prior, reading other rows, of which missing entries are drawn."""
        return emissions

    @abstractmethod
    def features(self, rows, totals):
        """A function of an index of steps: numbers to cluster them by."""

    def outward(self, q, frame):
        """The posterior of the parameters in the data's units."""
        return q

    def in_units(self, q, before, frame):
        """The posterior of a fit in the units ``before``, in those of a frame."""
        return q

    def log_units(self, totals, frame):
        """(nats that densities, and latent entries, change by the units)."""
        return 0.0, 0.0

    @abstractmethod
    def attributes(self, q):
        """Fitted attributes of the posterior in the data's units."""

    def inward_draws(self, draws, frame):
        """Draws of the parameters in the model's units."""
        return draws

    def inward(self, X, frame):
        """X in the model's units, with the log volume of a step's units."""
        return X, 0.0

    @abstractmethod
    def summary(self, q, names, tail):
        """(labels, columns mean, sd, lower, upper, P(> 0)) of the parameters."""


@dataclass(frozen=True)
class NoTotals:
    """Where default priors do not look at the data."""

    def __add__(self, other):
        return self


def _table(mean, sd, lower, upper, positive):
    """Columns of a summary, a row for each parameter."""
    columns = mean, sd, lower, upper, np.broadcast_to(positive, mean.shape)
    return np.stack(columns, axis=-1).reshape(-1, 5)


def _labels(name, n_states, names):
    return [f"{name}[{k}, {each}]" for k in range(n_states) for each in names]


class Gaussian(EmissionKind):
    positive_only = False
    parameters = (
        "covariance_type",
        "mean_prior",
        "mean_precision_prior",
        "degrees_of_freedom_prior",
        "covariance_prior",
    )

    @property
    def _kind(self):
        return self.covariance_type

    def check(self, X):
        """Every number is one."""

    def frame(self, X, weight):
        # Medians: one wild step must not hide what the others do.
        return Frame.of(X, weight, common=self._kind == "spherical", robust=True)

    def rows(self, X, weight, frame):
        return Rows(_clipped(X, frame), weight, frame)

    def totals(self, rows, sequences):
        products = self._kind in ("full", "tied")
        if rows.has_missing:
            # A step without a number tells nothing.
            told = ~np.isnan(rows.X).all(axis=1)
            told = told if rows.weight is None else told * rows.weight
            rows = Rows(rows.X, told.astype(np.float64), rows.frame)
        return Totals.of(rows, products)

    def _geometry(self, rows, for_draws=False):
        missing = rows.has_missing
        patterns = for_draws or not (missing and rows.rows_are_patterns)
        return geometry_for(self._kind, rows.dim, missing, patterns, skip_empty=True)

    def build(self, totals, frame, rows):
        empty = np.flatnonzero(totals.observed == 0.0)
        if empty.size:
            raise ValueError(
                f"Feature(s) {empty.tolist()} of X hold no number at all (only NaN): "
                "drop them."
            )
        priors = GaussianPriors.resolve(self, totals, frame)
        prior = priors.components(self.n_states, self._kind)
        emissions = GaussianEmissions(prior, self._geometry(rows))
        return emissions, priors.attributes(frame, self._kind)

    def emissions_for(self, emissions, rows, for_draws=False):
        return GaussianEmissions(emissions.prior, self._geometry(rows, for_draws))

    def features(self, rows, totals):
        mean, scale = totals.mean, totals.scale

        def of(index):
            Z = (rows.standard(index, np.float64) - mean) / scale
            return np.clip(np.where(np.isnan(Z), 0.0, Z), -OUTLYING, OUTLYING)

        return of

    def outward(self, q, frame):
        spherical = self._kind == "spherical"
        return q.rescaled(frame.unit[0] if spherical else frame.unit, frame.centre)

    def in_units(self, q, before, frame):
        scale = before.unit / frame.unit
        shift = (before.centre - frame.centre) / frame.unit
        if np.all(scale == 1.0) and np.all(shift == 0.0):
            return q
        return q.rescaled(scale[0] if self._kind == "spherical" else scale, shift)

    def log_units(self, totals, frame):
        log_unit = np.log(frame.unit)
        missing = totals.weight - totals.observed
        latent = missing @ log_unit if self._kind in ("full", "tied") else 0.0
        return -float(totals.observed @ log_unit), float(latent)

    def attributes(self, q):
        return {
            **component_attributes(q, self._kind),
            "means_std_": np.sqrt(q.variance("means")),
            "means_covariance_": q.covariance("means"),
        }

    def inward_draws(self, draws, frame):
        unit, precision = frame.unit, draws["precisions"]
        if self._kind in ("full", "tied"):
            square = unit * unit[:, None]
        else:
            square = unit[0] ** 2 if self._kind == "spherical" else unit**2
        means = (draws["means"] - frame.centre) / unit
        return {**draws, "means": means, "precisions": precision * square}

    def inward(self, X, frame):
        log_unit = (~np.isnan(X)) @ np.log(frame.unit)
        return frame.inward(_clipped(X.astype(np.float64), frame)), log_unit

    def summary(self, q, names, tail):
        law = stats.t(*q.means_law())
        mean, sd = q.location, np.sqrt(q.variance("means"))
        ends = law.ppf(tail), law.ppf(1.0 - tail), law.sf(0.0)
        return _labels("mean", len(mean), names), _table(mean, sd, *ends)


def _clipped(X, frame):
    """X where squares of it are numbers."""
    limit = FARTHEST[X.dtype.name] * frame.unit
    low = (frame.centre - limit).astype(X.dtype)
    high = (frame.centre + limit).astype(X.dtype)
    if any(np.any((X[i] < low) | (X[i] > high)) for i in pass_slices(X)):
        return np.clip(X, low, high)
    return X


@dataclass(frozen=True)
class CountTotals:
    """Sums of counts of each column, and how many there are."""

    total: np.ndarray
    observed: np.ndarray

    def __add__(self, other):
        return CountTotals(self.total + other.total, self.observed + other.observed)

    @property
    def mean(self):
        mean = self.total / np.maximum(self.observed, 1.0)
        return np.where(mean > 0.0, mean, 1.0)


def _standardised(transform, rows):
    """Features that ``transform`` makes of some rows, of unit variance."""
    n = total = square = 0.0
    for part in pass_slices(rows.X):
        Z = transform(rows.X[part].astype(np.float64))
        present = ~np.isnan(Z)
        Z = np.where(present, Z, 0.0)
        n, total = n + present.sum(axis=0), total + Z.sum(axis=0)
        square = square + (Z**2).sum(axis=0)
    n = np.maximum(n, 1.0)
    mean = total / n
    sd = np.sqrt(np.maximum(square / n - mean**2, 0.0))
    sd = np.where(sd > 1e-12 * np.abs(mean), sd, 1.0)

    def of(index):
        Z = (transform(rows.X[index].astype(np.float64)) - mean) / sd
        return np.where(np.isnan(Z), 0.0, Z)

    return of


class Poisson(EmissionKind):
    parameters = ("rate_prior",)

    def rows(self, X, weight, frame):
        return CountRows(X, _poisson_base)

    def totals(self, rows, sequences):
        weight, dim = sequences.step_weight, rows.dim
        totals = CountTotals(np.zeros(dim), np.zeros(dim))
        for part in pass_slices(rows.X):
            x = rows.X[part].astype(np.float64)
            observed = ~np.isnan(x)
            w = weight[part] if weight.size else np.ones(len(x))
            totals += CountTotals(w @ np.where(observed, x, 0.0), w @ observed)
        return totals

    def build(self, totals, frame, rows):
        value = self.rate_prior
        dim = len(totals.mean)
        a, b = gamma_pair(value, (RATE_SHAPE, 1.0), "rate_prior")
        b = np.full(dim, b) if value is not None else a / totals.mean
        shape = self.n_states, dim
        prior = Gamma(np.full(shape, a), np.broadcast_to(b, shape))
        return PoissonEmissions(prior), {"rate_prior_": (a, b)}

    def features(self, rows, totals):
        return _standardised(np.sqrt, rows)  # of about the same spread at every rate

    def attributes(self, q):
        return {"rates_": q.mean, "rates_std_": np.sqrt(q.variance())}

    def summary(self, q, names, tail):
        law = stats.gamma(q.shape, scale=1.0 / q.rate)
        ends = law.ppf(tail), law.ppf(1.0 - tail), 1.0
        table = _table(q.mean, np.sqrt(q.variance()), *ends)
        return _labels("rate", len(q.mean), names), table


def _poisson_base(x):
    return -special.gammaln(x + 1.0)


def _concentration(value):
    if value is None:
        return PROBABILITY
    return float(concentrations(value, (), "probability_prior"))


class Bernoulli(EmissionKind):
    parameters = ("probability_prior",)

    def rows(self, X, weight, frame):
        return CountRows(_ones(X))

    def build(self, totals, frame, rows):
        a = np.full(rows.dim, _concentration(self.probability_prior))
        shape = self.n_states, rows.dim
        prior = Beta(np.broadcast_to(a, shape), np.broadcast_to(a, shape))
        return BernoulliEmissions(prior), {"probability_prior_": (a, a.copy())}

    def features(self, rows, totals):
        return _standardised(np.asarray, rows)

    def attributes(self, q):
        return {"emissionprob_": q.mean, "emissionprob_std_": np.sqrt(q.variance())}

    def inward(self, X, frame):
        return _ones(X), 0.0

    def summary(self, q, names, tail):
        ends = np.moveaxis(q.interval(1.0 - 2.0 * tail), -1, 0)
        table = _table(q.mean, np.sqrt(q.variance()), *ends, 1.0)
        return _labels("probability", len(q.mean), names), table


def _ones(X):
    """One where an entry is above zero, NaN where it is missing."""
    return np.where(np.isnan(X), np.nan, X > 0.0)


class Categorical(EmissionKind):
    parameters = ("probability_prior", "n_categories")

    def check(self, X):
        super().check(X)
        with np.errstate(invalid="ignore"):
            highest = np.nanmax(np.floor(X), initial=0.0)
        if highest >= MOST_CATEGORIES:
            raise ValueError(
                f"X has the code {highest:.0f}; categories are numbered 0, 1, 2, ..., "
                f"below {MOST_CATEGORIES}: encode them first, for example with "
                "sklearn.preprocessing.OrdinalEncoder."
            )

    def frame(self, X, weight):
        """The numbers of categories of each column: what a fit's codes are."""
        seen = [_n_categories(column) for column in X.T]
        value = self.n_categories
        if value is None:
            return np.array(seen)
        sizes = np.asarray(value)
        right = sizes.dtype.kind in "iu" and sizes.shape in {(), (X.shape[1],)}
        if not right or np.any(sizes < 1):
            raise ValueError(
                f"n_categories={value!r} must be a positive integer, or one for each "
                f"of the {X.shape[1]} columns."
            )
        sizes = np.broadcast_to(sizes, X.shape[1]).copy()
        self._check_codes(X, sizes)
        return sizes

    def _check_codes(self, X, sizes):
        for d, (column, size) in enumerate(zip(X.T, sizes)):
            highest = _n_categories(column) - 1
            if highest >= size:
                raise ValueError(
                    f"Column {d} of the features has the code {highest}, but there are "
                    f"{size} categories, 0 to {size - 1}. If it can occur, pass "
                    f"n_categories={highest + 1} (or more) to the estimator that is "
                    "fitted."
                )

    def rows(self, X, weight, frame):
        codes, _ = self.inward(X, frame)
        return CodeRows(np.ascontiguousarray(codes.T), int(frame.sum()))

    def in_units(self, q, before, frame):
        if not np.array_equal(before, frame):
            raise ValueError(
                f"X has {frame.tolist()} categories in its columns, the last fit had "
                f"{before.tolist()}: pass n_categories to both, or set "
                "warm_start=False."
            )
        return q

    def inward(self, X, frame):
        self._check_codes(X, frame)
        offset = np.append(0, frame.cumsum()[:-1])
        codes = np.nan_to_num(np.floor(X), nan=0.0).astype(np.intp) + offset
        codes[np.isnan(X)] = frame.sum()
        return codes, 0.0

    def build(self, totals, frame, rows):
        a = np.full(rows.n_codes, _concentration(self.probability_prior))
        prior = Dirichlets(np.tile(a, (self.n_states, 1)), frame)
        attributes = {"probability_prior_": a, "n_categories_": frame}
        return CategoricalEmissions(prior), attributes

    def features(self, rows, totals):
        size = rows.n_codes
        if size <= MOST_FEATURES:
            table = np.eye(size)
        else:
            table = np.random.default_rng(size).standard_normal((size, MOST_FEATURES))
        table = np.vstack([table, table.mean(axis=0)])

        def of(index):
            return sum(table[codes] for codes in rows.codes[:, index])

        return of

    def attributes(self, q):
        return {"emissionprob_": q.mean, "emissionprob_std_": np.sqrt(q.variance())}

    def summary(self, q, names, tail):
        lower, upper = np.moveaxis(q.interval(1.0 - 2.0 * tail), -1, 0)
        table = _table(q.mean, np.sqrt(q.variance()), lower, upper, 1.0)
        each = [
            f"{name}={code}" for name, n in zip(names, q.sizes) for code in range(n)
        ]
        return _labels("probability", len(q.mean), each), table


def _n_categories(column):
    return 1 + int(np.nanmax(np.floor(column), initial=0.0))


EMISSIONS = {
    "gaussian": Gaussian,
    "categorical": Categorical,
    "poisson": Poisson,
    "bernoulli": Bernoulli,
}
