"""Gaussians that sites of grouped rows make with a prior.

==================  ==================================================================
structured          ``N(m, P^-1)``, P an arrow: one Gaussian over all effects
mean_field          the same mean, and P's diagonal blocks: the common weights, and the
                    effects of each level, are independent of all else
==================  ==================================================================

The mean-field mean solves with the full P, whose stationary point is the same: steps
that solve with the blocks alone creep where factors are crossed.
"""

from skvi.distributions import Gaussian
from skvi.linalg import ArrowBlocks, ArrowPrecision


class Structured:
    """One Gaussian over everything."""

    @staticmethod
    def gaussian(gram, linear, ridge, precisions):
        precision = ArrowPrecision(gram, ridge, precisions)
        return Gaussian(precision.solve(linear), precision)


class MeanField:
    """Independent blocks."""

    @staticmethod
    def gaussian(gram, linear, ridge, precisions):
        mean = ArrowPrecision(gram, ridge, precisions).solve(linear)
        return Gaussian(mean, ArrowBlocks(gram, ridge, precisions))


FAMILIES = {"mean_field": MeanField, "structured": Structured}
