"""Likelihoods of a linear predictor: log densities, derivatives, expectations."""

from skvi.likelihoods.base import Expectations, Likelihood
from skvi.likelihoods.bernoulli import BernoulliLogit, BernoulliProbit
from skvi.likelihoods.binomial import Binomial
from skvi.likelihoods.continuous import Gaussian, StudentT
from skvi.likelihoods.multinomial import Softmax
from skvi.likelihoods.negative_binomial import NegativeBinomial
from skvi.likelihoods.poisson import Poisson

__all__ = [
    "BernoulliLogit",
    "BernoulliProbit",
    "Binomial",
    "Expectations",
    "Gaussian",
    "Likelihood",
    "NegativeBinomial",
    "Poisson",
    "Softmax",
    "StudentT",
]
