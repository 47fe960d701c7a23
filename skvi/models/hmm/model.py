r"""A hidden Markov model with conjugate priors.

The generative model, for every sequence of steps x_1, ..., x_T and K states:

.. math::

    \pi &\sim \mathrm{Dirichlet}(\alpha), \qquad
        A_k \sim \mathrm{Dirichlet}(\alpha_k) \\
    z_1 &\sim \mathrm{Categorical}(\pi), \qquad
        z_t \mid z_{t-1} = k \sim \mathrm{Categorical}(A_k) \\
    \theta_k &\sim p(\theta), \qquad x_t \mid z_t = k \sim p(x \mid \theta_k)

where a sticky chain has a larger :math:`\alpha_{kk}`, and p(x | theta) with its
conjugate prior is one of ``emissions.py``. The posterior family:

.. math::

    q = q(\pi)\, q(A)\, q(\theta)\, q(z)

with q(z) a Markov chain over each sequence (structured) or :math:`\prod_t q(z_t)` (mean
field).

Local step. With :math:`b_t(k) = \exp E\log p(x_t \mid \theta_k)`,
:math:`\tilde\pi = \exp E\log\pi` and :math:`\tilde A = \exp E\log A`, whose rows add up
to less than one, the best chain is

.. math::

    q(z) = \frac1Z\, \tilde\pi_{z_1} b_1(z_1) \prod_{t > 1}
        \tilde A_{z_{t-1} z_t} b_t(z_t),

and the forward-backward recursion (``messages.py``) gives log Z, the probabilities
:math:`\gamma_t(k)` of states and the expected numbers of transitions. Independent
states are found by coordinate ascent (``independent.py``).

Statistics: the expected numbers of sequences that start in k (``start``) and of
transitions from j to k (``transitions``), and the emissions' own, each step counting
:math:`\gamma_t(k)`.

Global step: the conjugate update of each factor, prior + statistics.

The bound: :math:`E\log p(x, z \mid \cdot)` is

.. math::

    \sum_k \mathrm{start}_k E\log\pi_k
    + \sum_{jk} \mathrm{transitions}_{jk} E\log A_{jk}
    + \langle\mathrm{statistics}, E\theta\rangle + \mathrm{const}

and H[q(z)] follows from the local bound L (log Z for a chain), which is the energy of
the local step and its entropy together: H = L - energy.

References
----------
MacKay (1997), Ensemble learning for hidden Markov models; Beal (2003), Variational
algorithms for approximate Bayesian inference, chapter 3; Fox et al. (2011), A sticky
HDP-HMM, Annals of Applied Statistics 5.
"""

from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from skvi.inference.blocks import run_parallel
from skvi.models.base import Model, Statistics
from skvi.models.hmm import simulate
from skvi.models.hmm.independent import Independent
from skvi.models.hmm.markov import MarkovChain
from skvi.models.hmm.posterior import HMMPosterior
from skvi.models.sequences import GROUP_STEPS, Sequences

FAMILIES = {"structured": MarkovChain(), "mean_field": Independent()}


@dataclass
class Block:
    """Whole sequences of some data, and what a family remembers of them.

    Attributes
    ----------
    data : rows of the emissions' kind
    sequences : Sequences
    n_jobs : int or None
        Workers within the block.
    memory : array or None
        Of the family of q(z), from pass to pass.
    constant : float or None
        What the emissions' log densities leave out, once it is known.
    """

    data: object
    sequences: Sequences
    n_jobs: int | None = None
    memory: np.ndarray | None = None
    constant: float | None = None


class HMMModel(Model):
    """The model above.

    Parameters
    ----------
    startprob_prior : Dirichlet of shape (K,)
    transmat_prior : Dirichlet of shape (K, K)
    emissions : Emissions
    family : MarkovChain or Independent
    """

    def __init__(self, startprob_prior, transmat_prior, emissions, family):
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.emissions = emissions
        self.family = family

    def with_(self, emissions=None, family=None):
        """The same model, reading steps in another way or with another family."""
        return HMMModel(
            self.startprob_prior,
            self.transmat_prior,
            self.emissions if emissions is None else emissions,
            self.family if family is None else family,
        )

    @property
    def n_states(self):
        return self.startprob_prior.concentration.size

    def blocks(self, data, sequences, n_jobs=None):
        """The data as blocks for a driver: many for its workers, or a long one."""
        parts = sequences.blocks()
        within = n_jobs if len(parts) == 1 else None
        return [Block(data, part, within) for part in parts]

    # -- the local step ----------------------------------------------------------------

    def log_densities(self, q, block):
        """Expected log densities of the block's steps, (K, m)."""
        data, steps = block.data, block.sequences.steps
        dtype = self.emissions.dtype(data, q.emissions)
        out = np.empty((self.n_states, block.sequences.n_steps), dtype=dtype)
        table = q.table  # made once, before workers ask for it

        def fill(chunk):
            inner = slice(chunk.start - steps.start, chunk.stop - steps.start)
            self.emissions.log_densities(data, table, chunk, out[:, inner])

        run_parallel(fill, _chunks(steps), block.n_jobs, shared_memory=True)
        return out

    def local(self, q, block):
        """The best q(z) of a block; see ``markov.Local``."""
        log_density = self.log_densities(q, block)
        return self.family.local(log_density, q.chain, block)

    def statistics(self, q, block):
        local = self.local(q, block)
        shares, steps, data = local.shares, block.sequences.steps, block.data
        weight = block.sequences.step_weight

        def collect(chunk):
            inner = slice(chunk.start - steps.start, chunk.stop - steps.start)
            part = shares[:, inner]
            if weight.size:
                part = part * weight[inner].astype(part.dtype)
            return Statistics(self.emissions.statistics(data, q.table, chunk, part))

        parts = run_parallel(collect, _chunks(steps), block.n_jobs, shared_memory=True)
        values = reduce(add, parts).values
        chain = q.chain
        energy = local.start @ chain.log_initial
        energy += np.sum(local.transitions * chain.log_trans)
        energy += self.emissions.energy(values, q.emissions)
        if block.constant is None:
            block.constant = self.emissions.constant(data, block.sequences)
        values = {
            **values,
            "start": local.start,
            "transitions": local.transitions,
            "constant": block.constant,
        }
        return Statistics(values, float(local.bound - energy))

    # -- the global step ---------------------------------------------------------------

    def global_step(self, values, warm):
        """Prior + statistics; the factors do not depend on each other."""
        return HMMPosterior(
            self.startprob_prior.absorb(values["start"]),
            self.transmat_prior.absorb(values["transitions"]),
            self.emissions.absorb(values),
            self.emissions,
        )

    def prior(self):
        """The prior as a posterior to which no step has been added."""
        return HMMPosterior(
            self.startprob_prior,
            self.transmat_prior,
            self.emissions.prior,
            self.emissions,
        )

    # -- the generative direction, for checks ------------------------------------------

    def log_joint(self, z, X, sequences):
        """``log p(x, z)`` of draws z at steps X, in the model's units."""
        return simulate.log_joint(self, X, z, sequences)

    def sample_prior_predictive(self, sequences, rng):
        """(X, draws): variables from the prior, and steps given them."""
        return simulate.sample_prior_predictive(self, sequences, rng)

    # -- coordinates in which the engine may extrapolate -------------------------------

    def coordinates(self, q):
        factors = q.startprob, q.transmat, q.emissions
        return np.concatenate([factor.coordinates() for factor in factors])

    def at(self, coordinates, values, warm):
        K = self.n_states
        start, trans, rest = np.split(coordinates, [K, K + K * K])
        return HMMPosterior(
            warm.startprob.at(start),
            warm.transmat.at(trans),
            warm.emissions.at(rest),
            self.emissions,
        )

    # -- the bound ---------------------------------------------------------------------

    def expected_log_likelihood(self, values, q):
        energy = values["start"] @ q.startprob.mean_log
        energy += np.sum(values["transitions"] * q.transmat.mean_log)
        energy += self.emissions.energy(values, q.emissions)
        return energy + values["constant"]

    def expected_log_prior(self, q):
        return (
            self.startprob_prior.expected_log_density(q.startprob)
            + self.transmat_prior.expected_log_density(q.transmat)
            + self.emissions.prior.expected_log_density(q.emissions)
        )


def _chunks(steps):
    return [
        slice(start, min(start + GROUP_STEPS, steps.stop))
        for start in range(steps.start, steps.stop, GROUP_STEPS)
    ]
