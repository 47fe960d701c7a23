"""The priors of a mixture: checked, relative to the data, in standard units."""

from dataclasses import dataclass

import numpy as np

from skvi.distributions import Dirichlet, StickBreaking
from skvi.estimators.gaussian_components import GaussianPriors


@dataclass(frozen=True)
class MixturePriors:
    """Of a model of K components.

    Attributes
    ----------
    concentration : float
    of_components : GaussianPriors
    """

    concentration: float
    of_components: GaussianPriors

    @classmethod
    def resolve(cls, estimator, totals, frame):
        """The parameters of an estimator, None being relative to the data."""
        concentration = estimator.weight_concentration_prior
        if concentration is None:
            concentration = 1.0 / estimator.n_components
        return cls(concentration, GaussianPriors.resolve(estimator, totals, frame))

    def weights(self, K, kind):
        """p(pi)."""
        if kind == "dirichlet_process":
            return StickBreaking(np.ones(K - 1), np.full(K - 1, self.concentration))
        return Dirichlet(np.broadcast_to(self.concentration, (K,)))

    def components(self, K, kind):
        """p(mu, Lambda) of K components."""
        return self.of_components.components(K, kind)

    def attributes(self, frame, kind):
        """As fitted attributes, in the data's units."""
        return {
            "weight_concentration_prior_": self.concentration,
            **self.of_components.attributes(frame, kind),
        }
