"""The Gaussian mixture: model, geometry of rows, emissions, starts and moves."""

from skvi.models.mixture.build import geometry_for
from skvi.models.mixture.emission import GaussianEmission, StudentEmission
from skvi.models.mixture.model import FAMILIES, MixtureModel
from skvi.models.mixture.posterior import MixturePosterior
from skvi.models.mixture.rows import Frame, Rows, Totals
from skvi.models.mixture.search import Settings

__all__ = [
    "FAMILIES",
    "Frame",
    "GaussianEmission",
    "MixtureModel",
    "MixturePosterior",
    "Rows",
    "Settings",
    "StudentEmission",
    "Totals",
    "geometry_for",
]
