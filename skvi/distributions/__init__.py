"""Distributions: the factors that priors and posteriors are made of."""

from skvi.distributions.base import Distribution, ExponentialFamily, PointMass
from skvi.distributions.dirichlet import Dirichlet
from skvi.distributions.gamma import Gamma
from skvi.distributions.gaussian import Gaussian
from skvi.distributions.location_scale import LocationScaleMixture
from skvi.distributions.normal_gamma import NormalGamma
from skvi.distributions.product import Product, Rescaled

__all__ = [
    "Dirichlet",
    "Distribution",
    "ExponentialFamily",
    "Gamma",
    "Gaussian",
    "LocationScaleMixture",
    "NormalGamma",
    "PointMass",
    "Product",
    "Rescaled",
]
