"""The global posterior of a mixture: q(weights) q(components)."""

from functools import cached_property

from skvi.distributions import Product


class MixturePosterior(Product):
    """q(pi) q(mu, L), with what the local step reads of it computed once.

    Parameters
    ----------
    weights : Dirichlet or StickBreaking
    components : Normal-Wishart or Normal-Gamma, joint or factorised
    geometry : Geometry or None
        Whose table the local step reads; None for posteriors in a user's units.
    """

    def __init__(self, weights, components, geometry=None):
        super().__init__({"weights": weights, "components": components})
        self.weights = weights
        self.components = components
        self.geometry = geometry

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "table"}

    @cached_property
    def table(self):
        return self.geometry.table(self.components)

    @cached_property
    def log_weights(self):
        return self.weights.mean_log

    @property
    def n_components(self):
        return self.components.location.shape[0]

    def rescaled(self, scale, shift):
        """The posterior of the parameters of ``shift + scale * x``."""
        return MixturePosterior(self.weights, self.components.rescaled(scale, shift))
