"""The linear dynamical system: chains, dynamics, observations, starts, predictions."""

from skvi.models.lds.block import Block
from skvi.models.lds.dynamics import (
    FreeDynamics,
    FreeInitial,
    KnownDynamics,
    KnownInitial,
    StructuralDynamics,
)
from skvi.models.lds.families import FAMILIES
from skvi.models.lds.gaussian import FreeLoadings, KnownLoadings
from skvi.models.lds.model import LDSModel, LDSPosterior
from skvi.models.lds.poisson import FreeLogLoadings, KnownLogLoadings
from skvi.models.lds.search import Settings
from skvi.models.lds.structures import COMPONENTS, Structure
from skvi.models.lds.totals import Totals

__all__ = [
    "COMPONENTS",
    "FAMILIES",
    "Block",
    "FreeDynamics",
    "FreeInitial",
    "FreeLoadings",
    "FreeLogLoadings",
    "KnownDynamics",
    "KnownInitial",
    "KnownLoadings",
    "KnownLogLoadings",
    "LDSModel",
    "LDSPosterior",
    "Settings",
    "StructuralDynamics",
    "Structure",
    "Totals",
]
