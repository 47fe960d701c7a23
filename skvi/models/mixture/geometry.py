r"""Rows as components see them: quadratic forms, and the moments they add up to.

A component reads a row x through ``E_q[(x - mu)' L (x - mu)]`` over the entries of x
that were observed, and gives back ``sum r``, ``sum r u``, ``sum r u x`` and
``sum r u x x'`` (r its share of the row; u the row's latent scale, 1 for a Gaussian).
A geometry is one way of computing both, chosen by the covariance type and the shape of
the data; it yields *pieces*, some rows that fit the cache, of which each answers

====================  ==================================================================
``quadratics(t)``     (K, m): the expected quadratic forms, at a posterior's table t
``log_dets(t)``       (K, 1) or (K, m): the expected log determinants that go with them
``log_densities(t)``  (K, m): ``(log_dets - quadratics - n_observed log 2 pi) / 2``
``n_observed``        a number or (m,): the observed entries of each row
``n_latent``          a number: entries of each row that are latent variables instead
====================  ==================================================================

All of these are linear in features T(x) of a row where D is small or covariances are
diagonal (``features.py``), so that one matrix product serves all components; otherwise
rows are whitened component by component (``whitened.py``), and rows with missing
entries are taken in groups of one pattern (``patterns.py``).
"""

from abc import ABC, abstractmethod

import numpy as np

from skvi.distributions.gaussian import LOG_2PI

CACHE_ELEMENTS = 1 << 18  # of a piece: in the cache, and calls are worth their cost
SMALLEST_PIECE, LARGEST_PIECE = 256, 4096


def piece_slices(rows, n_elements):
    """Slices of a slice of rows; a piece holds ``n_elements`` numbers a row."""
    fitting = int(np.clip(CACHE_ELEMENTS // n_elements, SMALLEST_PIECE, LARGEST_PIECE))
    return [
        slice(start, min(start + fitting, rows.stop))
        for start in range(rows.start, rows.stop, fitting)
    ]


class Geometry(ABC):
    """What a model asks of one."""

    tied = False  # whether components share the moments of second order
    row_size = 1  # numbers that it makes of a row
    has_latent = False  # whether missing entries are latent variables

    @abstractmethod
    def table(self, components):
        """What the pieces read of the posterior of the components."""

    @abstractmethod
    def pieces(self, data, rows, dtype=None):
        """Yield (piece, slice) over a slice of the rows of the data.

        The arithmetic is done in ``dtype``, that of the data by default.
        """

    @abstractmethod
    def sums(self, n_components):
        """Moments to add pieces to: ``add(piece, table, r, scaled)``, ``values()``.

        The values are ``rows``, ``weight``, ``total`` and ``outer``, as the components'
        ``absorb`` takes them, and ``entries``, the number of entries that have a
        density.
        """

    @staticmethod
    def energy(values, e):
        """``<moments, E[statistics]>``: the likelihood but for its constants."""
        log_det = e["log_det"] if "log_det" in e else e["log"]
        return 0.5 * (
            np.sum(_aligned(values["rows"], log_det))
            - np.sum(_aligned(values["outer"], e["value"]))
            + 2.0 * np.sum(values["total"] * e["linear"])
            - np.sum(_aligned(values["weight"], e["quadratic"]))
        )


def _aligned(moment, expected):
    """The product, where either may lack the axis of components or coordinates."""
    moment, expected = np.asarray(moment), np.asarray(expected)
    while moment.ndim < expected.ndim:
        moment = moment[..., None]
    if moment.ndim > expected.ndim:  # tied: one for all; spherical: one for the row
        axis = 0 if expected.ndim == 0 else -1
        moment = moment.sum(axis=axis)
    return moment * expected


class Piece(ABC):
    """Some rows; see the module's docstring."""

    n_latent = 0

    def copy(self):
        """The piece in memory of its own, where pieces follow each other in one."""
        return self

    @abstractmethod
    def quadratics(self, table):
        """Expected quadratic forms, (K, m)."""

    @abstractmethod
    def log_dets(self, table):
        """Expected log determinants, (K, 1) or (K, m)."""

    def log_densities(self, table):
        out = self.quadratics(table)
        out *= -0.5
        out += 0.5 * (self.log_dets(table) - LOG_2PI * self.n_observed)
        return out

    def latent_entropy(self, table, r):
        """Entropy of the latent entries of x, given u = 1, under the shares r."""
        return 0.0
