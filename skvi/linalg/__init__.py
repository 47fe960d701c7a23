"""Structured matrices: how a Gaussian stores its precision, and what it costs."""

from skvi.linalg.arrow import ArrowBlocks, ArrowPrecision
from skvi.linalg.block_tridiagonal import (
    BlockDiagonalPrecision,
    BlockTridiagonalPrecision,
    StepCovariances,
    pair_shares,
)
from skvi.linalg.covariance import (
    DenseCovariance,
    ScaledInverse,
    SpectralCovariance,
    as_matrix,
    restricted,
    scaled_covariance,
    symmetric_operator,
)
from skvi.linalg.gram import DenseGram, FactorGram, Spectrum
from skvi.linalg.grouped_rows import ArrowGram, ArrowLayout, GroupedRows
from skvi.linalg.precision import DensePrecision, DiagonalPrecision, DualPrecision
from skvi.linalg.rows import DenseRows, SparseRows
from skvi.linalg.sites import SitePrecision

__all__ = [
    "ArrowBlocks",
    "ArrowGram",
    "ArrowLayout",
    "ArrowPrecision",
    "BlockDiagonalPrecision",
    "BlockTridiagonalPrecision",
    "DenseCovariance",
    "DenseGram",
    "DensePrecision",
    "DenseRows",
    "DiagonalPrecision",
    "DualPrecision",
    "FactorGram",
    "GroupedRows",
    "ScaledInverse",
    "SitePrecision",
    "SparseRows",
    "SpectralCovariance",
    "Spectrum",
    "StepCovariances",
    "as_matrix",
    "pair_shares",
    "restricted",
    "scaled_covariance",
    "symmetric_operator",
]
