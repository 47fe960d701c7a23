"""Generalised linear models by natural-gradient variational inference."""

from skvi.models.glm.data import Block, ColumnTotals, Frame
from skvi.models.glm.families import FAMILIES, ColumnSites, RowSites
from skvi.models.glm.model import GLMModel
from skvi.models.glm.posterior import GLMPosterior
from skvi.models.glm.response import linear_response
from skvi.models.glm.search import run

__all__ = [
    "FAMILIES",
    "Block",
    "ColumnSites",
    "ColumnTotals",
    "Frame",
    "GLMModel",
    "GLMPosterior",
    "RowSites",
    "linear_response",
    "run",
]
