r"""Sites, and the Gaussians that they make with a prior.

The likelihood enters a Gaussian q(theta) as one Gaussian *site* a row, with precision
W_i and linear term h_i in the row's linear predictor (``model.py``). With more rows
than weights the sites are summed, ``S = sum_i W_i (x) z_i z_i'`` and
``s = sum_i h_i (x) z_i`` (``ColumnSites``); with fewer they are kept by row, which is
less (``RowSites``).

==================  ==================================================================
structured          ``N(m, P^-1)``, ``P = S + Lambda``, ``P m = s``
mean_field          the same mean, and the diagonal of P: independent weights
==================  ==================================================================

The mean-field mean solves with the full P: the stationary point of the diagonal family
is the same, and steps that solve with the diagonal alone overshoot as soon as columns
correlate by more than one half.
"""

import numpy as np

from skvi.distributions import Gaussian
from skvi.linalg import DensePrecision, DiagonalPrecision, SitePrecision


class ColumnSites:
    """Sums over rows, for more rows than weights."""

    def __init__(self, n_outputs):
        self.n_outputs = n_outputs

    def of_rows(self, rows, precision, linear):
        """The additive statistics of some rows' sites."""
        S = rows.gram(precision).astype(np.float64, copy=False)
        return {"precision": S, "linear": rows.tdot(linear).T.ravel()}

    def by_column(self, values):
        """Statistics of the rows as those of ColumnSites."""
        return values

    def mended(self, sites, concave):
        """Extrapolated sites as the sites that some rows could have."""
        return sites

    def linear(self, sites):
        return sites["linear"]

    def precision(self, sites, ridge):
        P = sites["precision"].copy()
        P.flat[:: len(P) + 1] += np.tile(ridge, self.n_outputs)
        return DensePrecision(P)

    def diagonal(self, sites, ridge):
        return np.diag(sites["precision"]) + np.tile(ridge, self.n_outputs)


class RowSites:
    """The sites of the few rows there are."""

    def __init__(self, n_outputs, rows):
        self.n_outputs = n_outputs
        self.rows = rows

    def of_rows(self, rows, precision, linear):
        return {"precision": precision, "linear": linear}

    def by_column(self, values):
        S = self.rows.gram(values["precision"]).astype(np.float64, copy=False)
        return {**values, "precision": S, "linear": self.linear(values)}

    def mended(self, sites, concave):
        if not concave or sites["precision"].ndim > 1:
            return sites
        return {**sites, "precision": np.maximum(sites["precision"], 0.0)}

    def linear(self, sites):
        return self.rows.tdot(sites["linear"]).T.ravel()

    def precision(self, sites, ridge):
        W = sites["precision"]
        if W.ndim == 1 and W.min() < 0.0:
            # Where the likelihood is not concave there is no root to take.
            P = self.rows.gram(W).astype(np.float64, copy=False)
            return DensePrecision(P + np.diag(ridge))
        return SitePrecision(self.rows, ridge, W)

    def diagonal(self, sites, ridge):
        W = sites["precision"]
        each = W[:, None] if W.ndim == 1 else np.einsum("nkk->nk", W)
        return (self.rows.squares_tdot(each) + ridge[:, None]).T.ravel()


class Structured:
    """One Gaussian with full covariance."""

    @staticmethod
    def gaussian(space, sites, ridge):
        precision = space.precision(sites, ridge)
        return Gaussian(precision.solve(space.linear(sites)), precision)


class MeanField:
    """Independent weights."""

    @staticmethod
    def gaussian(space, sites, ridge):
        mean = space.precision(sites, ridge).solve(space.linear(sites))
        diagonal = space.diagonal(sites, ridge)
        if not diagonal.min() > 0.0:
            raise np.linalg.LinAlgError("a precision is not positive")
        return Gaussian(mean, DiagonalPrecision(diagonal))


FAMILIES = {"mean_field": MeanField, "structured": Structured}
