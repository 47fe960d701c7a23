r"""How a state follows from the one before, and how sequences start.

A transition is Gaussian, ``x_t ~ N(A x_{t-1}, Lambda^-1)``, of whose parameters the
local step reads the expected products

.. math::

    E\Lambda, \quad E[\Lambda A], \quad E[A'\Lambda A], \quad E\log|\Lambda|

and the global step the statistics ``prev`` = sum E[x_{t-1} x_{t-1}'], ``cross`` =
sum E[x_t x_{t-1}'] and ``next`` = sum E[x_t x_t'] over all transitions, or, where A is
known, ``innovations`` = sum E[w_t w_t'] of w_t = x_t - A x_{t-1}.
"""

from dataclasses import dataclass

import numpy as np

from skvi.distributions import PointMass, Product, Regressions
from skvi.distributions.gaussian import LOG_2PI


@dataclass(frozen=True)
class Transition:
    """Expected products of the parameters of a transition.

    They are those of a known transition by ``matrix = E[Lambda]^-1 E[Lambda A]``, and
    what E[A' Lambda A] has in ``excess`` of its, because A is not known.
    """

    matrix: np.ndarray
    precision: np.ndarray  # E[Lambda]
    covariance: np.ndarray  # E[Lambda]^-1
    excess: np.ndarray
    log_det: float  # E[log |Lambda|]

    @property
    def onward(self):
        """E[Lambda A]."""
        return self.precision @ self.matrix

    @property
    def back(self):
        """E[A' Lambda A]."""
        return self.matrix.T @ self.onward + self.excess

    def energy(self, values):
        """``E log p`` of all transitions."""
        n, d = values["n_transitions"], len(self.precision)
        if "innovations" in values:  # of a known matrix
            square = np.sum(self.precision * values["innovations"])
            return 0.5 * (n * (self.log_det - d * LOG_2PI) - square)
        square = np.sum(self.precision * values["next"])
        square -= 2.0 * np.sum(self.onward * values["cross"])
        square += np.sum(self.back * values["prev"])
        return 0.5 * (n * (self.log_det - d * LOG_2PI) - square)


class FreeDynamics:
    r"""Unknown A and :math:`\Lambda = I`, which fixes the scale of the states.

    .. math::

        A_{kj} \sim N(0, 1 / \alpha_j), \qquad \alpha_j \sim \mathrm{Gamma}

    q(A) has independent rows with one precision, ``diag(E alpha) + prev``, and the
    means ``cross (diag(E alpha) + prev)^-1``; then
    ``E[A'A] = E[A]'E[A] + K precision^-1``.
    """

    matrix = None  # not known

    def __init__(self, relevance_prior):
        self.relevance_prior = relevance_prior

    @property
    def dim(self):
        return self.relevance_prior.shape.shape[0]

    def at_mean(self, mean, precision=None):
        """A posterior about a matrix."""
        relevance = self.relevance_prior
        if precision is None:
            precision = np.diag(relevance.mean)
        names = "transition_matrix", None, None
        unit = PointMass(np.ones(self.dim))
        rows = Regressions(mean, precision[None], unit, names)
        return Product({"transition": rows, "transition_relevance": relevance})

    def prior(self):
        return self.at_mean(np.zeros((self.dim, self.dim)))

    def expected(self, q):
        rows, unit = q["transition"], np.eye(self.dim)
        excess = self.dim * rows.covariance_given_noise[0]
        return Transition(rows.location, unit, unit, excess, 0.0)

    def global_step(self, values, warm):
        relevance = self._relevance(warm["transition"])
        precision = np.diag(relevance.mean) + values["prev"]
        mean = np.linalg.solve(precision, values["cross"].T).T
        old = warm["transition"]
        rows = Regressions(mean, precision[None], old.noise, old.all_names)
        return Product({"transition": rows, "transition_relevance": relevance})

    def expected_log_prior(self, q):
        relevance = q["transition_relevance"]
        log = 0.5 * self.dim * np.sum(relevance.mean_log)
        rows = q["transition"].expected_log_density_of_rows(0.0, relevance.mean)
        return log + rows + self.relevance_prior.expected_log_density(relevance)

    def spread(self, q):
        """(S, n, prior) of the relevances; see ``rotation.py``."""
        outer = q["transition"].expect()["quadratic"].sum(axis=0)
        return outer, self.dim, self.relevance_prior

    def turned(self, q, R):
        """q of the states ``R x``, with the relevances that are best there."""
        rows = q["transition"].turned(R)
        rows = Regressions(
            R @ rows.location, rows.precision, rows.noise, rows.all_names
        )
        return Product(
            {"transition": rows, "transition_relevance": self._relevance(rows)}
        )

    def _relevance(self, rows):
        squares = np.einsum("rii->i", rows.expect()["quadratic"])
        return self.relevance_prior.absorb(0.5 * self.dim, 0.5 * squares)

    def plug_in(self, draws, i):
        """(A, Lambda) of draw i, or the posterior means for draws of one."""
        return draws["transition_matrix"][i], np.eye(self.dim)


class KnownDynamics:
    """Known A and Lambda."""

    def __init__(self, matrix, precision):
        self.matrix = matrix
        self.precision = precision

    @property
    def dim(self):
        return len(self.matrix)

    def prior(self):
        return Product({})

    def expected(self, q):
        P, zero = self.precision, np.zeros_like(self.precision)
        log_det = np.linalg.slogdet(P)[1]
        return Transition(self.matrix, P, np.linalg.inv(P), zero, log_det)

    def global_step(self, values, warm):
        return warm

    def expected_log_prior(self, q):
        return 0.0

    def plug_in(self, draws, i):
        return self.matrix, self.precision


class StructuralDynamics:
    r"""Known A; diagonal :math:`\Lambda`, whose elements come in groups.

    .. math::

        \lambda_g \sim \mathrm{Gamma}, \qquad
        q(\lambda_g) = \mathrm{Gamma}\Bigl(a + \tfrac12 n |g|,\;
        b + \tfrac12 \sum_{k \in g} E(x_t - A x_{t-1})_k^2\Bigr)

    Parameters
    ----------
    matrix : array of shape (K, K)
    members : dict of str to array of int of shape (D, n)
        By name of the component: the states that share each of its D precisions.
    priors : dict of str to Gamma or PointMass of shape (D,)
    """

    def __init__(self, matrix, members, priors):
        self.matrix = matrix
        self.members = members
        self.priors = priors
        self.unknown = [k for k, p in priors.items() if not isinstance(p, PointMass)]

    @property
    def dim(self):
        return len(self.matrix)

    def prior(self):
        return self._product({name: self.priors[name] for name in self.unknown})

    @staticmethod
    def _product(laws):
        return Product({f"{name}_precision": law for name, law in laws.items()})

    def law(self, q, name):
        return q[f"{name}_precision"] if name in self.unknown else self.priors[name]

    def expected(self, q):
        precision, log_det = np.empty(self.dim), 0.0
        for name, members in self.members.items():
            e = self.law(q, name).expect()
            precision[members] = e["value"][:, None]
            log_det += members.shape[1] * np.sum(e["log"])
        P, Q = np.diag(precision), np.diag(1.0 / precision)
        return Transition(self.matrix, P, Q, np.zeros_like(P), log_det)

    def global_step(self, values, warm):
        squares = np.diag(values["innovations"])
        n, laws = values["n_transitions"], {}
        for name in self.unknown:
            members = self.members[name]
            change = 0.5 * np.maximum(squares[members], 0.0).sum(axis=1)
            laws[name] = self.priors[name].absorb(0.5 * n * members.shape[1], change)
        return self._product(laws)

    def expected_log_prior(self, q):
        return sum(
            self.priors[name].expected_log_density(self.law(q, name))
            for name in self.unknown
        )

    def plug_in(self, draws, i):
        precision = np.empty(self.dim)
        for name, members in self.members.items():
            key = f"{name}_precision"
            found = draws[key][i] if key in draws else self.priors[name].value
            precision[members] = found[:, None]
        return self.matrix, np.diag(precision)


class FreeInitial:
    r"""``x_1k ~ N(0, 1 / lambda_k)``, ``lambda_k ~ Gamma``."""

    mean = 0.0

    def __init__(self, prior):
        self.precision_prior = prior

    @property
    def dim(self):
        return self.precision_prior.shape.shape[0]

    def prior(self):
        return Product({"initial_precision": self.precision_prior})

    def expected(self, q):
        """(E[Lambda], E[Lambda] mean, E log|Lambda|)."""
        law = q["initial_precision"]
        return np.diag(law.mean), np.zeros(self.dim), float(np.sum(law.mean_log))

    def global_step(self, values, warm):
        return self.turned(warm, np.eye(self.dim), values)

    def expected_log_prior(self, q):
        return self.precision_prior.expected_log_density(q["initial_precision"])

    def spread(self, values):
        return values["first_outer"], values["n_sequences"], self.precision_prior

    def turned(self, q, R, values):
        if values is None:
            return q
        square = np.diag(R @ values["first_outer"] @ R.T)
        found = self.precision_prior.absorb(0.5 * values["n_sequences"], 0.5 * square)
        return Product({"initial_precision": found})

    def plug_in(self, draws, i):
        """(mean, precision) of the first state."""
        return np.zeros(self.dim), np.diag(draws["initial_precision"][i])


class KnownInitial:
    """``x_1 ~ N(mean, precision^-1)``."""

    def __init__(self, mean, precision):
        self.mean = mean
        self.precision = precision

    @property
    def dim(self):
        return len(self.mean)

    def prior(self):
        return Product({})

    def expected(self, q):
        linear = self.precision @ self.mean
        log_det = np.linalg.slogdet(self.precision)[1]
        return self.precision, linear, float(log_det)

    def global_step(self, values, warm):
        return warm

    def expected_log_prior(self, q):
        return 0.0

    def plug_in(self, draws, i):
        return self.mean, self.precision


def initial_energy(expected, values):
    """``E log p`` of all first states; ``first_outer`` is about their mean."""
    precision, linear, log_det = expected
    n, d = values["n_sequences"], len(linear)
    square = np.sum(precision * values["first_outer"])
    return 0.5 * (n * (log_det - d * LOG_2PI) - square)
