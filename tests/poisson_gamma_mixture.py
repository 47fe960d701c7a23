r"""A mixture of independent Poisson counts: a whole model with local variables.

It is private to the tests, where it drives the engine, and it is the worked example of
the tutorial "add a model".

The generative model, for rows x_i of D counts and K components:

.. math::

    \pi &\sim \mathrm{Dirichlet}(\alpha_0, \ldots, \alpha_0) \\
    \theta_{kj} &\sim \mathrm{Gamma}(a_0, b_0) \\
    z_i \mid \pi &\sim \mathrm{Categorical}(\pi) \\
    x_{ij} \mid z_i = k, \theta &\sim \mathrm{Poisson}(\theta_{kj})

The posterior family; pi and theta are global, z_i is local to its row:

.. math::

    q = q(\pi) \prod_{kj} q(\theta_{kj}) \prod_i q(z_i), \qquad
    q(\pi) = \mathrm{Dirichlet}(\alpha), \quad
    q(\theta_{kj}) = \mathrm{Gamma}(a_{kj}, b_{kj}), \quad
    q(z_i = k) = r_{ik}

Local step, one block of rows; r_i is the exact maximiser given the global factors:

.. math::

    \log r_{ik} = E\log\pi_k + \sum_j \big( x_{ij}\, E\log\theta_{kj}
        - E\theta_{kj} \big) + \mathrm{const}

Statistics, which add over rows:

.. math::

    N_k = \sum_i r_{ik}, \quad S_{kj} = \sum_i r_{ik} x_{ij}, \quad
    F = \sum_{ij} \log x_{ij}!, \quad H = -\sum_{ik} r_{ik} \log r_{ik}

Global step; given N and S the factors do not depend on each other, so one sweep is
exact:

.. math::

    \alpha_k = \alpha_0 + N_k, \qquad a_{kj} = a_0 + S_{kj}, \qquad b_{kj} = b_0 + N_k

The bound is log likelihood + log prior + entropy, every constant kept:

.. math::

    E\log p(x, z \mid \pi, \theta) &= \sum_k N_k\, E\log\pi_k + \sum_{kj} \big(
        S_{kj}\, E\log\theta_{kj} - N_k\, E\theta_{kj} \big) - F \\
    E\log p(\pi, \theta) &= E\log\mathrm{Dirichlet}(\pi \mid \alpha_0)
        + \sum_{kj} E\log\mathrm{Gamma}(\theta_{kj} \mid a_0, b_0) \\
    H[q] &= H + H[q(\pi)] + \sum_{kj} H[q(\theta_{kj})]
"""

import numpy as np
from scipy import special, stats

from skvi.distributions import Dirichlet, Gamma, Product
from skvi.models.base import Model, Statistics


class PoissonGammaMixture(Model):
    """The model above.

    Parameters
    ----------
    n_components, n_features : int
        K and D.
    concentration : float
        alpha_0.
    shape, rate : float
        a_0 and b_0.
    """

    def __init__(
        self, n_components, n_features, concentration=1.0, shape=1.0, rate=1.0
    ):
        self.n_features = n_features
        self.weights_prior = Dirichlet(np.full(n_components, concentration))
        self.rates_prior = Gamma(np.full((n_components, n_features), shape), rate)

    # -- the local step ----------------------------------------------------------------

    def responsibilities(self, q, X):
        """``r``, shape (n, K): the local factors of the rows X at the global q."""
        log_weights = q["weights"].expect()["log"]
        rates = q["rates"].expect()
        logits = X @ rates["log"].T + (log_weights - rates["value"].sum(axis=1))
        return special.softmax(logits, axis=1)

    def statistics(self, q, block):
        """N, S, F and the entropy of the block's local factors."""
        r = self.responsibilities(q, block)
        values = {
            "count": r.sum(axis=0),
            "sum": r.T @ block,
            "log_factorial": special.gammaln(block + 1.0).sum(),
        }
        return Statistics(values, special.entr(r).sum())

    # -- the global step ---------------------------------------------------------------

    def global_step(self, values, warm):
        """Prior + statistics. The exact maximiser, so ``warm`` has no say."""
        count, total = values["count"], values["sum"]
        return Product(
            {
                "weights": self.weights_prior.absorb(count),
                "rates": self.rates_prior.absorb(total, count[:, None]),
            }
        )

    def start(self, rng):
        """Each component as if it had seen one row, drawn from the prior."""
        seen = self.rates_prior.sample(1, rng)[0]
        ones = np.ones(len(seen))
        return self.global_step({"count": ones, "sum": seen}, None)

    # -- the bound ---------------------------------------------------------------------

    def expected_log_likelihood(self, values, q):
        """``E log p(x, z | weights, rates)``."""
        count, total = values["count"], values["sum"]
        rates = q["rates"].expect()
        energy = count @ q["weights"].expect()["log"]
        energy += np.sum(total * rates["log"] - count[:, None] * rates["value"])
        return energy - values["log_factorial"]

    def expected_log_prior(self, q):
        """``E log p(weights, rates)``."""
        return self.weights_prior.expected_log_density(
            q["weights"]
        ) + self.rates_prior.expected_log_density(q["rates"])

    # -- coordinates in which the engine may extrapolate -------------------------------

    def coordinates(self, q):
        """Logs of the natural parameters: any vector of them is a posterior."""
        rates = q["rates"]
        parts = q["weights"].concentration, rates.shape, rates.rate
        return np.log(np.concatenate([np.ravel(part) for part in parts]))

    def at(self, coordinates, values, warm):
        """The inverse of ``coordinates``."""
        n_components = len(self.weights_prior.mean)
        alpha, rest = np.split(np.exp(coordinates), [n_components])
        shape, rate = rest.reshape(2, n_components, self.n_features)
        return Product({"weights": Dirichlet(alpha), "rates": Gamma(shape, rate)})

    # -- for checks by Monte Carlo -----------------------------------------------------

    def sample(self, q, X, n, rng):
        """Draws of every variable, the local ones of the rows X included."""
        cumulative = self.responsibilities(q, X).cumsum(axis=1)
        uniform = rng.random((n, len(X), 1)) * cumulative[:, -1:]
        return {**q.sample(n, rng), "assignment": (uniform > cumulative).sum(axis=2)}

    def log_density(self, q, X, draws):
        """``log q`` of such draws."""
        r = self.responsibilities(q, X)
        each = np.log(r[np.arange(len(X)), draws["assignment"]])
        return q.log_density(draws) + each.sum(axis=1)

    def log_joint(self, X, draws):
        """``log p(x, z, weights, rates)``, written from scipy.stats alone."""
        weights, rates, z = draws["weights"], draws["rates"], draws["assignment"]
        alpha = self.weights_prior.concentration
        shape, scale = self.rates_prior.shape, 1.0 / self.rates_prior.rate
        total = stats.dirichlet.logpdf(weights.T, alpha)
        total = total + stats.gamma.logpdf(rates, shape, scale=scale).sum(axis=(1, 2))
        draw = np.arange(len(z))[:, None]
        total += np.log(weights[draw, z]).sum(axis=1)
        return total + stats.poisson.logpmf(X, rates[draw, z]).sum(axis=(1, 2))
