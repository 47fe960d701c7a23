"""What the engine asks of a model."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Statistics:
    """Expected sufficient statistics of some rows, which add over blocks.

    Attributes
    ----------
    values : dict of str to array (or anything that adds)
        Expected sufficient statistics under the local factors.
    entropy : float
        Entropy of the local factors, in nats.
    """

    values: dict = field(default_factory=dict)
    entropy: float = 0.0

    def __add__(self, other):
        if not self.values:
            return other
        values = {name: v + other.values[name] for name, v in self.values.items()}
        return Statistics(values, self.entropy + other.entropy)

    def blend(self, other, rho, scale):
        """``(1 - rho) self + rho * scale * other``, for the stochastic flow."""
        values = {
            name: (1.0 - rho) * v + rho * scale * other.values[name]
            for name, v in self.values.items()
        }
        entropy = (1.0 - rho) * self.entropy + rho * scale * other.entropy
        return Statistics(values, entropy)

    def replaced(self, old, new):
        """The total after one block's share went from old to new."""
        values = {
            name: v + (new.values[name] - old.values[name])
            for name, v in self.values.items()
        }
        return Statistics(values, self.entropy + (new.entropy - old.entropy))

    def with_values(self, values):
        return Statistics(values, self.entropy)

    def scaled(self, scale):
        values = {name: scale * v for name, v in self.values.items()}
        return Statistics(values, scale * self.entropy)


class Model(ABC):
    """One conjugate model: a local step, a global step and one bound.

    A subclass writes the four abstract methods; the bound follows here, once. It may
    also offer the engine an unconstrained parametrisation in which to extrapolate:
    ``coordinates(q)``, and its inverse ``at(coordinates, values, warm)``.
    """

    @abstractmethod
    def statistics(self, q, block):
        """Local step for one block of rows at the global posterior q."""

    @abstractmethod
    def global_step(self, values, warm):
        """The next global posterior from summed statistics, starting at ``warm``."""

    @abstractmethod
    def expected_log_likelihood(self, values, q):
        """``E_q[log p(x, local | global)]`` from the summed statistics."""

    @abstractmethod
    def expected_log_prior(self, q):
        """``E_q[log p(global)]``."""

    def elbo_terms(self, statistics, q):
        """The ELBO's three terms in nats; their sum is the bound."""
        return {
            "log_likelihood": float(self.expected_log_likelihood(statistics.values, q)),
            "log_prior": float(self.expected_log_prior(q)),
            "entropy": float(statistics.entropy + q.entropy()),
        }

    def rise_within(self, q, distance):
        """Most that the ELBO rises up to an optimum so many posterior sds away."""
        return np.inf

    def coordinates(self, q):
        """q as a vector of real numbers, or None where there is nothing to move."""
        return None
