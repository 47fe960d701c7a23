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
    return fit.posterior["weight_precision"]


class GivenSites(Model):
    """The conjugate model of theta and lambda."""

    def __init__(self, model, sites):
        self.model = model
        self.sites = sites
        self.linear = model.space.linear(sites)

    def posterior(self, lam):
        theta = self.model.gaussian(self.sites, lam)
        return Product({"theta": theta, "weight_precision": lam})

    def statistics(self, q, block):
        return Statistics({"nothing": 0.0})

    def global_step(self, values, warm):
        theta = warm["theta"]
        square = theta.mean**2 + theta.variance()
        return self.posterior(self.model.absorb_weights(square))

    def expected_log_likelihood(self, values, q):
        # s'm - m'Sm / 2 - tr(S V) / 2, where (S + Lambda) m = s, and the trace of
        # (S + Lambda) V is the dimension for both families.
        theta = q["theta"]
        ridge = np.tile(self.model.ridge(q["weight_precision"]), self.model.n_outputs)
        along = self.linear @ theta.mean
        square = theta.mean**2 + theta.variance()
        return 0.5 * (along + ridge @ square - theta.dim)

    def expected_log_prior(self, q):
        return self.model.log_prior_of_weights(q["theta"], q["weight_precision"])

    def coordinates(self, q):
        return np.log(np.atleast_1d(q["weight_precision"].rate))

    def at(self, coordinates, values, warm):
        before = warm["weight_precision"]
        rate = np.exp(coordinates).reshape(before.rate.shape)
        return self.posterior(type(before)(before.shape, rate))
