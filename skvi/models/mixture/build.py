"""From choices to a model: which geometry serves which rows."""

from skvi.models.mixture.features import (
    DiagonalFeatures,
    FullFeatures,
    ObservedFeatures,
)
from skvi.models.mixture.incomplete import Incomplete
from skvi.models.mixture.patterns import Patterns
from skvi.models.mixture.whitened import Tied, Whitened

FEATURES_UP_TO = 24  # columns; beyond, whitening is as fast and needs less memory


def geometry_for(covariance_type, dim, missing, patterns=True, skip_empty=False):
    """The geometry of rows of ``dim`` columns, with NaN or without.

    ``patterns`` says whether many rows miss the same entries. With ``skip_empty`` rows
    that miss all of them are left out, where they would be latent variables.
    """
    if covariance_type in ("diag", "spherical"):
        return ObservedFeatures(dim) if missing else DiagonalFeatures(dim)
    tied = covariance_type == "tied"
    if missing:
        return (Patterns if patterns else Incomplete)(dim, tied, skip_empty)
    if tied:
        return Tied(dim)
    return FullFeatures(dim) if dim <= FEATURES_UP_TO else Whitened(dim)
