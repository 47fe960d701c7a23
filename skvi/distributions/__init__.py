"""Distributions: the factors that priors and posteriors are made of."""

from skvi.distributions.base import Distribution, ExponentialFamily, PointMass
from skvi.distributions.beta import Beta
from skvi.distributions.dirichlet import Dirichlet
from skvi.distributions.dirichlet_of_counts import DirichletOfCounts
from skvi.distributions.dirichlets import Dirichlets
from skvi.distributions.gamma import Gamma
from skvi.distributions.gaussian import Gaussian
from skvi.distributions.gaussian_chain import GaussianChain
from skvi.distributions.inverse_gamma import InverseGamma
from skvi.distributions.inverse_wishart import InverseWishart
from skvi.distributions.location_scale import LocationScaleMixture
from skvi.distributions.log_normal import LogNormal
from skvi.distributions.named_gaussian import NamedGaussian
from skvi.distributions.normal_gamma import NormalGamma
from skvi.distributions.normal_gamma_array import (
    DiagonalNormalGamma,
    FactorisedDiagonalNormalGamma,
)
from skvi.distributions.normal_wishart import FactorisedNormalWishart, NormalWishart
from skvi.distributions.product import Product, Rescaled
from skvi.distributions.regressions import Regressions
from skvi.distributions.stick_breaking import StickBreaking
from skvi.distributions.student_mixture import StudentMixture
from skvi.distributions.wishart import Wishart

__all__ = [
    "Beta",
    "DiagonalNormalGamma",
    "Dirichlet",
    "DirichletOfCounts",
    "Dirichlets",
    "Distribution",
    "ExponentialFamily",
    "FactorisedDiagonalNormalGamma",
    "FactorisedNormalWishart",
    "Gamma",
    "Gaussian",
    "GaussianChain",
    "InverseGamma",
    "InverseWishart",
    "LocationScaleMixture",
    "LogNormal",
    "NamedGaussian",
    "NormalGamma",
    "NormalWishart",
    "PointMass",
    "Product",
    "Regressions",
    "Rescaled",
    "StickBreaking",
    "StudentMixture",
    "Wishart",
]
