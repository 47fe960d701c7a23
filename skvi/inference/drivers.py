"""Drivers: how a pass over the data is made, and what one iteration does with it.

Every driver answers ``evaluate(q)`` (statistics that go with q), ``target(q,
statistics)`` (where a plain step goes: None if nowhere), ``advance(q, statistics,
target)`` (the next q: mostly that very target) and ``finish(model, fit)``; the engine's
loop is the same for all. A source of data is a list of blocks of rows.
"""

from collections import deque
from copy import copy
from functools import reduce
from operator import add

import numpy as np
from sklearn.utils import gen_even_slices

from skvi.inference.blocks import sum_over


class Batch:
    """Every block read from the same q, then one global step: coordinate ascent.

    With ``shared_memory`` the local step keeps something in the blocks, which then go
    to no other process.
    """

    monotone = True
    extrapolates = True

    def __init__(self, model, blocks, n_jobs=None, shared_memory=False):
        self.model = model
        self.blocks = blocks
        self.n_jobs = n_jobs
        self.shared_memory = shared_memory

    def evaluate(self, q):
        return self._statistics(q, self.blocks)

    def _statistics(self, q, blocks):
        return sum_over(
            lambda b: self.model.statistics(q, b),
            blocks,
            self.n_jobs,
            self.shared_memory,
        )

    def elbo_terms(self, statistics, q):
        return self.model.elbo_terms(statistics, q)

    def target(self, q, statistics):
        return self.model.global_step(statistics.values, q)

    def advance(self, q, statistics, target=None):
        return self.target(q, statistics) if target is None else target

    def trusts(self, target):
        """Whether extrapolations need no look at the plain step to this target."""
        return False

    def known_elbo(self, q, least):
        """The ELBO of a posterior that was advanced to: at least what it was before."""
        return least

    def finish(self, model, fit):
        return fit


ROUNDING = {"float64": 3e-14, "float32": 1e-7}  # relative to an ELBO's terms
N_FLAT = 10  # steps in a row that do nothing, after which a fit is at rest
STRANDED = 5e-2  # posterior sds that a step would go, if it were one up


class Incremental(Batch):
    """Memoised: a block's new statistics replace its old ones and q moves at once.

    Exact and without a step size: each move is a coordinate ascent of one bound in the
    block's local factors or in q, so the bound (whose local factors may belong to an
    earlier q) never falls. One iteration is a pass, with a global step for each share
    of the blocks; there are ``n_shares`` of them, whatever the number of workers.
    """

    extrapolates = False  # the memo belongs to the path that the posterior took

    def __init__(self, model, blocks, n_jobs=None, n_shares=None):
        super().__init__(model, blocks, n_jobs)
        n_shares = min(n_shares or len(blocks), len(blocks))
        self.shares = [blocks[s] for s in gen_even_slices(len(blocks), n_shares)]
        self.memo = None

    def evaluate(self, q):
        if self.memo is None:
            self.memo = [self._statistics(q, share) for share in self.shares]
        return reduce(add, self.memo)

    def target(self, q, statistics):
        # The total is carried within a pass only; ``evaluate`` adds the memo up anew,
        # so that rounding does not build up.
        total = statistics
        q = self.model.global_step(total.values, q)
        for index, share in enumerate(self.shares):
            new = self._statistics(q, share)
            total = total.replaced(self.memo[index], new)
            self.memo[index] = new
            q = self.model.global_step(total.values, q)
        return q

    def finish(self, model, fit):
        """One plain pass fixes the ELBO: local factors and q then belong together."""
        return plain_pass(model, Batch(model, self.blocks, self.n_jobs), fit)


class Stochastic(Batch):
    """Steps of length ``(t + offset)^-decay`` on statistics scaled up from one block.

    S <- (1 - rho) S + rho * scale * S_block, then q from S alone; the first step has
    rho = 1. S is the state rather than prior + S, because a hyperprior moves the prior.
    """

    monotone = False
    extrapolates = False

    def __init__(self, model, blocks, sizes, rng, decay=0.7, offset=1.0, n_jobs=None):
        super().__init__(model, blocks, n_jobs)
        self.sizes = np.asarray(sizes, dtype=np.float64)
        self.rng = rng
        self.state = StochasticState(decay, offset)

    def evaluate(self, q):
        # A noisy estimate of the full statistics; the last plain pass replaces it.
        if self.state.statistics is None:
            return super().evaluate(q)
        return self.state.statistics

    def target(self, q, statistics):
        for index in self.rng.permutation(len(self.blocks)):
            scale = self.sizes.sum() / self.sizes[index]
            q = self.state.step(self.model, q, self.blocks[index], scale)
        return q

    def finish(self, model, fit):
        return plain_pass(model, Batch(model, self.blocks, self.n_jobs), fit)


class StochasticState:
    """What a stochastic fit remembers between blocks, ``partial_fit`` included."""

    def __init__(self, decay=0.7, offset=1.0):
        self.decay = decay
        self.offset = offset
        self.n_steps = 0
        self.statistics = None

    def copy(self):
        return copy(self)

    @property
    def rho(self):
        """The length of the next step."""
        return (self.n_steps + self.offset) ** -self.decay

    def absorb(self, new, scale):
        """Blend one block's statistics in, scaled up."""
        if self.statistics is None:
            self.statistics = new.scaled(scale)
        else:
            self.statistics = self.statistics.blend(new, self.rho, scale)
        self.n_steps += 1

    def step(self, model, q, block, scale):
        """Blend one block's scaled statistics in; return the next posterior."""
        self.absorb(model.statistics(q, block), scale)
        return model.global_step(self.statistics.values, q)


class Guarded:
    """Steps from fast to safe, each kept only if the ELBO, evaluated for it, rises.

    For posteriors without a cheap step that is sure to ascend. The model answers
    ``evaluate(q)`` in place of a local step. A fast step whose rise is within the
    tolerance makes way for the next for good, so the last has the last word.

    Parameters
    ----------
    model : has ``evaluate(q)`` and ``elbo_terms(statistics, q)``
    steps : list of callables
        ``step(q, statistics)`` yields posteriors to try, one after the other until one
        is better.
    tol : float
        In nats: smaller rises do not count.
    """

    monotone = True
    extrapolates = False

    def __init__(self, model, steps, tol):
        self.model = model
        self.steps = list(steps)
        self.tol = tol
        self.last = (None, None)

    def evaluate(self, q):
        if self.last[0] is not q:
            self.last = (q, self.model.evaluate(q))
        return self.last[1]

    def target(self, q, statistics):
        start = best = self._elbo(statistics, q)
        kept = (q, statistics)
        while self.steps:
            for candidate in self.steps[0](q, statistics):
                found = self.model.evaluate(candidate)
                elbo = self._elbo(found, candidate)
                if elbo > best:
                    best, kept = elbo, (candidate, found)
                    break
            if best - start > self.tol or len(self.steps) == 1:
                break
            self.steps.pop(0)
        self.last = kept
        return kept[0]

    advance = Batch.advance
    elbo_terms = Batch.elbo_terms
    trusts = Batch.trusts
    known_elbo = Batch.known_elbo

    def _elbo(self, statistics, q):
        return sum(self.model.elbo_terms(statistics, q).values())

    def finish(self, model, fit):
        return fit


def plain_pass(model, batch, fit):
    """The fit with statistics and ELBO of its own posterior."""
    statistics = batch.evaluate(fit.posterior)
    fit.statistics = statistics
    fit.elbo_terms = model.elbo_terms(statistics, fit.posterior)
    fit.path[-1] = fit.elbo  # of the same posterior, its local factors made new
    return fit


class Damped(Batch):
    """Global steps that move sites of the natural parameters as far as the ELBO rises.

    For likelihoods that are not conjugate: ``model.global_step(values, q, rho)`` goes
    the fraction rho of the way to prior + statistics. A step that would lower the ELBO
    is halved. What local steps leave in ``block.memory`` goes with the posterior.

    With ``trusting`` an extrapolation is kept where it does not fall below the last
    ELBO; the plain step's, which costs a pass, is then asked for only if it does.
    """

    MOST_HALVINGS = 12

    def __init__(
        self,
        model,
        blocks,
        n_jobs=None,
        shared_memory=False,
        dtype="float64",
        trusting=False,
    ):
        super().__init__(model, blocks, n_jobs, shared_memory)
        self.trusting = trusting
        self.rounding = ROUNDING[np.dtype(dtype).name]
        self.seen = deque(maxlen=2)  # a plain step, and one that went on from it
        self.rho = 1.0
        self.stuck = None  # where no step went up
        self.n_flat = 0  # steps that rounding explains, and that come no nearer
        self.nearest = np.inf  # in posterior sds, to where steps point
        self.stranded = False  # there, and far from where steps point

    def evaluate(self, q):
        return self._seen(q)[1]

    def target(self, q, statistics):
        if q is self.stuck or self.n_flat >= N_FLAT:
            return q
        try:
            with np.errstate(all="ignore"):
                return self.model.global_step(statistics.values, q, 1.0)
        except np.linalg.LinAlgError:
            return None

    def advance(self, q, statistics, target=None):
        _, _, memories, terms = self._seen(q)
        rounding = self.rounding * np.abs(terms).sum()
        distance = np.inf if target is None else q.distance(target)
        for _ in range(self.MOST_HALVINGS):
            self._remember(memories)
            try:
                with np.errstate(all="ignore"):
                    after = target if self.rho == 1.0 else None
                    if after is None:
                        after = self.model.global_step(statistics.values, q, self.rho)
                    if distance == np.inf:
                        distance = q.distance(after) / self.rho
                    record = self._evaluated(after)
                    rise = record[-1].sum() - terms.sum()
                    # A shorter step than a full one must do what rounding cannot.
                    rises = rise >= (-rounding if self.rho == 1.0 else rounding)
            except np.linalg.LinAlgError:  # as far off as a bound can be
                rises = False
            if rises:
                self.rho = min(1.0, 2.0 * self.rho)
                self._note(rise <= rounding, distance)
                self.seen.append(record)
                return after
            self.rho *= 0.5
        self._remember(memories)
        self.rho, self.stuck, self.stranded = 1.0, q, not distance < STRANDED
        return q

    def trusts(self, target):
        return self.trusting and target is not None and self.rho == 1.0

    def _note(self, flat, distance):
        nearer = distance < 0.5 * self.nearest
        self.n_flat = self.n_flat + 1 if flat and not nearer else 0
        self.nearest = min(self.nearest, distance)

    def known_elbo(self, q, least):
        return self._seen(q)[-1].sum()

    def bound(self, q):
        """The ELBO of a posterior to start from; -inf if it has none."""
        try:
            with np.errstate(all="ignore"):
                bound = self.known_elbo(q, None)
        except np.linalg.LinAlgError:
            return -np.inf
        return bound if np.isfinite(bound) else -np.inf

    def finish(self, model, fit):
        fit.converged = fit.converged and not self.stranded
        return fit

    def _seen(self, q):
        """(q, its statistics, what the blocks remember after them, ELBO's terms)."""
        for record in self.seen:
            if record[0] is q:
                return record
        self.seen.append(self._evaluated(q))
        return self.seen[-1]

    def _evaluated(self, q):
        statistics = super().evaluate(q)
        terms = self.model.elbo_terms(statistics, q)
        self.names = list(terms)
        memories = [block.memory for block in self.blocks]
        return q, statistics, memories, np.array(list(terms.values()))

    def elbo_terms(self, statistics, q):
        return dict(zip(self.names, map(float, self._seen(q)[-1])))

    def _remember(self, memories):
        for block, memory in zip(self.blocks, memories):
            block.memory = memory
