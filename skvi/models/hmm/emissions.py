"""What a state emits: log densities of steps, and what they add up to.

A state reads a step through ``E_q[log p(x | state)]`` and gives back the expected
sufficient statistics. Both are sums over features of the step, so that one matrix
product serves all states. Log densities leave out what is the same for all states
(factorials of counts): ``Counts.constant`` holds it.

=============  ==================  ====================  ===============================
emissions      prior of a state    data                  features of a step
=============  ==================  ====================  ===============================
Gaussian       Normal-Wishart,     ``Rows`` in standard  those of models/mixture
               Normal-Gamma        units
Counts         Gamma (Poisson),    ``CountRows``         o_d, o_d x_d; o_d = 1 where
               Beta (Bernoulli)                          observed
Categories     Dirichlets          ``CodeRows``          one for each code
=============  ==================  ====================  ===============================

Missing entries drop out of the features: they are integrated out exactly. Under full
and tied covariances they are latent variables, with the best q given the state.
"""

from abc import ABC, abstractmethod

import numpy as np

from skvi.distributions import NormalWishart
from skvi.distributions.gaussian import LOG_2PI
from skvi.models.hmm.laws import (
    BernoulliLaw,
    CategoricalLaw,
    NegativeBinomialLaw,
    PoissonLaw,
    StudentLaw,
)
from skvi.models.mixture.precision import working_dtype
from skvi.models.mixture.totals import pass_slices

# Of features that are made once rather than in each pass: 16 MB.
KEPT_ELEMENTS = 1 << 21


class Emissions(ABC):
    """One kind of emission, with its prior.

    Parameters
    ----------
    prior : distribution of the parameters of K states
        Its ``absorb`` takes what ``statistics`` returns, by name.
    """

    def __init__(self, prior):
        self.prior = prior

    def table(self, q):
        """What log densities read of the posterior q of the parameters."""
        return q.expect()

    def dtype(self, data, q):
        """The precision of log densities."""
        return np.dtype(np.float64)

    @abstractmethod
    def log_densities(self, data, table, steps, out):
        """Expected log densities of a slice of m steps, into an array (K, m)."""

    @abstractmethod
    def statistics(self, data, table, steps, shares):
        """Their expected statistics, by name, under the states' shares (K, m)."""

    @abstractmethod
    def absorb(self, values):
        """The conjugate update of the prior."""

    @abstractmethod
    def energy(self, values, q):
        """``E_q[log p(x | z)]`` from the statistics, but for ``constant``."""

    def constant(self, data, sequences):
        """What log densities leave out, each step as often as it counts."""
        return 0.0

    @abstractmethod
    def predictive(self, q):
        """The law of a step in each state, the parameters integrated out."""

    @abstractmethod
    def plug_in(self, draws, i):
        """The law of a step in each state under draw i of the parameters."""


class GaussianEmissions(Emissions):
    """Means and precisions; rows as the geometries of mixtures see them.

    Parameters
    ----------
    prior : NormalWishart or DiagonalNormalGamma
    geometry : Geometry
    """

    def __init__(self, prior, geometry):
        super().__init__(prior)
        self.geometry = geometry

    def table(self, q):
        return self.geometry.table(q)

    def _pieces(self, data, steps, dtype):
        """Pieces of some steps, and where in these they are."""
        pieces = self.geometry.pieces(data, steps, dtype)
        if data.n * self.geometry.row_size <= KEPT_ELEMENTS:
            key = steps.start, steps.stop, np.dtype(dtype).name
            if key not in data.kept:
                data.kept[key] = [(piece.copy(), part) for piece, part in pieces]
            pieces = data.kept[key]
        for piece, part in pieces:
            if isinstance(part, slice):
                yield piece, slice(part.start - steps.start, part.stop - steps.start)
            else:
                yield piece, part - steps.start

    def dtype(self, data, q):
        return working_dtype(q, data)

    def log_densities(self, data, table, steps, out):
        if self.geometry.has_latent:
            out[:] = 0.0  # of steps without a number
        for piece, part in self._pieces(data, steps, out.dtype):
            out[:, part] = piece.log_densities(table)

    def statistics(self, data, table, steps, shares):
        sums = self.geometry.sums(len(shares))
        for piece, part in self._pieces(data, steps, shares.dtype):
            r = shares[:, part]
            sums.add(piece, table, r, r)
        return sums.values()

    def predictive(self, q):
        return StudentLaw(*q.predictive())

    def plug_in(self, draws, i):
        loc, precision = draws["means"][i], draws["precisions"][i]
        K, dim = loc.shape
        if isinstance(self.prior, NormalWishart):
            factor = np.linalg.cholesky(np.linalg.inv(precision))
            factor = np.broadcast_to(factor, (K, dim, dim))
            return StudentLaw(np.full(K, np.inf), loc, factor)
        scale = np.broadcast_to(precision.reshape(K, -1) ** -0.5, (K, dim))
        return StudentLaw(np.full((K, dim), np.inf), loc, scale)

    def absorb(self, values):
        return self.prior.absorb(
            values["weight"], values["total"], values["outer"], rows=values["rows"]
        )

    def energy(self, values, q):
        energy = self.geometry.energy(values, q.expect())
        return energy - 0.5 * LOG_2PI * values["entries"]


class CountRows:
    """Counts, which need no units.

    Parameters
    ----------
    X : array of shape (n, D)
        NaN where missing.
    base : callable or None
        The part of an entry's log density that does not depend on the state.
    """

    def __init__(self, X, base=None):
        self.X = X
        self.base = base
        self.n, self.dim = X.shape
        self.has_missing = any(np.isnan(X[part]).any() for part in pass_slices(X))

    def taken(self, index):
        return CountRows(self.X[index], self.base)

    def features(self, steps):
        """(entries, marks of those observed or None), of shape (m, D)."""
        x = self.X[steps]
        if not self.has_missing:
            return x, None
        observed = ~np.isnan(x)
        return np.where(observed, x, 0.0).astype(x.dtype, copy=False), observed


class CountEmissions(Emissions):
    """Densities ``exp(a x + b)`` with a and b by state and column.

    Parameters
    ----------
    prior : distribution with the statistics that a and b are expectations of
    """

    @abstractmethod
    def coefficients(self, e):
        """E[a] and E[b], (K, D) each, from the posterior's expectations."""

    def log_densities(self, data, table, steps, out):
        a, b = self.coefficients(table)
        x, observed = data.features(steps)
        np.matmul(a, x.T.astype(np.float64, copy=False), out=out)
        if observed is None:
            out += b.sum(axis=1, keepdims=True)
        else:
            out += b @ observed.T.astype(np.float64)

    def statistics(self, data, table, steps, shares):
        x, observed = data.features(steps)
        total = shares @ x.astype(shares.dtype, copy=False)
        if observed is None:
            rows = shares.sum(axis=1, keepdims=True)
            return {"total": total, "rows": np.broadcast_to(rows, total.shape)}
        return {"total": total, "rows": shares @ observed.astype(shares.dtype)}

    def energy(self, values, q):
        a, b = self.coefficients(q.expect())
        return float(np.sum(values["total"] * a) + np.sum(values["rows"] * b))

    def constant(self, data, sequences):
        if data.base is None:
            return 0.0
        weight, total = sequences.step_weight, 0.0
        start = sequences.steps.start
        for part in pass_slices(data.X[sequences.steps]):
            x = data.X[start + part.start : start + part.stop].astype(np.float64)
            each = np.nansum(data.base(x), axis=1)
            total += float(weight[part] @ each if weight.size else each.sum())
        return total


class PoissonEmissions(CountEmissions):
    """Rates with a Gamma prior."""

    def coefficients(self, e):
        return e["log"], -e["value"]

    def absorb(self, values):
        return self.prior.absorb(log=values["total"], value=values["rows"])

    def predictive(self, q):
        return NegativeBinomialLaw(q.shape, q.rate)

    def plug_in(self, draws, i):
        return PoissonLaw(draws["rates"][i])


class BernoulliEmissions(CountEmissions):
    """Probabilities of ones with a Beta prior."""

    def coefficients(self, e):
        return e["log"] - e["log_rest"], e["log_rest"]

    def absorb(self, values):
        rest = np.maximum(values["rows"] - values["total"], 0.0)
        return self.prior.absorb(log=values["total"], log_rest=rest)

    def predictive(self, q):
        return BernoulliLaw(q.mean)

    def plug_in(self, draws, i):
        return BernoulliLaw(draws["probabilities"][i])


class CodeRows:
    """Codes of categories, made unique over columns.

    Parameters
    ----------
    codes : array of int of shape (D, n)
        Numbers below ``n_codes``, which itself stands for a missing entry.
    n_codes : int
    """

    has_missing = False  # a code like any other

    def __init__(self, codes, n_codes):
        self.codes = codes
        self.n_codes = n_codes
        self.dim, self.n = codes.shape

    def taken(self, index):
        return CodeRows(np.ascontiguousarray(self.codes[:, index]), self.n_codes)


class CategoricalEmissions(Emissions):
    """Probabilities of categories with a Dirichlet prior for each column."""

    def table(self, q):
        log = q.expect()["log"]
        return np.pad(log, ((0, 0), (0, 1)))  # a missing entry tells nothing

    def log_densities(self, data, table, steps, out):
        np.take(table, data.codes[0, steps], axis=1, out=out, mode="clip")
        for codes in data.codes[1:, steps]:
            out += table.take(codes, axis=1)

    def statistics(self, data, table, steps, shares):
        n_bins = data.n_codes + 1
        counts = np.zeros((len(shares), n_bins))
        for codes in data.codes[:, steps]:
            for total, share in zip(counts, shares):
                total += np.bincount(codes, share, n_bins)
        return {"counts": counts[:, :-1]}

    def absorb(self, values):
        return self.prior.absorb(log=values["counts"])

    def predictive(self, q):
        return CategoricalLaw(q.mean, q.sizes)

    def plug_in(self, draws, i):
        return CategoricalLaw(draws["probabilities"][i], self.prior.sizes)

    def energy(self, values, q):
        return float(np.sum(values["counts"] * q.expect()["log"]))
