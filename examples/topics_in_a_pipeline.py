"""
Topics in a pipeline
====================

From text to a prediction with intervals: words are counted, counts become shares of
topics, and shares go into a regression. All three are scikit-learn steps, so one search
tunes them together.

The text is what everybody who runs this has installed: the documentation of functions
in eight parts of scipy, the prose without the list of parameters. Two things can be
asked of it. How many parameters does a function have, going by what the text talks
about? And which part of scipy is it from?
"""

import argparse
import importlib
import inspect
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import scipy
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedKFold,
    cross_val_score,
    train_test_split,
)
from sklearn.pipeline import Pipeline

from skvi import VariationalBayesianRegression, VariationalTopicModel, unwrap
from skvi.metrics import elbo_scorer, log_predictive_density_scorer

try:
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

parser = argparse.ArgumentParser(description="Topic models in scikit-learn.")
parser.add_argument("--quick", action="store_true", help="a smaller search")
parser.add_argument(
    "--output", type=Path, default=Path(), help="folder for the picture"
)
args, _ = parser.parse_known_args()  # a notebook passes arguments of its own
candidates = [10, 20, 40] if args.quick else [5, 10, 20, 30, 40]
folds = KFold(2 if args.quick else 5, shuffle=True, random_state=0)

# %%
# Text
# ----
# A docstring in numpydoc's format has sections with underlined headings. The summary
# and the notes are the text, the entries of *Parameters* are counted.

PARTS = (
    "fft",
    "integrate",
    "interpolate",
    "linalg",
    "ndimage",
    "optimize",
    "signal",
    "stats",
)


def sections(doc):
    """Heading -> text; the text above the first heading has the empty one."""
    first, *rest = re.split(r"^(\w[\w ]*)\n-{3,}\s*$", doc, flags=re.MULTILINE)
    return {"": first, **dict(zip(rest[::2], rest[1::2]))}


names, texts, parts, n_parameters = [], [], [], []
for part in PARTS:
    module = importlib.import_module(f"scipy.{part}")
    for name in sorted(module.__all__):
        thing = getattr(module, name)
        doc = sections((callable(thing) and inspect.getdoc(thing)) or "")
        text = doc[""] + doc.get("Notes", "")
        listed = re.findall(r"^\*{0,2}\w[\w, *]*:", doc.get("Parameters", ""), re.M)
        if len(text.split()) >= 20 and listed:
            names.append(f"{part}.{name}")
            texts.append(text)
            parts.append(part)
            n_parameters.append(len(listed))
texts, parts, y = np.array(texts, dtype=object), np.array(parts), np.array(n_parameters)
train, test = train_test_split(np.arange(len(y)), stratify=parts, random_state=0)
print(
    f"scipy {scipy.__version__}: {len(y)} docstrings, median number of parameters "
    f"{np.median(y):.0f}, 90 % have {np.quantile(y, 0.9):.0f} or fewer"
)

# %%
# Three steps
# -----------
# With the priors given, all that changes with the number of topics is the number of
# topics. (The default is 1 / K for both.) A search needs no last digits, so ``tol`` is
# larger than the default.
#
# Numbers of parameters are positive, and differ by factors rather than by amounts: the
# regression is of their logarithm.

words = CountVectorizer(
    stop_words="english", min_df=3, max_df=0.4, token_pattern=r"(?u)\b[a-z]{3,}\b"
)
topics = VariationalTopicModel(
    n_components=20,
    doc_topic_prior=0.1,
    topic_word_prior=0.1,
    tol=1e-3,
    n_jobs=1,
    random_state=0,
)
pipeline = Pipeline(
    [("words", words), ("topics", topics), ("model", VariationalBayesianRegression())]
)
regression = TransformedTargetRegressor(pipeline, func=np.log, inverse_func=np.exp)
regression.fit(texts[train], y[train])

# %%
# The steps before the last are a pipeline too, and tell what they make of a text: the
# names of columns pass through, and with pandas installed so do frames.

front = regression.regressor_[:-1]
print("\ncolumns:", *front.get_feature_names_out()[:3], "...")
if find_spec("pandas") is not None:
    front["topics"].set_output(transform="pandas")
    frame = front.transform(texts[test[:3]])
    frame.index = np.array(names)[test[:3]]
    print(frame.iloc[:, :3].round(2).to_string())
    front["topics"].set_output(transform="default")

# %%
# How many topics?
# ----------------
# Three answers to different questions.
#
# - Which number predicts the *target* best? The search cross-validates everything, the
#   words and the topics included.
# - Which number predicts *words* best? The score of a topic model is the mean log
#   probability of a token, by document completion. It is what a search takes when it is
#   told no other scoring.
# - Which number does the *evidence* prefer? ``elbo_scorer`` needs no held-out text. It
#   reads ``elbo_`` off one fit to all rows, and the only "split" of the search says so.

by_target = GridSearchCV(
    regression,
    {"regressor__topics__n_components": candidates},
    scoring=log_predictive_density_scorer,
    cv=folds,
    n_jobs=1,
).fit(texts[train], y[train])

grid = {"topics__n_components": candidates}
text_model = Pipeline([("words", words), ("topics", topics)])
by_words = GridSearchCV(text_model, grid, cv=folds, refit=False, n_jobs=1)
by_words.fit(texts[train])
everything = np.arange(len(train))
by_elbo = GridSearchCV(
    text_model, grid, scoring=elbo_scorer, cv=[(everything, everything)], n_jobs=1
).fit(texts[train])

searches = {
    "target": by_target,
    "words": by_words,
    "elbo": by_elbo,
}
print("\nHOW MANY TOPICS\n")
print(f"{'':<8}{'target,':>16}{'words,':>16}{'elbo,':>12}")
print(f"{'topics':<8}{'nats a function':>16}{'nats a token':>16}{'nats':>12}")
results = {
    label: search.cv_results_["mean_test_score"] for label, search in searches.items()
}
for k, target, word, elbo in zip(candidates, *results.values()):
    print(f"{k:<8}{target:16.3f}{word:16.3f}{elbo:12.0f}")
chosen = {label: candidates[search.best_index_] for label, search in searches.items()}
print("chosen: " + ", ".join(f"{k} by {label}" for label, k in chosen.items()))

# %%
# Predictions with their uncertainty
# ----------------------------------
# What the text talks about says something about the number of parameters, and not much:
# the intervals are wide, and hold about what they promise. The same regression without
# any text shows what the topics add.

best = by_target.best_estimator_
levels = [0.05, 0.5, 0.95]
low, median, high = best.predict(texts[test], quantiles=levels).T
inside = (low <= y[test]) & (y[test] <= high)
density = {
    "topics": log_predictive_density_scorer(best, texts[test], y[test]),
    "no text": log_predictive_density_scorer(
        TransformedTargetRegressor(
            VariationalBayesianRegression(), func=np.log, inverse_func=np.exp
        ).fit(np.zeros((len(train), 1)), y[train]),
        np.zeros((len(test), 1)),
        y[test],
    ),
}
print("\nNUMBER OF PARAMETERS of functions that were not trained on\n")
for i in range(5):
    print(
        f"{names[test[i]]:<34}{y[test[i]]:3d}   predicted {median[i]:.1f}, "
        f"90 % interval {low[i]:.1f} to {high[i]:.1f}"
    )
print(f"\n90 % intervals hold {inside.mean():.0%} of {len(test)}")
for label, value in density.items():
    print(f"log predictive density, {label:<8}{value:8.3f} nats a function")

# %%
# Which topics go with many parameters?
# -------------------------------------
# :func:`skvi.unwrap` opens whatever it is given down to the last estimator, here the
# regression, with X as that one sees it: the shares. Its coefficients have posterior
# standard deviations. The topics are a named step, their words are those of the counts.
# (Should two rows have the same words, these topics are empty. Their shares are what
# the prior leaves them, which is more in a short text.)

model, shares = unwrap(by_target, texts[train])
steps = best.regressor_.named_steps
tops = steps["topics"].top_words(4, steps["words"].get_feature_names_out())
order = np.argsort(model.coef_)
print("\nCOEFFICIENTS of the shares, for the log of the number of parameters\n")
for k in (*order[:3], *order[-3:]):
    print(f"{model.coef_[k]:6.2f} +- {model.coef_std_[k]:.2f}   {' '.join(tops[k])}")

# %%
# The same for the text itself: the topic model, what it says of one document and how
# surely.

reader, counts = unwrap(by_elbo, texts[test])
law = reader.doc_topic_posterior(counts[[0]])
vocabulary = by_elbo.best_estimator_["words"].get_feature_names_out()
print(f"\nTOPICS of {names[test[0]]}\n")
for k in np.argsort(-law.mean[0])[:3]:
    a, b = law.interval(0.9)[0, k]
    label = " ".join(reader.top_words(5, vocabulary)[k])
    print(f"{law.mean[0, k]:.2f} ({a:.2f} to {b:.2f})   {label}")

# %%
# A classifier instead
# --------------------
# Any last step will do. Which part of scipy is a function from?

last = LogisticRegression(C=10, max_iter=1000)
classifiers = {"all words": Pipeline([("words", words), ("model", last)])}
for k in (20,) if args.quick else (20, 40):
    front = [("words", words), ("topics", clone(topics).set_params(n_components=k))]
    classifiers[f"{k} topics"] = Pipeline([*front, ("model", last)])
print("\nACCURACY of the part of scipy, cross-validated\n")
by_part = StratifiedKFold(3, shuffle=True, random_state=0)
for label, classifier in classifiers.items():
    accuracy = cross_val_score(classifier, texts, parts, cv=by_part, n_jobs=1)
    print(f"{label:<12}{accuracy.mean():6.1%}")

# %%
# A linear classifier that may use every word needs no topics, and with enough labels it
# does better. Topics say in a few numbers what a text is about, and are found without
# labels.
#
# The picture
# -----------

if plt is not None:
    blue, orange = "#0072B2", "#D55E00"
    fig, axes = plt.subplot_mosaic(
        [[label, "coefficients", "predictions"] for label in searches],
        figsize=(13, 5.2),
        width_ratios=[1.0, 1.1, 1.3],
        layout="constrained",
    )

    units = ("nats a function", "nats a token", "nats")
    for (label, values), unit in zip(results.items(), units):
        ax = axes[label]
        ax.plot(candidates, values, "o-", color=blue)
        k = np.argmax(values)
        ax.plot(candidates[k], values[k], "o", color=orange, ms=9)
        ax.set_xscale("log")
        ax.set_xticks(candidates, [str(k) for k in candidates])
        ax.minorticks_off()
        ax.tick_params(labelbottom=label == "elbo")
        ax.set_ylabel(f"{label},\n{unit}")
    axes["target"].set_title("How many topics?")
    axes["elbo"].set_xlabel("topics (orange: chosen)")

    ax = axes["coefficients"]
    shown = np.concatenate([order[:6], order[-6:]]) if len(order) > 12 else order
    reach = 1.645 * model.coef_std_[shown]
    place = np.arange(len(shown))
    ax.errorbar(model.coef_[shown], place, xerr=reach, fmt="o", color=blue, capsize=3)
    ax.axvline(0.0, color="0.6", lw=1)
    ax.set_yticks(place, [" ".join(tops[k][:3]) for k in shown], fontsize="small")
    ax.set_xlabel("coefficient of the share, 90 % interval")
    ax.set_title("Fewest and most parameters")

    ax = axes["predictions"]
    rank = np.argsort(median)
    out = ~inside[rank]
    x = np.arange(len(test))
    ax.fill_between(x, low[rank], high[rank], color=blue, alpha=0.2, lw=0, label="90 %")
    ax.plot(x, median[rank], color=blue, label="median")
    ax.plot(
        x[~out], y[test][rank][~out], ".", color="0.25", label="true number, inside"
    )
    ax.plot(
        x[out],
        y[test][rank][out],
        "X",
        color=orange,
        mec="white",
        ms=8,
        label="outside",
    )
    ax.set_yscale("log")
    ax.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    ax.minorticks_off()
    ax.set_xlabel("function not trained on, by prediction")
    ax.set_title("Number of parameters")
    ax.legend(fontsize="small", loc="upper left")

    if "sphinx_gallery" not in sys.modules:
        args.output.mkdir(parents=True, exist_ok=True)
        fig.savefig(args.output / "topics_in_a_pipeline.png", dpi=120)
        print(f"\npicture: {args.output / 'topics_in_a_pipeline.png'}")
