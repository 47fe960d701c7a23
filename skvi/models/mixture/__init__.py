"""The Gaussian mixture: model, geometry of rows, emissions, starts and moves."""

from skvi.models.mixture.build import geometry_for
from skvi.models.mixture.emission import GaussianEmission, StudentEmission
from skvi.models.mixture.model import FAMILIES, MixtureModel
from skvi.models.mixture.posterior import MixturePosterior
from skvi.models.mixture.rows import Frame, Rows
from skvi.models.mixture.search import Settings
from skvi.models.mixture.totals import Totals

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
