r"""Weights and their prior precision when the sites are given.

The sites stand for the likelihood as a Gaussian would, so that theta and lambda are a
conjugate model: regression with known noise. Its two updates alternate, extrapolated,
until they have nothing to do; none of them reads a row.
"""

import numpy as np

from skvi.distributions import PointMass, Product
from skvi.inference.drivers import Batch
from skvi.inference.engine import climb
from skvi.models.base import Model, Statistics

NAME = "weight_precision"
MAX_ITER = 30
TOL = 1e-8  # nats
DISTANCE_TOL = 1e-4  # posterior sds


def settled(model, sites, lam):
    """The q(lambda) that belongs to the sites, climbing from another."""
    if isinstance(lam, PointMass):
        return lam
    given = GivenSites(model, sites)
    fit = climb(
        given,
        Batch(given, [None]),
        given.posterior(lam),
        max_iter=MAX_ITER,
        tol=TOL,
        distance_tol=DISTANCE_TOL,
    )
    return fit.posterior[NAME]


class Given(Product):
    """q(theta) q(lambda), theta being the optimum for lambda: it moves with lambda."""

    def distance(self, other):
        return self[NAME].distance(other[NAME])


class GivenSites(Model):
    """The conjugate model of theta and lambda."""

    def __init__(self, model, sites):
        self.model = model
        self.sites = sites
        self.linear = model.space.linear(sites)

    def posterior(self, lam):
        return Given({"theta": self.model.gaussian(self.sites, lam), NAME: lam})

    def statistics(self, q, block):
        return Statistics({"nothing": 0.0})

    def global_step(self, values, warm):
        return self.posterior(self.model.absorb_weights(warm["theta"]))

    def expected_log_likelihood(self, values, q):
        # s'm - m'Sm / 2 - tr(S V) / 2, where (S + Lambda) m = s, and the trace of
        # (S + Lambda) V is the dimension for both families.
        theta = q["theta"]
        penalty = self.model.penalty(theta, q[NAME])
        return 0.5 * (self.linear @ theta.mean + penalty - theta.dim)

    def expected_log_prior(self, q):
        return self.model.log_prior_of_weights(q["theta"], q[NAME])

    def coordinates(self, q):
        return np.log(np.atleast_1d(q[NAME].rate))

    def at(self, coordinates, values, warm):
        before = warm[NAME]
        rate = np.exp(coordinates).reshape(before.rate.shape)
        return self.posterior(type(before)(before.shape, rate))
