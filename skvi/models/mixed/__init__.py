"""Mixed-effects models."""

from skvi.models.mixed.components import ConjugatePrior, ScalePrior
from skvi.models.mixed.families import FAMILIES
from skvi.models.mixed.gaussian_rows import GaussianRows
from skvi.models.mixed.law import NOISE, EffectsLaw, variance_nodes
from skvi.models.mixed.model import Block
from skvi.models.mixed.posterior import parts_of
from skvi.models.mixed.response import linear_response
from skvi.models.mixed.search import run
from skvi.models.mixed.sited_rows import SitedRows

__all__ = [
    "FAMILIES",
    "NOISE",
    "Block",
    "ConjugatePrior",
    "EffectsLaw",
    "GaussianRows",
    "ScalePrior",
    "SitedRows",
    "linear_response",
    "parts_of",
    "run",
    "variance_nodes",
]
