"""The hidden Markov model: chains, emissions, starts and the predictive chain."""

from skvi.models.hmm.emissions import (
    BernoulliEmissions,
    CategoricalEmissions,
    CodeRows,
    CountRows,
    GaussianEmissions,
    PoissonEmissions,
)
from skvi.models.hmm.model import FAMILIES, Block, HMMModel
from skvi.models.hmm.posterior import HMMPosterior
from skvi.models.hmm.predictive import PredictiveChain
from skvi.models.hmm.search import Settings
from skvi.models.sequences import Sequences

__all__ = [
    "FAMILIES",
    "BernoulliEmissions",
    "Block",
    "CategoricalEmissions",
    "CodeRows",
    "CountRows",
    "GaussianEmissions",
    "HMMModel",
    "HMMPosterior",
    "PoissonEmissions",
    "PredictiveChain",
    "Sequences",
    "Settings",
]
