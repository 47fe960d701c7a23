"""Bayesian linear regression: the model, its statistics and its posterior families."""

from skvi.models.regression.factorised import FactorisedPosterior
from skvi.models.regression.integrated import IntegratedPosterior
from skvi.models.regression.joint import JointPosterior
from skvi.models.regression.model import RegressionModel
from skvi.models.regression.moments import Moments

FAMILIES = {"mean_field": FactorisedPosterior, "structured": JointPosterior}

__all__ = [
    "FAMILIES",
    "FactorisedPosterior",
    "IntegratedPosterior",
    "JointPosterior",
    "Moments",
    "RegressionModel",
]
