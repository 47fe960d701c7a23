r"""The families of q(x): a Gaussian chain, or independent steps.

The bound is a quadratic form in x, ``-1/2 x'Jx + h'x`` with a block-tridiagonal J. The
best Gaussian is N(J^-1 h, J^-1); the best that has independent steps has the same means
and the inverses of the diagonal blocks of J as covariances, because coordinate ascent
in the means solves ``J m = h``, too.
"""

from skvi.distributions import GaussianChain
from skvi.linalg import BlockDiagonalPrecision


class Chain:
    """The structured family."""

    def best(self, precision, h):
        return GaussianChain(precision.solve(h), precision)


class IndependentSteps:
    """The mean-field family."""

    def best(self, precision, h):
        alone = BlockDiagonalPrecision(precision.blocks, precision.kind)
        return GaussianChain(precision.solve(h), alone)


FAMILIES = {"structured": Chain(), "mean_field": IndependentSteps()}
