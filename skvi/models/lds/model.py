r"""A linear dynamical system with conjugate priors.

The generative model, for every sequence of steps y_1, ..., y_T of D columns and states
x_t of K numbers:

.. math::

    x_1 &\sim N(\mu_0, \Lambda_0^{-1}), \qquad
        x_t \mid x_{t-1} \sim N(A x_{t-1}, \Lambda^{-1}) \\
    y_t &\mid x_t \sim p(y \mid C x_t + d)

with the priors of the parameters in ``dynamics.py``, ``gaussian.py`` and
``poisson.py``. The posterior family:

.. math::

    q = q(A, \Lambda)\, q(\lambda_0)\, q(C, d, \rho)\, q(x)

with q(x) a Gaussian chain over each sequence (structured), or independent Gaussian
steps (mean field).

Local step. The bound is quadratic in x: its matrix J has the blocks

.. math::

    J_{tt} &= E\Lambda \;[t > 1,\ \text{else}\ E\Lambda_0]
        + E[A'\Lambda A] \;[t < T] + \sum_s E[\rho_s c_s c_s'] \\
    J_{t,t-1} &= -E[\Lambda A]

built from *expected* products of the parameters: E[A'A] is larger than E[A]'E[A], which
is how their uncertainty widens the states' (a Kalman smoother with mean parameters has
none of it). ``families.py`` takes q(x) from J; Poisson observations reach theirs by
iterations, each with a J of this form.

Statistics: those of ``dynamics.py`` and of the observations.

Global step: prior + statistics; the precisions that are hyperparameters first, then
A, C, d and rho; then all of them are turned as the priors like it (``rotation.py``).

References
----------
Beal (2003), Variational algorithms for approximate Bayesian inference, chapter 5;
Ghahramani & Beal (2001), Propagation algorithms for variational Bayesian learning;
Barber & Chiappa (2007), Unified inference for variational Bayesian linear Gaussian
state-space models.
"""

from copy import copy
from dataclasses import dataclass

import numpy as np

from skvi.distributions import Gamma, Product
from skvi.linalg import BlockTridiagonalPrecision
from skvi.models.base import Model, Statistics
from skvi.models.lds.block import sum_of_outer
from skvi.models.lds.dynamics import StructuralDynamics, initial_energy
from skvi.models.lds.rotation import best_rotation

PARTS = "dynamics", "initial", "observations"
N_SETTLING = 5  # global steps until relevances follow
# Statistics that have states along their last axis, or along their last two.
AXES = {
    "prev": 2,
    "cross": 2,
    "next": 2,
    "first_outer": 2,
    "gram": 2,
    "response": 1,
    "site_precision": 2,
    "site_linear": 1,
}


class LDSPosterior(Product):
    """q of the dynamics, of first states and of the observations' parameters."""

    def __init__(self, dynamics, initial, observations):
        parts = {"dynamics": dynamics, "initial": initial, "observations": observations}
        super().__init__(
            {k: f for part in parts.values() for k, f in part.factors.items()}
        )
        self.parts = parts


@dataclass
class ChainPrior:
    """What the dynamics say of a block's states, before any observation."""

    information: np.ndarray  # of each kind of step
    transition: object
    linear_of_first: np.ndarray
    block: object

    def precision(self, information, kind=None):
        """J, from the information about steps of each kind."""
        kind = self.block.kinds[1] if kind is None else kind
        t, begins = self.transition, self.block.sequences.begins
        return BlockTridiagonalPrecision(
            information, kind, t.matrix, t.covariance, t.precision, begins
        )

    def add_linear(self, h):
        h[self.block.sequences.firsts] += self.linear_of_first
        return h


class LDSModel(Model):
    """The model above.

    Parameters
    ----------
    dynamics : FreeDynamics, KnownDynamics or StructuralDynamics
    initial : FreeInitial or KnownInitial
    observations : of ``gaussian.py`` or ``poisson.py``
    family : Chain or IndependentSteps
    """

    def __init__(self, dynamics, initial, observations, family):
        self.dynamics = dynamics
        self.initial = initial
        self.observations = observations
        self.family = family
        self.turning = True

    def without_turns(self):
        """The same model, whose global step leaves the states as they are."""
        out = copy(self)
        out.turning = False
        return out

    @property
    def dim(self):
        return self.initial.dim

    def prior(self):
        """The prior as a posterior to which no step has been added."""
        return self._posterior(lambda part, name: part.prior())

    def _posterior(self, build):
        return LDSPosterior(*(build(getattr(self, name), name) for name in PARTS))

    @property
    def is_structural(self):
        return isinstance(self.dynamics, StructuralDynamics)

    def with_even_relevances(self):
        """A model in which no state is shut off: for the first steps of an ascent.

        Where relevances may grow at once, states that the data only begin to tell are
        given up.
        """
        out = copy(self)
        for name in "dynamics", "observations":
            part = copy(getattr(self, name))
            part.relevance_prior = Gamma(np.full(self.dim, 0.5), np.full(self.dim, 0.5))
            setattr(out, name, part)
        return out

    # -- the local step ----------------------------------------------------------------

    def chain_prior(self, q, block):
        transition = self.dynamics.expected(q.parts["dynamics"])
        first, linear, _ = self.initial.expected(q.parts["initial"])
        _, is_first, is_last = block.kinds[0]
        information = np.where(is_first[:, None, None], first, 0.0)
        information += np.where(is_last[:, None, None], 0.0, transition.excess)
        return ChainPrior(information, transition, linear, block)

    def chain(self, q, block):
        """The best q(x) of a block, a GaussianChain; the last one is kept."""
        whose, patient, chain = block.last
        if whose is not q or patient is not block.patient:
            base = self.chain_prior(q, block)
            part = q.parts["observations"]
            chain = self.observations.chain(base, part, block, self.family)
            block.last = q, block.patient, chain
        return chain

    def statistics(self, q, block):
        chain = self.chain(q, block)
        values = self.values(q, chain, block)
        return Statistics(values, float(block.weight @ chain.step_entropies()))

    def values(self, q, chain, block):
        """The statistics of some law of the states."""
        m, found = chain.mean, chain.covariances
        past, first = block.has_past, block.sequences.firsts
        lagged = np.bincount(
            found.whose, weights=block.has_future, minlength=len(found.lagged)
        )
        cross = np.tensordot(lagged, found.lagged, 1).T
        cross += m[1:].T @ (past[1:, None] * m[:-1])
        at_first = np.zeros(block.n_steps)
        at_first[first] = block.weight[first]
        values = {}
        if self.dynamics.matrix is not None:
            values["innovations"] = chain.innovations(self.dynamics.matrix, past)
        return {
            **values,
            "prev": sum_of_outer(chain, block.has_future),
            "cross": cross,
            "next": sum_of_outer(chain, past),
            "n_transitions": float(past.sum()),
            "first_outer": sum_of_outer(chain, at_first, self.initial.mean),
            "n_sequences": float(at_first.sum()),
            **self.observations.statistics(q.parts["observations"], chain, block),
        }

    # -- the global step ---------------------------------------------------------------

    def global_step(self, values, warm, rho=1.0):
        """Prior + statistics; ``rho`` is how far sites of the observations move."""

        def step(part, name):
            more = {} if rho == 1.0 or name != "observations" else {"rho": rho}
            return part.global_step(values, warm.parts[name], **more)

        q = self._posterior(step)
        if not (self.turning and self.turns):
            return q
        dynamics, _, observations = (q.parts[name] for name in PARTS)
        spreads = [
            self.dynamics.spread(dynamics),
            self.initial.spread(values),
            self.observations.spread(observations),
        ]
        return self.turned(q, best_rotation(spreads), values)

    @property
    def turns(self):
        """Whether the states may be turned without a change of the likelihood."""
        return all(hasattr(getattr(self, name), "spread") for name in PARTS)

    def turned(self, q, R, values):
        """q of the states ``R x`` for an orthogonal R, from the statistics of x."""
        return LDSPosterior(
            self.dynamics.turned(q.parts["dynamics"], R),
            self.initial.turned(q.parts["initial"], R, values),
            self.observations.turned(q.parts["observations"], R),
        )

    def renamed(self, q, R):
        """q of the states ``R x`` for a permutation with signs: just as good."""
        turned = self.turned(q, R, None)
        order = np.abs(R).argmax(axis=1)
        parts = []
        for name in PARTS:
            factors = dict(turned.parts[name].factors)
            for key, law in q.parts[name].factors.items():
                if isinstance(law, Gamma):
                    factors[key] = Gamma(law.shape[order], law.rate[order])
            parts.append(Product(factors))
        return LDSPosterior(*parts)

    @staticmethod
    def scaled_loadings(q):
        """Mean loadings in sds of the noise of each column."""
        rows = q.parts["observations"]["observation"]
        noise = np.broadcast_to(rows.noise.mean, (rows.n_rows,))
        return np.sqrt(noise)[:, None] * rows.location[:, :-1]

    def powers(self, q, values):
        """What each state adds to the sum of squares of the signals."""
        moments = np.diag(values["next"] + values["first_outer"])
        return np.sum(self.scaled_loadings(q) ** 2, axis=0) * moments

    def at_rest(self, q, values, k):
        """The posterior if state k were always zero."""
        keep = np.ones(self.dim + 1)
        keep[k] = 0.0
        values = dict(values)
        for name, index in AXES.items():
            if name in values:
                array = values[name]
                size = array.shape[-1]
                mask = keep[:size]
                values[name] = array * (mask if index == 1 else np.outer(mask, mask))
        for _ in range(N_SETTLING):
            q = self.global_step(values, q)
        return q

    # -- coordinates in which the engine may extrapolate -------------------------------

    def coordinates(self, q):
        parts = [factor.coordinates() for factor in q.factors.values()]
        return np.concatenate(parts) if parts else None

    def at(self, coordinates, values, warm):
        taken = 0

        def moved(factor):
            nonlocal taken
            size = factor.coordinates().size
            piece = coordinates[taken : taken + size]
            taken += size
            return factor.at(piece)

        def build(part, name):
            factors = warm.parts[name].factors
            return Product({key: moved(factor) for key, factor in factors.items()})

        return self._posterior(build)

    # -- the bound ---------------------------------------------------------------------

    def expected_log_likelihood(self, values, q):
        parts = q.parts
        return (
            self.dynamics.expected(parts["dynamics"]).energy(values)
            + initial_energy(self.initial.expected(parts["initial"]), values)
            + self.observations.energy(values, parts["observations"])
        )

    def expected_log_prior(self, q):
        return sum(
            getattr(self, name).expected_log_prior(q.parts[name]) for name in PARTS
        )
