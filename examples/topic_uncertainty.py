"""
How sure is a topic model?
==========================

A topic model splits documents into topics and says which share of a document belongs to
which. Other implementations give these as numbers; ``VariationalTopicModel`` gives a
posterior of them, in one of two families. This page draws the intervals of topics and
of one document's shares, puts the two families side by side, and counts how often their
intervals hold the truth, which is known because the documents are simulated.

The last part watches a fit with held-out documents: its bound and its predictions can
part ways late, and a callback stops it where predictions are best. With the environment
variable ``SKVI_DATA`` set to a folder that holds ``text/ap.npz`` (a sparse matrix of
counts, documents in rows) and ``text/ap_vocab.txt`` (a word a line), that part reads
news of the Associated Press.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from skvi import VariationalTopicModel
from skvi.callbacks import StopWhen

try:
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

parser = argparse.ArgumentParser(description="The posterior of a topic model.")
parser.add_argument("--quick", action="store_true", help="fewer repetitions")
parser.add_argument(
    "--output", type=Path, default=Path(), help="folder for the pictures"
)
args, _ = parser.parse_known_args()  # a notebook passes arguments of its own
gallery = "sphinx_gallery" in sys.modules
blue, orange = "#0072B2", "#D55E00"

# %%
# Documents from known topics
# ---------------------------
# Five topics of a dozen words each. Many words belong to two of them: *rose* is a
# flower and what the price of a stock did, *water* is everywhere but on the market. A
# tenth of all tokens are words at random.

themes = {
    "sea": "boat water wave fish sail harbour wind island storm salt net shore",
    "kitchen": "pan oil salt fish onion oven bread water sauce knife dinner butter",
    "garden": "flower seed water soil tree leaf rose bee spade root bread apple",
    "market": "price stock bank share trade rate bond fund profit crash apple rose",
    "stage": "play actor scene share song light music crowd role applause rose water",
}
vocabulary = np.array(
    sorted({word for text in themes.values() for word in text.split()})
)
K, V = len(themes), len(vocabulary)
own = np.zeros((K, V))
for k, text in enumerate(themes.values()):
    own[k, np.searchsorted(vocabulary, text.split())] = 1.0 / np.arange(3, 15)
true_topics = 0.9 * own / own.sum(axis=1, keepdims=True) + 0.1 / V
priors = {"doc_topic_prior": 0.3, "topic_word_prior": 0.2}


def make_documents(n_documents, length, rng):
    """Counts of words, and the true shares of the topics."""
    shares = rng.dirichlet(np.full(K, priors["doc_topic_prior"]), size=n_documents)
    sizes = 2 + rng.poisson(length, size=n_documents)
    counts = [rng.multinomial(n, p @ true_topics) for n, p in zip(sizes, shares)]
    return np.array(counts), shares


def in_true_order(model):
    """The fit's topics in the order of the true ones: their numbers mean nothing."""
    distance = np.linalg.norm(true_topics[:, None] - model.components_, axis=2)
    return linear_sum_assignment(distance)[1]


def fit(X, posterior):
    model = VariationalTopicModel(
        K, posterior=posterior, n_init=3, random_state=0, **priors
    )
    return model.fit(X)


X, true_shares = make_documents(150, 30, np.random.default_rng(1))
fits = {posterior: fit(X, posterior) for posterior in ("structured", "mean_field")}
structured, mean_field = fits["structured"], fits["mean_field"]
tokens = X.sum()
print(f"{len(X)} documents of about 30 tokens, {tokens} in all; {V} words")

# %%
# What a topic says
# -----------------
# ``components_`` is the posterior mean of the topics, and ``topic_word_`` their
# posterior. Words that two topics share are the uncertain ones: which of the two a
# token belongs to is inferred as well.

order = in_true_order(structured)
ends = structured.topic_word_.interval(0.9)[order]
topics = structured.components_[order]
print("\nTOP WORDS with 90 % intervals of their probabilities, in percent\n")
for name, mean, (low, high) in zip(themes, topics, np.moveaxis(ends, 2, 1)):
    top = np.argsort(-mean)[:4]
    m, a, b = 100 * mean[top], 100 * low[top], 100 * high[top]
    each = zip(vocabulary[top], m, a, b)
    print(
        f"{name:<9}"
        + ", ".join(f"{w} {m:.0f} ({a:.0f}-{b:.0f})" for w, m, a, b in each)
    )

if plt is not None:
    fig, axes = plt.subplots(1, K, figsize=(12, 3.8), sharex=True, layout="constrained")
    for k, (ax, name) in enumerate(zip(axes, themes)):
        top = np.argsort(-topics[k])[:9]
        place = np.arange(len(top))[::-1]
        low, high = ends[k, top].T
        ax.barh(place, topics[k, top], color=blue, alpha=0.25, label="posterior mean")
        ax.hlines(place, low, high, color=blue, lw=2, label="90 % interval")
        ax.plot(true_topics[k, top], place, "k+", ms=9, mew=1.5, label="truth")
        ax.set_yticks(place, vocabulary[top])
        ax.tick_params(axis="y", length=0)
        ax.set_title(name)
    axes[0].set_xlim(0.0, 1.05 * ends.max())
    axes[K // 2].set_xlabel("probability of the word in the topic")
    fig.legend(*axes[0].get_legend_handles_labels(), ncols=3, loc="outside lower right")
    if not gallery:
        args.output.mkdir(parents=True, exist_ok=True)
        fig.savefig(args.output / "topics.png", dpi=120)

# %%
# Two posteriors
# --------------
# ``posterior="mean_field"`` takes shares, topics and the assignments of tokens to be
# independent. ``"structured"`` keeps what shares and topics owe to the assignments: if
# that *rose* came from the garden, this document has more garden in it. Its bound is
# higher. It stays higher where the topics are those that mean field found: with
# ``warm_start=True`` a structured fit goes on from the mean-field q(z) and never ends
# below it.

polished = fit(X, "mean_field").set_params(posterior="structured", warm_start=True)
polished.fit(X)
print("\nBOUND, in nats a token\n")
for name, model in (*fits.items(), ("mean_field, polished", polished)):
    print(f"{name:<22}{model.elbo_ / tokens:9.4f}")
assert structured.elbo_ > mean_field.elbo_ and polished.elbo_ > mean_field.elbo_

# %%
# One document
# ------------
# ``doc_topic_posterior(X)`` is the posterior of a document's shares, and its
# ``interval`` says how far to trust them. Of the documents with 25 tokens or more, the
# one shown is that in which the two posteriors differ most.


def widths(model):
    low, high = np.moveaxis(model.doc_topic_posterior(X).interval(0.9), 2, 0)
    return (high - low).sum(axis=1)


long = X.sum(axis=1) >= 25
shown = np.argmax(np.where(long, widths(structured) / widths(mean_field), 0.0))
present = np.flatnonzero(X[shown])
said = zip(vocabulary[present], X[shown, present])
print("\nONE DOCUMENT:", ", ".join(f"{word} {n}" for word, n in said))
print("\nSHARES with 90 % intervals\n")
print(f"{'':<12}" + "".join(f"{name:>17}" for name in themes))
print(f"{'truth':<12}" + "".join(f"{s:17.2f}" for s in true_shares[shown]))
shares = {}
for posterior, model in fits.items():
    columns = in_true_order(model)
    law = model.doc_topic_posterior(X[[shown]])
    shares[posterior] = law.mean[0, columns], law.interval(0.9)[0, columns]
    cells = (f"{m:.2f} ({a:.2f}-{b:.2f})" for m, (a, b) in zip(*shares[posterior]))
    print(f"{posterior:<12}" + "".join(f"{cell:>17}" for cell in cells))

# %%
# The words say it in more detail: ``responsibilities`` gives the probabilities of the
# topics for each word of a document, in this document.

found = structured.responsibilities(X[shown])[:, order]
unsure = np.argsort(found.max(axis=1))[:4]
print("\nWORDS of this document that could be of several topics\n")
for word, row in zip(vocabulary[present[unsure]], found[unsure]):
    likely = np.argsort(-row)[:2]
    names = np.array(list(themes))[likely]
    print(f"{word:<9}" + ", ".join(f"{n} {p:.2f}" for n, p in zip(names, row[likely])))

# %%
# Are the intervals right?
# ------------------------
# Many corpora from the same topics: how often is a true share inside its 90 % interval?
# What is possible is shown by a sampler that is *told* the true topics and draws from
# the exact posterior of the shares.
#
# A central interval in the tables above belongs to the Beta law of the same mean and
# variance. ``sample_posterior(X=X)`` draws the shares themselves, which is better for
# small shares, whose posterior is not a Beta.


def exact_intervals(X, rng, n_draws=400, n_burn=100):
    """90 % intervals of the shares by Gibbs sampling, given the true topics."""
    document, word = (np.repeat(index, X[X > 0]) for index in np.nonzero(X))
    likelihood = true_topics.T[word]
    counts, draws = np.zeros((len(X), K)), []
    for _ in range(n_burn + n_draws):
        share = rng.standard_gamma(priors["doc_topic_prior"] + counts)
        share /= share.sum(axis=1, keepdims=True)
        steps = np.cumsum(share[document] * likelihood, axis=1)
        u = rng.random(len(word)) * steps[:, -1]
        topic = np.sum(steps < u[:, None], axis=1)
        counts = np.bincount(document * K + topic, minlength=len(X) * K).reshape(-1, K)
        draws.append(share)
    return np.moveaxis(np.quantile(draws[n_burn:], [0.05, 0.95], axis=0), 0, 2)


def drawn_intervals(model, X):
    draws = model.sample_posterior(400, random_state=0, X=X)["proportions"]
    return np.moveaxis(np.quantile(draws, [0.05, 0.95], axis=0), 0, 2)


lengths = (10, 30, 100)
n_sets = 2 if args.quick else 20
rng = np.random.default_rng(2)
rows = ("mean_field", "structured", "structured, drawn", "exact, told the topics")
inside = {row: np.zeros((len(lengths), n_sets)) for row in rows}
width = {row: np.zeros((len(lengths), n_sets)) for row in rows}
words_inside = {posterior: np.zeros((len(lengths), n_sets)) for posterior in fits}
for i, length in enumerate(lengths):
    for j in range(n_sets):
        documents, truth = make_documents(150, length, rng)
        intervals = {rows[3]: exact_intervals(documents, rng)}
        for posterior in fits:
            model = fit(documents, posterior)
            o = in_true_order(model)
            law = model.doc_topic_posterior(documents)
            intervals[posterior] = law.interval(0.9)[:, o]
            low, high = np.moveaxis(model.topic_word_.interval(0.9)[o], 2, 0)
            hit = (low <= true_topics) & (true_topics <= high)
            words_inside[posterior][i, j] = np.mean(hit[own > 0.0])
            if posterior == "structured":
                intervals[rows[2]] = drawn_intervals(model, documents)[:, o]
        for row, found in intervals.items():
            low, high = np.moveaxis(found, 2, 0)
            inside[row][i, j] = np.mean((low <= truth) & (truth <= high))
            width[row][i, j] = np.mean(high - low)

print(f"\nCOVERAGE of 90 % intervals, {n_sets} corpora of 150 documents each\n")
print(f"{'':<24}{'shares':^26}{'(mean width)':^26}")
print(f"{'tokens a document':<24}" + 2 * "".join(f"{n:8}" for n in lengths))
for row in rows:
    cells = "".join(f"{share:8.0%}" for share in inside[row].mean(axis=1))
    cells += "".join(f"{size:8.2f}" for size in width[row].mean(axis=1))
    print(f"{row:<24}{cells}")
print("\nand of the probabilities of the topics' own words\n")
for posterior in ("mean_field", "structured"):
    share = words_inside[posterior].mean(axis=1)
    print(f"{posterior:<24}" + "".join(f"{s:8.0%}" for s in share))
assert inside["structured"].mean() > inside["mean_field"].mean()

# %%
# Mean-field intervals are too narrow. Structured ones are wider and hold more, and
# still not all that they promise. Both families take the assignments of a document's
# tokens to be independent of each other, where in truth some ambiguous words are *all*
# of the sea or *all* of the kitchen; and both see documents through topics at their
# posterior means. The longer the documents, the more this matters. Take the intervals
# for lower limits of what is not known.

# %%
# When to stop
# ------------
# ``score`` and ``perplexity`` judge by document completion: one half of each document
# tells its shares, the other is predicted. The bound, in contrast, is about the
# documents that are fitted. Climbing it to the last nat sharpens the assignments of
# tokens, and what is sharpened to these documents may predict others a little worse.

DATA = os.environ.get("SKVI_DATA")


def zipf_documents(n_documents, n_words, n_topics, length, rng):
    """Documents whose words are as unequally common as those of a language."""
    common = 1.0 / (10.0 + np.arange(n_words))
    concentration = 0.05 * n_words * common / common.sum()
    topics = rng.dirichlet(concentration, size=n_topics)
    theta = rng.dirichlet(np.full(n_topics, 0.1), size=n_documents)
    sizes = 2 + rng.poisson(length, size=n_documents)
    counts = [rng.multinomial(n, p @ topics) for n, p in zip(sizes, theta)]
    return sparse.csr_array(np.array(counts))


rng = np.random.default_rng(0)
if DATA is not None:
    text = Path(DATA) / "text"
    everything = sparse.csr_array(sparse.load_npz(text / "ap.npz"))
    names = np.array((text / "ap_vocab.txt").read_text().split())
    some = rng.permutation(everything.shape[0])[: 240 if args.quick else 1600]
    corpus, source = everything[some], "ap"
else:
    corpus, source = zipf_documents(800, 1000, 20, 60, rng), "a synthetic corpus"
n_held_out = corpus.shape[0] // 4
held_out, train = corpus[:n_held_out], corpus[n_held_out:]
print(
    f"\nWHEN TO STOP: {source}, {train.shape[0]} documents, {n_held_out} held out, "
    "20 topics"
)


class HeldOut:
    """A condition for StopWhen: the held-out score has passed its best.

    Parameters
    ----------
    X : documents to score
    patience : how many looks in a row may be worse than the best one
    """

    def __init__(self, X, patience=np.inf):
        self.X, self.patience = X, patience
        self.path, self.best = [], None  # (pass, elbo, score), and the best model

    def __call__(self, fitted):
        score = fitted.score(self.X)
        if self.best is None or score > max(score for *_, score in self.path):
            self.best, self.worse = fitted, 0
        else:
            self.worse += 1
        self.path.append((fitted.n_iter_, fitted.elbo_, score))
        return self.worse >= self.patience


# %%
# ``StopWhen`` calls the condition with a model that is fitted as if it had stopped
# there; the condition keeps the best of them. To see what comes after, the first run
# has endless patience; the second one does it in earnest.

settings = {
    "n_components": 20,
    "doc_topic_prior": 0.1,
    "topic_word_prior": 0.01,
    "max_iter": 2000,
    "tol": 1e-4 if args.quick else 2e-5,
}
paths, best = {}, {}
print(f"\n{'':<26}{'passes':>8}{'bound a token':>15}{'perplexity':>13}")
for posterior in ("structured", "mean_field"):
    model = VariationalTopicModel(**settings, posterior=posterior, random_state=0)
    for label, patience in (("to the end", np.inf), ("best", 3)):
        watch = HeldOut(held_out, patience)
        model.set_callbacks(StopWhen(watch)).fit(train)
        kept = model if label == "to the end" else watch.best
        print(
            f"{posterior:<13}{label:<13}{kept.n_iter_:8d}"
            f"{kept.elbo_ / train.sum():15.3f}{kept.perplexity(held_out):13.1f}"
        )
        if label == "to the end":
            paths[posterior] = np.array(watch.path)
        else:
            best[posterior] = kept

# %%
# The differences are a percent or a few. The held-out documents that chose where to
# stop are not held out any more; a final figure needs others.

if source == "ap":
    chosen = best["structured"]
    print("\nTOPICS of ap, best held-out score\n")
    for top in chosen.top_words(8, names)[:8]:
        print(" ".join(top))

# %%
# The picture
# -----------

if plt is not None:
    fig, axes = plt.subplot_mosaic(
        [["document", "coverage", "bound"], ["document", "coverage", "held out"]],
        figsize=(12, 4.4),
        layout="constrained",
    )

    ax = axes["document"]
    place = np.arange(K)[::-1]
    for (posterior, (mean, ends)), color, shift in zip(
        shares.items(), (blue, orange), (0.12, -0.12)
    ):
        ax.hlines(place + shift, *ends.T, color=color, lw=5, alpha=0.4)
        ax.plot(mean, place + shift, "o", color=color, label=posterior)
    ax.plot(true_shares[shown], place, "k+", ms=11, mew=1.5, label="truth")
    ax.set_yticks(place, themes)
    ax.set_xlim(-0.02, 1.0)
    ax.set_xlabel("share of the topic, 90 % intervals")
    ax.set_title(f"One document of {X[shown].sum()} tokens")
    ax.legend(fontsize="small")

    ax = axes["coverage"]
    colors = dict(zip(rows, (orange, blue, blue, "0.3")))
    for row, style in zip(rows, ("o-", "o-", "s:", "s--")):
        ax.plot(lengths, inside[row].mean(axis=1), style, color=colors[row], label=row)
    ax.axhline(0.9, color="0.6", lw=1)
    ax.set_xscale("log")
    ax.set_xticks(lengths, [str(n) for n in lengths])
    ax.minorticks_off()
    ax.set_ylim(0.5, 1.0)
    ax.set_xlabel("tokens a document")
    ax.set_title("True shares inside their 90 % interval")
    ax.legend(fontsize="small", loc="lower left")

    for posterior, path in paths.items():
        passes, bound, score = path[1:].T
        k = np.argmax(score)
        perplexities = np.exp(-score)
        for name, values in (
            ("bound", bound / train.sum()),
            ("held out", perplexities),
        ):
            ax = axes[name]
            ax.plot(passes, values, color=colors[posterior], label=posterior)
            ax.plot(passes[k], values[k], "o", color=colors[posterior])
    axes["bound"].set_title("The bound and what is held out")
    axes["bound"].set_ylabel("bound a token")
    axes["bound"].tick_params(labelbottom=False)
    axes["held out"].set_ylabel("perplexity")
    axes["held out"].set_xlabel("passes (dots: best perplexity)")
    axes["bound"].legend(fontsize="small", loc="lower right")

    if not gallery:
        fig.savefig(args.output / "topic_uncertainty.png", dpi=120)
        print(f"\npictures: {args.output / 'topics.png'}, topic_uncertainty.png")

# %%
# With ``SKVI_DATA`` set, one more: what some topics of the news say, and how surely.

if plt is not None and source == "ap":
    fig, axes = plt.subplots(1, 5, figsize=(12, 3.6), layout="constrained")
    sharpest = np.argsort(-np.sort(chosen.components_, axis=1)[:, -9:].sum(axis=1))[:5]
    law = chosen.topic_word_.interval(0.9)
    for ax, k in zip(axes, sharpest):
        mean = chosen.components_[k]
        top = np.argsort(-mean)[:9]
        place = np.arange(len(top))[::-1]
        ax.barh(place, mean[top], color=blue, alpha=0.25)
        ax.hlines(place, *law[k, top].T, color=blue, lw=2)
        ax.set_yticks(place, names[top])
        ax.tick_params(axis="y", length=0)
        ax.set_xlim(0.0, None)
    axes[2].set_xlabel("probability of the word in the topic, 90 % interval")
    if not gallery:
        fig.savefig(args.output / "topics_ap.png", dpi=120)
