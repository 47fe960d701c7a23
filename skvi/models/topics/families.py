"""How each posterior family is fitted, from start to end.

Both start alike, from topics as counts of words: sweeps of CVB0 in their streaming form
are the fast steps, each kept if it raises the family's own bound. Then the family's own
ascent: memoised coordinate ascent for mean field, the fixed point of the bound for q(z)
with everything else integrated out, whose sweeps store q(z) where it fits into memory.
"""

from dataclasses import dataclass

import numpy as np

from skvi.inference.drivers import Guarded, Incremental
from skvi.inference.engine import Fit, climb
from skvi.models.topics.assignments import Stored, Tied
from skvi.models.topics.collapsed import CollapsedPosterior, CollapsedTopics
from skvi.models.topics.mean_field import MeanFieldPosterior, MeanFieldTopics
from skvi.models.topics.priors import best
from skvi.models.topics.stream import (
    CollapsedStream,
    MeanFieldStream,
    stream_statistics,
)
from skvi.models.topics.sweeps import StoredSweeps, TiedSweeps

FIRST_SWEEPS = 20  # before the bound is looked at for the first time
SWEEPS = 20  # between two looks at it
MEMO = 20e6  # bytes of statistics that the shares of a memoised fit remember
CELL_COPIES = 3  # q(z) of before and after a step, and where the step leads


@dataclass(frozen=True)
class Settings:
    """How far to go.

    Attributes
    ----------
    max_iter : int
        Passes over the documents, sweeps and exact steps included.
    tol : float
        Nats.
    max_rounds : int
        Rounds of a document in a mean-field pass.
    memory : float
        Bytes that q(z) of all cells may take while it is fitted.
    n_jobs : int or None
    """

    max_iter: int
    tol: float
    max_rounds: int
    memory: float
    n_jobs: int | None


class Journey:
    """The runs of one fit, as one: its path, its count of passes."""

    def __init__(self, on_iteration):
        self.on_iteration = on_iteration
        self.path = []
        self.n_passes = 0
        self.fit = None

    def climb(self, model, driver, q, settings, *, steps, passes_each, dtype="float64"):
        """Run the engine from q; an iteration is so many passes."""
        path, before = list(self.path), self.n_passes

        def told(fit):
            self.fit = Fit(
                fit.posterior,
                fit.statistics,
                fit.elbo_terms,
                path + fit.path,
                max(1, before + passes_each * (len(fit.path) - 1)),
                fit.converged,
            )
            return self.on_iteration(self.fit)

        fit = climb(
            model,
            driver,
            q,
            max_iter=steps,
            tol=settings.tol * passes_each,
            distance_tol=np.inf,
            accelerator=None,
            on_iteration=told,
            dtype=dtype,
        )
        joined = self.fit
        joined.posterior, joined.statistics = fit.posterior, fit.statistics
        joined.elbo_terms, joined.stopped = fit.elbo_terms, fit.stopped
        joined.path[-1] = fit.path[-1]
        self.path, self.n_passes = joined.path, joined.n_iter
        return joined


class MeanFieldFamily:
    """q(theta) q(z) q(phi)."""

    @staticmethod
    def fit(corpus, start, priors, settings, on_iteration):
        model = MeanFieldTopics(corpus, settings.max_rounds, settings.n_jobs)
        journey = Journey(on_iteration)
        q = start.posterior
        if q is not None:
            q = MeanFieldPosterior(q.counts, priors, q.concentration.copy())
        else:
            q = _swept_mean_field(model, start, priors, settings, journey)
        n_shares = MEMO // (start.counts.mean.size * 8)
        n_shares = int(np.clip(n_shares, 1, max(1, len(corpus.blocks))))
        driver = SettlingDriver(model, corpus.blocks, settings.n_jobs, n_shares)
        if journey.fit is not None and journey.fit.stopped:
            return driver.finish(model, journey.fit)
        left = max(1, settings.max_iter - journey.n_passes)
        return journey.climb(
            model,
            driver,
            q,
            settings,
            steps=left,
            passes_each=1,
            dtype=corpus.dtype.name,
        )

    @staticmethod
    def adopted(q, corpus):
        """A posterior of either family as one of this family, on the same corpus."""
        weights = q.document_weights(corpus)
        return MeanFieldPosterior(q.expected_counts().mean, q.priors, weights)

    @staticmethod
    def streamed(fit, corpus):
        """A fit's statistics as those of the stream."""
        return fit.statistics

    @staticmethod
    def stream(counts, priors, settings):
        """(model, posterior) for steps on blocks of documents."""
        model = MeanFieldStream(settings.n_jobs)
        return model, MeanFieldPosterior(counts.mean, priors)


class SettlingDriver(Incremental):
    """Memoised passes; at the end documents run to tolerance."""

    def _statistics(self, q, blocks):
        return self.model.total(q, blocks)

    def finish(self, model, fit):
        settled = model.settled()
        fit.statistics = settled.evaluate(fit.posterior)
        fit.elbo_terms = settled.elbo_terms(fit.statistics, fit.posterior)
        fit.path[-1] = fit.elbo
        return fit


def _swept_mean_field(model, start, priors, settings, journey):
    """Sweeps while they raise the mean-field bound: a start that is not locked in."""
    corpus = model.corpus
    sweeps = TiedSweeps(corpus, start.counts, start.weights, settings.n_jobs)

    def posterior(priors, n_sweeps):
        sweeps(priors, n_sweeps)
        counts = sweeps.counts.mean.copy()
        return MeanFieldPosterior(counts, priors, sweeps.weights.copy())

    def step(q, statistics):
        yield posterior(model.global_step(statistics.values, q).priors, SWEEPS)

    budget = settings.max_iter // 2
    q = posterior(priors, min(FIRST_SWEEPS, budget))
    journey.n_passes = min(FIRST_SWEEPS, budget)
    steps = (budget - journey.n_passes) // SWEEPS
    if steps < 1:
        return q
    driver = Guarded(model, [step], settings.tol * SWEEPS)
    fit = journey.climb(model, driver, q, settings, steps=steps, passes_each=SWEEPS)
    return fit.posterior


class StructuredFamily:
    """q(z) q(theta, phi | z)."""

    @staticmethod
    def fit(corpus, start, priors, settings, on_iteration):
        model = CollapsedTopics(corpus, settings.n_jobs)
        journey = Journey(on_iteration)
        K = priors.documents.size
        size = CELL_COPIES * corpus.n_cells * K * corpus.dtype.itemsize
        stored = size <= settings.memory
        sweeps = StoredSweeps(corpus, settings.n_jobs)
        tied = TiedSweeps(corpus, start.counts, start.weights, settings.n_jobs)

        def moved(assignments, priors, n_sweeps):
            if isinstance(assignments, Stored):
                return sweeps(assignments, priors, n_sweeps)
            return tied(priors, n_sweeps)

        if start.posterior is None:
            assignments = tied(priors, 0)
            if stored:
                assignments = Stored(assignments.all(corpus))
            journey.n_passes = min(FIRST_SWEEPS, settings.max_iter // 2)
            assignments = moved(assignments, priors, journey.n_passes)
        else:
            assignments = start.posterior.assignments_on(corpus)
            if stored and isinstance(assignments, Tied):
                assignments = Stored(assignments.all(corpus))
        left = max(1, settings.max_iter - journey.n_passes)
        n_sweeps = min(SWEEPS, left)

        def swept(q, expectations):
            priors = best(q.priors, expectations, corpus.lengths)
            yield CollapsedPosterior(priors, moved(q.assignments, priors, n_sweeps))

        q = CollapsedPosterior(priors, assignments)
        driver = Guarded(model, [swept, model.ascended], settings.tol * n_sweeps)
        return journey.climb(
            model,
            driver,
            q,
            settings,
            steps=max(1, left // n_sweeps),
            passes_each=n_sweeps,
        )

    @staticmethod
    def adopted(q, corpus):
        """A posterior of either family as one of this family, on the same corpus."""
        assignments = q.assignments_on(corpus)
        return CollapsedPosterior(q.priors, assignments, q.expected_counts())

    @staticmethod
    def streamed(fit, corpus):
        """A fit's statistics as those of the stream."""
        found, priors = fit.statistics, fit.posterior.priors
        return stream_statistics(
            found.words.mean,
            found.words.squares,
            found.documents.value.sum(),
            found.documents.slope,
            found.entropy,
            corpus.lengths,
            priors,
        )

    @staticmethod
    def stream(counts, priors, settings):
        """(model, posterior) for steps on blocks of documents."""
        model = CollapsedStream(settings.n_jobs)
        return model, CollapsedPosterior(priors, counts=counts)


FAMILIES = {"mean_field": MeanFieldFamily, "structured": StructuredFamily}
