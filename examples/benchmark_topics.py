"""
Benchmark: topic models
=======================

``VariationalTopicModel`` beside scikit-learn's ``LatentDirichletAllocation`` (batch and
online), gensim's ``LdaModel`` and tomotopy's ``LDAModel`` (a compiled Gibbs sampler):
held-out perplexity against time, the E-step alone, the number of topics that the
evidence bound chooses, and memory. Every table says what it compares.

.. code-block:: sh

    python examples/benchmark_topics.py            # hours
    python examples/benchmark_topics.py --quick    # small corpora: a minute
    python examples/benchmark_topics.py --only perplexity --corpus ap --topics 20

All systems run in one process on one thread unless a table says otherwise; memory is
that of a fresh process each. gensim and tomotopy take part if they are installed. With
the environment variable ``SKVI_DATA`` set to a folder that holds ``text/ap.npz``,
``text/poliblog5k.npz``, ``text/news20_train.npz`` and ``text/news20_test.npz`` (sparse
matrices of counts, documents in rows), these corpora take part; otherwise there is a
synthetic one.

What "the same" means. One model with the same fixed priors for every system: symmetric,
0.1 for the topics of a document and 0.01 for the words of a topic; nobody learns them.
Of every system only the expected topics, a matrix of relative frequencies of words, are
judged, by one procedure that belongs to none of them. The tokens of each held-out
document are split at random in halves. From the first half the document's proportions
theta are found under the given topics, those which maximise log p(tokens | theta) plus
sum(0.1 * log(theta)): a concave problem, so that there is one answer, whatever the
start. Reported is the perplexity of the second half, exp of minus its log probability a
token. Words that no training document holds are left out of the corpus.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
import scipy
import scipy.sparse as sp
import sklearn
from scipy.special import digamma
from sklearn.decomposition import LatentDirichletAllocation
from sklearn.decomposition._lda import _update_doc_distribution
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info, threadpool_limits

import skvi
from skvi import VariationalTopicModel
from skvi.callbacks import StopWhen
from skvi.kernels import documents as document_kernels
from skvi.models.topics.corpus import Corpus as TopicCorpus
from skvi.models.topics.corpus import padded

DATA = os.environ.get("SKVI_DATA")
CORPORA = ("ap", "news20", "poliblog5k")
POSTERIORS = ("mean_field", "structured")
ALPHA, ETA = 0.1, 0.01
PRIORS = {"doc_topic_prior": ALPHA, "topic_word_prior": ETA}


# %%
# Reporting
# ---------


def heading(text):
    print(f"\n{text}\n{'=' * len(text)}")


def note(text):
    print("\n".join("  " + line for line in text.strip().splitlines()), flush=True)


def table(header, rows):
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    for i, row in enumerate(cells):
        first, *rest = (
            cell.ljust(w) if k == 0 else cell.rjust(w)
            for k, (cell, w) in enumerate(zip(row, widths))
        )
        print("  " + "  ".join([first, *rest]).rstrip())
        if i == 0:
            print("  " + "-" * (sum(widths) + 2 * len(widths) - 2))
    print(flush=True)


def seconds(value):
    """Three significant digits, never in scientific notation; "-" if it never was."""
    if not np.isfinite(value):
        return "-"
    return f"{value:.{max(0, 2 - int(np.floor(np.log10(max(value, 1e-3)))))}f}"


def times(value):
    return "-" if not np.isfinite(value) else f"{value:.3g}x"


def versions():
    heading("What ran")
    names = [
        ("skvi", skvi.__version__),
        ("Python", platform.python_version()),
        ("numpy", np.__version__),
        ("scipy", scipy.__version__),
        ("scikit-learn", sklearn.__version__),
        ("joblib", joblib.__version__),
    ]
    for peer in ("gensim", "tomotopy"):
        if find_spec(peer) is None:
            print(f"  {peer} is not installed: its rows are left out.")
        else:
            names.append((peer, __import__(peer).__version__))
    print("  " + ", ".join(f"{name} {version}" for name, version in names))
    print(f"  {joblib.cpu_count()} cores")
    for pool in threadpool_info():
        print(f"  {pool['user_api']}: {pool['prefix']} {pool['version'] or ''}")


# %%
# Corpora
# -------


def synthetic(n_docs, n_words, n_topics, length, seed, eta=0.05):
    """Counts of documents from the model; topics around a Zipf-like law of words."""
    rng = np.random.default_rng(seed)
    common = 1.0 / (10.0 + np.arange(n_words))
    concentration = np.maximum(eta * n_words * common / common.sum(), 1e-3)
    topics = rng.dirichlet(concentration, size=n_topics)
    theta = rng.dirichlet(np.full(n_topics, ALPHA), size=n_docs)
    sizes = 2 + rng.poisson(length, size=n_docs)
    X = [rng.multinomial(n, p @ topics) for n, p in zip(sizes, theta)]
    return sp.csr_matrix(np.array(X, dtype=np.int32))


class Corpus:
    """Training documents, and held-out ones whose tokens are split in halves.

    Attributes
    ----------
    train : CSR matrix of counts, (n_train, n_words)
    observed, hidden : CSR matrices of counts, (n_held_out, n_words)
    """

    def __init__(self, name, train, held_out, seed=0):
        rng = np.random.default_rng(seed)
        self.name = name
        kept = np.flatnonzero(np.asarray(train.sum(axis=0)).ravel())
        self.train = drop_short(train[:, kept])
        self.observed, self.hidden = halves(drop_short(held_out[:, kept]), rng)

    @classmethod
    def named(cls, name):
        """A real corpus: 15 % of its documents held out, 1500 of the news20 test."""
        rng = np.random.default_rng(0)
        if name == "news20":
            train, rest = load("news20_train"), load("news20_test")
            held_out = rest[np.sort(rng.choice(rest.shape[0], 1500, replace=False))]
        else:
            X = load(name)
            order = rng.permutation(X.shape[0])
            first = round(0.15 * X.shape[0])
            held_out, train = X[np.sort(order[:first])], X[np.sort(order[first:])]
        return cls(name, train, held_out)

    @classmethod
    def synthetic(cls, n_docs, n_words, n_topics, length):
        X = synthetic(n_docs, n_words, n_topics, length, seed=0)
        first = round(0.15 * n_docs)
        return cls("synthetic", X[first:], X[:first])

    def __str__(self):
        docs, words = self.train.shape
        return (
            f"{self.name}: {docs:,} documents, {words:,} words, "
            f"{self.train.sum():,} tokens ({self.train.nnz:,} nonzero counts); "
            f"held out: {self.observed.shape[0]:,} documents, half of them "
            f"{self.hidden.sum():,} tokens"
        )


def load(name):
    return sp.csr_matrix(sp.load_npz(Path(DATA) / "text" / f"{name}.npz"))


def drop_short(X):
    """Documents of two tokens or more."""
    return X[np.asarray(X.sum(axis=1)).ravel() >= 2]


def halves(X, rng):
    """Each document's tokens in two random halves; the first is never the smaller."""
    doc = np.repeat(np.repeat(np.arange(X.shape[0]), np.diff(X.indptr)), X.data)
    word = np.repeat(X.indices, X.data)
    order = np.lexsort((rng.random(len(doc)), doc))
    word = word[order]  # in random order within each document
    sizes = np.asarray(X.sum(axis=1)).ravel()
    place = np.arange(len(doc)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    first = place < np.repeat((sizes + 1) // 2, sizes)
    parts = []
    for part in (first, ~first):
        ones = np.ones(part.sum(), dtype=np.int32)
        parts.append(sp.csr_matrix((ones, (doc[part], word[part])), shape=X.shape))
        parts[-1].sum_duplicates()
    return parts


def corpora(names, quick):
    if quick:
        yield Corpus.synthetic(600, 1000, 20, 80)
    elif DATA is None:
        print("  SKVI_DATA is not set: a synthetic corpus only.")
        yield Corpus.synthetic(2000, 8000, 50, 200)
    else:
        for name in names:
            yield Corpus.named(name)


# %%
# One judge for all
# -----------------


def proportions(topics, words, counts, alpha, tol=1e-5, max_iter=1000):
    """theta that maximises sum(counts * log(theta @ topics)) + alpha sum(log(theta)).

    By fixed-point iteration from equal ones; topics (V, K). The problem is concave.
    """
    likelihood = topics[words]
    K = likelihood.shape[1]
    theta = np.full(K, 1.0 / K)
    size = counts.sum() + K * alpha
    for _ in range(max_iter):
        expected = theta * ((counts / (likelihood @ theta)) @ likelihood)
        new = (alpha + expected) / size
        change = np.abs(new - theta).sum()
        theta = new
        if change < tol:
            break
    return theta


def perplexity(topics, corpus, alpha=ALPHA):
    """Of the hidden halves of held-out documents; topics (K, V), each row is scaled."""
    topics = np.asarray(topics, dtype=float)
    by_word = np.ascontiguousarray((topics / topics.sum(axis=1, keepdims=True)).T)
    seen, unseen, total = corpus.observed, corpus.hidden, 0.0
    for d in range(seen.shape[0]):
        here = slice(*seen.indptr[d : d + 2])
        theta = proportions(by_word, seen.indices[here], seen.data[here], alpha)
        there = slice(*unseen.indptr[d : d + 2])
        total += unseen.data[there] @ np.log(by_word[unseen.indices[there]] @ theta)
    return float(np.exp(-total / unseen.sum()))


class TimeUp(Exception):
    """Ends a fit of a system that has no other way to be stopped."""


class Curve:
    """Perplexity against seconds of training; the judge's own time is left out.

    Looked at whenever the training time has grown by a tenth, at the earliest after
    `grid` seconds, and at the end.
    """

    def __init__(self, corpus, budget, growth=1.1, grid=0.02):
        self.corpus, self.budget, self.growth = corpus, budget, growth
        self.due, self.steps = grid, 0
        self.at, self.seconds, self.perplexity = [], [], []

    def start(self):
        self.paused, self.begin = 0.0, time.perf_counter()

    def now(self):
        return time.perf_counter() - self.begin - self.paused

    def step(self, topics, last=False):
        """Whether the time is up; `topics` is called if it is time to look."""
        now, before = self.now(), time.perf_counter()
        self.steps += not last
        if now >= min(self.due, self.budget) or last:
            self.at.append(self.steps)
            self.seconds.append(now)
            self.perplexity.append(perplexity(topics(), self.corpus))
            self.due = now * self.growth
        self.paused += time.perf_counter() - before
        return now >= self.budget

    def first(self, target):
        """(seconds, step) of the first look at a perplexity no worse than a target."""
        for at, clock, value in zip(self.at, self.seconds, self.perplexity):
            if value <= target:
                return clock, at
        return np.inf, None

    @property
    def best(self):
        return min(self.perplexity)

    def after(self, clock):
        """Perplexity when so many seconds have passed; None if it ended before."""
        if not self.seconds[0] <= clock <= self.seconds[-1]:
            return None
        passed = np.searchsorted(self.seconds, 1.01 * clock, side="right")
        return self.perplexity[passed - 1]


# %%
# The systems
# -----------
# Each trains on ``corpus.train`` and calls ``curve.step`` now and then. Conversion of
# the corpus to what the system reads comes before the clock starts.


def sklearn_lda(corpus, K, curve, seed, method, dtype=np.float64):
    """LatentDirichletAllocation with its defaults; a step is an M-step."""

    class Watched(LatentDirichletAllocation):
        def _em_step(self, *args, **kwargs):
            super()._em_step(*args, **kwargs)
            if curve.step(lambda: self.components_):
                raise TimeUp

    model = Watched(
        n_components=K, learning_method=method, random_state=seed, max_iter=10**9
    ).set_params(**PRIORS)
    X = corpus.train.astype(dtype)
    curve.start()
    try:
        model.fit(X)
    except TimeUp:
        pass


def gensim_lda(corpus, K, curve, seed):
    """LdaModel with its defaults; a step is an M-step."""
    from gensim.models import LdaModel

    class Watched(LdaModel):
        def do_mstep(self, *args, **kwargs):
            super().do_mstep(*args, **kwargs)
            if curve.step(self.state.get_lambda):
                raise TimeUp

    X = corpus.train
    documents = [
        list(zip(X.indices[i:j].tolist(), X.data[i:j].tolist()))
        for i, j in zip(X.indptr, X.indptr[1:])
    ]
    names = {word: str(word) for word in range(X.shape[1])}
    curve.start()
    try:
        Watched(
            documents,
            num_topics=K,
            id2word=names,
            alpha=ALPHA,
            eta=ETA,
            passes=10**9,
            eval_every=None,
            random_state=seed,
        )
    except TimeUp:
        pass


def tomotopy_lda(corpus, K, curve, seed, workers=1):
    """LDAModel, its priors not optimised; a step is a sweep over all tokens."""
    import tomotopy

    model = tomotopy.LDAModel(k=K, alpha=ALPHA, eta=ETA, seed=seed)
    model.optim_interval = 0
    X = corpus.train
    for i, j in zip(X.indptr, X.indptr[1:]):
        words = np.repeat(X.indices[i:j], X.data[i:j])
        model.add_doc([str(word) for word in words])

    def topics():
        where = np.array([int(word) for word in model.used_vocabs])
        found = np.empty((K, X.shape[1]))
        for k in range(K):
            found[k, where] = model.get_topic_word_dist(k)
        return found

    curve.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # two workers: no fixed seed
        model.train(0, workers=workers)  # draws a start
        while True:
            model.train(1, workers=workers)
            if curve.step(topics):
                break


def skvi_model(K, posterior, seed, **parameters):
    return VariationalTopicModel(
        n_components=K, posterior=posterior, random_state=seed, **PRIORS, **parameters
    )


def skvi_lda(corpus, K, curve, seed, posterior, **parameters):
    """VariationalTopicModel with its defaults until it ends; a step is an iteration."""
    model = skvi_model(K, posterior, seed, **parameters)
    model.set_callbacks(StopWhen(lambda fitted: curve.step(lambda: fitted.components_)))
    curve.start()
    quietly(model.fit, corpus.train.astype(np.float32))
    curve.step(lambda: model.components_, last=True)


def quietly(call, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return call(*args)


PEER = "scikit-learn batch float32"


def systems():
    """name -> (runner, keywords); those that are installed."""
    found = {
        "skvi mean_field": (skvi_lda, {"posterior": "mean_field"}),
        "skvi structured": (skvi_lda, {"posterior": "structured"}),
        PEER: (sklearn_lda, {"method": "batch", "dtype": np.float32}),
        "scikit-learn batch": (sklearn_lda, {"method": "batch"}),
        "scikit-learn online": (sklearn_lda, {"method": "online"}),
    }
    if find_spec("gensim") is not None:
        found["gensim"] = (gensim_lda, {})
    if find_spec("tomotopy") is not None:
        found["tomotopy"] = (tomotopy_lda, {"workers": 1})
        found["tomotopy, 2 workers"] = (tomotopy_lda, {"workers": 2})
    return found


# %%
# Perplexity against time
# -----------------------

CLOSE = 1.005


def run(name, corpus, K, budget, seed=0, grid=0.02):
    """The curve of a system."""
    runner, keywords = systems()[name]
    curve = Curve(corpus, budget, grid=grid)
    with threadpool_limits(1):
        runner(corpus, K, curve, seed, **keywords)
    return curve


def whole_fit(corpus, K, posterior, n_looks, repeats=3):
    """(median seconds, perplexity) of a fit that ends when its bound was looked at so
    many times, without the judge.
    """
    clock = []
    with threadpool_limits(1):
        for _ in range(repeats):
            model = skvi_model(K, posterior, 0)
            model.set_callbacks(StopWhen(lambda m: len(m.elbo_path_) >= n_looks))
            X = corpus.train.astype(np.float32)
            start = time.perf_counter()
            quietly(model.fit, X)
            clock.append(time.perf_counter() - start)
        return np.median(clock), perplexity(model.components_, corpus)


def time_to_perplexity(options):
    quick = options.quick
    budget, gibbs = (1.0, 1.5) if quick else (30.0, 60.0)
    heading("Held-out perplexity against time")
    note(
        f"""
First table: perplexity after so many seconds of training (".": not looked at yet;
blank: it ended before). "end": at its end; scikit-learn and gensim are stopped after
{budget:g} s, tomotopy and skvi after {gibbs:g} s if they have not ended by themselves.
"best": the lowest on the way. "close": seconds until within 0.5 % of its own best.
"target": seconds until the perplexity that {PEER} has at its
end. gensim's arrays are float32 too; defaults otherwise.

Second table: skvi's fits on their own, without the judge, stopped where the curve of
the first table reached the goal ("looks": so often was the bound looked at). The
perplexity is that of the fit, which ends with a last pass; seconds are those of the
whole fit, the median of {1 if quick else 3}. Ratios: time of the others over its.
"batch": {PEER} in all.
"to its end": the same, until it first had the perplexity that it has at its end.
"tomotopy": until within 0.5 % of its own best.
"""
    )
    for corpus in corpora(options.corpus or CORPORA, quick):
        note(str(corpus))
        for K in options.topics or ((20,) if quick else (20, 100)):
            perplexity_tables(corpus, K, budget, gibbs, quick)


def perplexity_tables(corpus, K, budget, gibbs, quick):
    curves, rows = {}, []
    label = f"{corpus.name}, K={K}"
    for name in systems():
        own = gibbs if name.startswith(("skvi", "tomotopy")) else budget
        curve = run(name, corpus, K, own, grid=0.005 if quick else 0.02)
        curves[name] = curve
        end = f"{curve.perplexity[-1]:.1f} after {seconds(curve.seconds[-1])} s"
        print(f"  ({label}, {name}: {end})", flush=True)
    peer = curves[PEER]
    target = peer.perplexity[-1]
    marks = (0.1, 0.3, 1) if quick else (0.1, 0.3, 1, 3, 10, 30)
    for name, curve in curves.items():
        rows.append([label, name])
        for mark in marks:
            value = curve.after(mark)
            early = "." if mark < curve.seconds[0] else ""
            rows[-1].append(early if value is None else f"{value:.0f}")
        rows[-1] += [f"{curve.perplexity[-1]:.1f}", seconds(curve.seconds[-1])]
        rows[-1] += [f"{curve.best:.1f}"]
        for goal in (curve.best, CLOSE * curve.best, target):
            rows[-1].append(seconds(curve.first(goal)[0]))
    header = ["corpus", "system", *(f"{mark:g} s" for mark in marks)]
    table(header + ["end", "s", "best", "s", "close", "target"], rows)

    rows = []
    gibbs_runs = [c for name, c in curves.items() if name.startswith("tomotopy")]
    theirs = [peer.seconds[-1], peer.first(target)[0]]
    theirs += [c.first(CLOSE * c.best)[0] for c in gibbs_runs]
    for posterior in POSTERIORS:
        curve = curves[f"skvi {posterior}"]
        goals = {f"end of {PEER}": target}
        if gibbs_runs:
            goals["tomotopy's best + 0.5 %"] = CLOSE * min(c.best for c in gibbs_runs)
        goals["its own best + 0.5 %"] = CLOSE * curve.best
        for name, goal in goals.items():
            rows.append([label, posterior, name, f"{goal:.1f}"])
            n_looks = curve.first(goal)[1]
            if n_looks is None:
                rows[-1] += ["never"] + [""] * (2 + len(theirs))
                continue
            clock, value = whole_fit(corpus, K, posterior, n_looks, 1 if quick else 3)
            rows[-1] += [n_looks, f"{value:.1f}", seconds(clock)]
            rows[-1] += [times(took / clock) for took in theirs]
    header = ["corpus", "posterior", "goal", "", "looks", "perplexity", "s"]
    header += ["batch", "to its end"]
    table(header + ["tomotopy", "2 workers"][: len(gibbs_runs)], rows)


# %%
# E-step
# ------


def expected_log_topics(concentration):
    total = concentration.sum(axis=1, keepdims=True)
    return digamma(concentration) - digamma(total)


def sklearn_documents(X, concentration, tol):
    """(seconds, gamma) of scikit-learn's E-step from gamma = 1, statistics included."""
    topics = np.exp(expected_log_topics(concentration)).astype(X.dtype)
    start = time.perf_counter()
    gamma, _ = _update_doc_distribution(X, topics, ALPHA, 10_000, tol, True, None)
    return time.perf_counter() - start, gamma


def skvi_documents(X, concentration, tol):
    """(seconds, gamma) of skvi's document pass from gamma = 1, statistics included.

    Its tolerance is relative to the tokens of a document, so documents of similar
    length go together, and the longest sets the tolerance of all.
    """
    K = len(concentration)
    topics = np.exp(expected_log_topics(concentration)).T
    topics = padded((topics / topics.max(axis=1, keepdims=True)).astype(X.dtype))
    order = np.argsort(np.asarray(X.sum(axis=1)).ravel(), kind="stable")
    pieces = []
    for rows in np.array_split(order, 64):
        corpus = TopicCorpus(X[rows], 512)
        relative = tol * K / (corpus.lengths.max() + K * ALPHA)
        pieces.append((rows, corpus, relative, np.ones((len(rows), K))))
    alpha, work = np.full(K, ALPHA), np.empty((2, topics.shape[1]), X.dtype)
    start = time.perf_counter()
    counts = np.zeros(topics.shape)
    for rows, corpus, relative, gamma in pieces:
        block = corpus.blocks[0]
        local = topics[block.vocabulary]
        assigned, terms = np.zeros(local.shape), np.empty((len(rows), 2))
        document_kernels.mean_field(
            block.indptr,
            block.words,
            block.counts,
            local,
            alpha,
            gamma,
            10_000,
            relative,
            1e-17,
            assigned,
            terms,
            np.empty(K),
            work,
        )
        counts[block.vocabulary] += assigned
    clock = time.perf_counter() - start
    found = np.empty((X.shape[0], K))
    for rows, corpus, _, gamma in pieces:
        found[rows] = corpus.restored(gamma)
    return clock, found


def estep(options):
    quick = options.quick
    repeats, tol = (1 if quick else 5), 1e-3
    heading("The E-step of the mean field")
    note(
        f"""
Dirichlet parameters gamma of every training document from the same start (ones), under
the same topics (five iterations of scikit-learn), until the mean absolute change of a
document's is below {tol:g}; with the statistics for the M-step; one thread. Medians of
{repeats} paired repeats. "error", "mean": largest and mean, over 200 documents, of the
mean absolute distance to the converged gamma; they show that nobody stops sooner.
Ratios: time of scikit-learn's float64 over that of the row.
"""
    )
    for corpus in corpora(options.corpus or CORPORA, quick):
        for K in options.topics or ((20,) if quick else (20, 100)):
            X = corpus.train.astype(np.float64)
            model = LatentDirichletAllocation(K, max_iter=5, random_state=0, **PRIORS)
            with threadpool_limits(1):
                lam = model.fit(X).components_
                _, exact = sklearn_documents(X[:200], lam, 1e-9)
                runs = {}
                for _ in range(repeats):
                    for name, call in {
                        "scikit-learn": sklearn_documents,
                        "skvi": skvi_documents,
                    }.items():
                        for dtype in (np.float64, np.float32):
                            found = call(X.astype(dtype), lam, tol)
                            runs.setdefault((name, dtype.__name__), []).append(found)
            rows, base = [], None
            for (name, dtype), found in runs.items():
                clock = np.median([took for took, _ in found])
                base = clock if base is None else base
                distance = np.abs(found[-1][1][:200] - exact).mean(axis=1)
                rows.append([f"{corpus.name}, K={K}", name, dtype, seconds(clock)])
                rows[-1] += [times(base / clock)]
                rows[-1] += [f"{distance.max():.1e}", f"{distance.mean():.1e}"]
            table(["corpus", "system", "X", "s", "ratio", "error", "mean"], rows)


# %%
# Number of topics
# ----------------


SKLEARN_ITER = {False: 100, True: 20}


def choose(options):
    quick = options.quick
    n_topics, seeds = 10, range(1 if quick else 5)
    candidates = (8, 10, 12) if quick else range(5, 16)
    n_docs = 300 if quick else 1000
    heading("Number of topics by the evidence bound")
    note(
        f"""
{n_docs:,} documents of about 100 tokens and 500 words from the model with {n_topics}
topics; one corpus a seed. The K of {", ".join(map(str, candidates))} with the highest
elbo_ of a default fit, or for scikit-learn the highest score(X) (float64,
max_iter={SKLEARN_ITER[quick]}). "next": how far in nats the second-best K is below it,
median over the seeds.
"""
    )
    rows = []
    for name in (*POSTERIORS, "scikit-learn"):
        chosen, gaps, start = [], [], time.perf_counter()
        for seed in seeds:
            X = synthetic(n_docs, 500, n_topics, 100, seed)
            bounds = [bound(name, X, K, seed, quick) for K in candidates]
            chosen.append(candidates[int(np.argmax(bounds))])
            gaps.append(np.subtract(*np.sort(bounds)[:-3:-1]))
        near = np.mean(np.abs(np.subtract(chosen, n_topics)) <= 1)
        clock = time.perf_counter() - start
        label = "scikit-learn" if name == "scikit-learn" else f"skvi {name}"
        rows.append([label, " ".join(map(str, chosen)), f"{near:.0%}"])
        rows[-1] += [f"{np.median(gaps):.0f}"]
        rows[-1] += [seconds(clock / len(seeds) / len(candidates))]
        print(f"  ({label} done)", flush=True)
    table(["system", "chosen", "within 1", "next", "s a fit"], rows)


def bound(name, X, K, seed, quick):
    with threadpool_limits(1):
        if name == "scikit-learn":
            model = LatentDirichletAllocation(
                K, max_iter=SKLEARN_ITER[quick], random_state=seed, **PRIORS
            )
            return model.fit(X.astype(float)).score(X.astype(float))
        return quietly(skvi_model(K, name, seed).fit, X).elbo_


# %%
# Memory
# ------

CHILD = """
import sys
import scipy.sparse as sp
from sklearn.decomposition import LatentDirichletAllocation
from skvi import VariationalTopicModel

def resident(field):
    try:
        with open("/proc/self/status") as status:
            line = [line for line in status if line.startswith(field)][0]
        return 1024 * int(line.split()[1])
    except OSError:
        import resource
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

path, K, name, alpha, eta = sys.argv[1:]
priors = {"doc_topic_prior": float(alpha), "topic_word_prior": float(eta)}

def fit(X, K):
    if name == "scikit-learn":
        model = LatentDirichletAllocation(K, max_iter=3, random_state=0, **priors)
    else:
        model = VariationalTopicModel(
            n_components=K, posterior=name, max_iter=3, random_state=0, **priors
        )
    model.fit(X)

X = sp.load_npz(path)
fit(X[:50], 3)  # lazy imports and buffers
before = resident("VmRSS")
fit(X, int(K))
print(resident("VmHWM") - before)
"""


def memory(options):
    heading("Peak memory of fit")
    note(
        """
By how much a fit (max_iter=3, its end and the bound included) raises the peak resident
memory of a fresh process above what it has when it holds the corpus and has fitted
something small; one thread. scikit-learn: batch on the same integer counts, which it
makes float64.
"""
    )
    names, sizes = options.corpus or ("news20",), options.topics or (100,)
    if options.quick:
        sizes = options.topics or (20,)
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for corpus in corpora(names, options.quick):
            path, X = Path(folder) / "corpus.npz", corpus.train
            sp.save_npz(path, X, compressed=False)
            held = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
            for K in sizes:
                for name in (*POSTERIORS, "scikit-learn"):
                    command = [sys.executable, "-W", "ignore", "-c", CHILD]
                    command += map(str, (path, K, name, ALPHA, ETA))
                    child = subprocess.run(
                        command,
                        capture_output=True,
                        check=True,
                        env=os.environ | one_thread,
                    )
                    label = name if name == "scikit-learn" else f"skvi {name}"
                    rows.append([f"{corpus.name}, K={K}", label])
                    rows[-1] += [f"{held / 1e6:.1f} MB"]
                    rows[-1] += [f"{8 * K * X.shape[1] / 1e6:.1f} MB"]
                    rows[-1] += [f"{int(child.stdout) / 1e6:.0f} MB"]
    table(["corpus", "fit", "X", "topics (float64)", "above X"], rows)


SECTIONS = {
    "memory": memory,
    "choose": choose,
    "estep": estep,
    "perplexity": time_to_perplexity,
}


def main():
    parser = argparse.ArgumentParser(description="Benchmark topic models.")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer runs")
    parser.add_argument("--only", action="append", choices=sorted(SECTIONS))
    parser.add_argument("--corpus", action="append", choices=CORPORA)
    parser.add_argument("--topics", action="append", type=int, metavar="K")
    options = parser.parse_args()
    start = time.perf_counter()
    versions()
    for name, section in SECTIONS.items():
        if options.only is None or name in options.only:
            began = time.perf_counter()
            section(options)
            print(f"  ({time.perf_counter() - began:.0f} s)", flush=True)
    print(f"\nDone in {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
