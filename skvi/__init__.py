"""Variational inference for people who use scikit-learn."""

from skvi._unwrap import unwrap
from skvi.columns import sequence_ids
from skvi.estimators.glm import VariationalGLMRegressor
from skvi.estimators.hmm import VariationalHMM
from skvi.estimators.lds import VariationalLinearDynamicalSystem
from skvi.estimators.logistic import VariationalLogisticClassifier
from skvi.estimators.mixed_classifier import VariationalMixedEffectsClassifier
from skvi.estimators.mixed_regressor import VariationalMixedEffectsRegressor
from skvi.estimators.mixture import VariationalGaussianMixture
from skvi.estimators.regression import VariationalBayesianRegression
from skvi.estimators.topics import VariationalTopicModel

__version__ = "0.1.0"

__all__ = [
    "VariationalBayesianRegression",
    "VariationalGLMRegressor",
    "VariationalGaussianMixture",
    "VariationalHMM",
    "VariationalLinearDynamicalSystem",
    "VariationalLogisticClassifier",
    "VariationalMixedEffectsClassifier",
    "VariationalMixedEffectsRegressor",
    "VariationalTopicModel",
    "sequence_ids",
    "unwrap",
]
