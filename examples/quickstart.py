"""
Quickstart: a regression that knows how sure it is
==================================================

Ten measurements of 442 diabetes patients, and the progression of their disease a year
later. This page fits a Bayesian linear regression to them and asks what one would ask
of any such fit: which effects are there, how far to trust a prediction, which model to
use, and whether the model describes the data at all.

It takes a few seconds. pandas is not needed; matplotlib, if installed, draws the
picture.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.stats import skew
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

from skvi import VariationalBayesianRegression

try:
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

parser = argparse.ArgumentParser(description="A first look at skvi.")
parser.add_argument("--quick", action="store_true", help="fewer posterior draws")
parser.add_argument(
    "--output", type=Path, default=Path(), help="folder for the picture"
)
args, _ = parser.parse_known_args()  # a notebook passes arguments of its own
n_draws = 1000 if args.quick else 4000

# %%
# Fit
# ---
# The columns are in their natural units (years, mmHg, mg/dl ...): there is no need to
# scale them, the fit is the same in any units.

data = load_diabetes(scaled=False)
names = data.feature_names
X_train, X_test, y_train, y_test = train_test_split(
    data.data, data.target, random_state=0
)

model = VariationalBayesianRegression().fit(X_train, y_train)

# %%
# Which effects are there?
# ------------------------
# ``summary()`` tabulates the posterior of every weight. Given ``contrasts``, it does so
# for any linear combination of them; here each weight times the standard deviation of
# its column, so that effects compare: the change in y for a typical change in x.

per_sd = dict(zip(names, np.diag(X_train.std(axis=0))))
effects = model.summary(confidence_level=0.9, contrasts=per_sd)
print("EFFECTS: change in y for one standard deviation of each column\n")
print(effects)

# %%
# Body mass index, blood pressure, sex and s5 (the log of triglycerides) matter. The
# other blood lipids, s1 to s4, have wide intervals around zero; we come back to them.
#
# How far to trust a prediction?
# ------------------------------
# A prediction is a distribution. Its 90 % interval should hold 90 % of the new
# patients, and the log of its density at what happened, averaged over patients, says
# how good the whole distribution was, width included.

interval = model.predict_interval(X_test, confidence_level=0.9)
inside = (interval[:, 0] <= y_test) & (y_test <= interval[:, 1])
width = np.mean(interval[:, 1] - interval[:, 0])
error = np.sqrt(0.9 * 0.1 / len(y_test))
density = model.log_predictive_density(X_test, y_test).mean()
print("\nPREDICTIONS\n")
print(
    f"{inside.sum()} of {len(y_test)} new patients ({inside.mean():.1%}, expected "
    f"90 % +- {error:.1%}) are inside their 90 % interval"
)
print(f"mean width of the intervals: {width:.0f} (y itself: sd {y_train.std():.0f})")
print(f"log predictive density: {density:.3f} nats a patient")

# %%
# Which model?
# ------------
# ``elbo_`` is a lower bound of the log evidence, the log probability that the model
# gave to the training data before seeing them. It needs no held-out rows. For the
# ridge prior with the structured posterior it *is* the log evidence; where the
# posterior is approximate it falls short, so that part of a difference between models
# is the approximation's. The difference of two log evidences is a log Bayes factor: 3
# nats are 20 to 1. The baseline has an intercept alone, which is what a column of zeros
# makes of the regression.

candidates = {"intercept only": (VariationalBayesianRegression(), 0.0)}
for prior in ("ridge", "ard"):
    for posterior in ("structured", "mean_field"):
        candidate = VariationalBayesianRegression(prior=prior, posterior=posterior)
        candidates[f"{prior}, {posterior}"] = (candidate, 1.0)

print("\nMODELS\n")
print(f"{'':<20}{'elbo':>9}{'test log density':>18}{'90 % coverage':>15}")
fits = {}
for label, (candidate, keep) in candidates.items():
    fits[label] = candidate.fit(keep * X_train, y_train)
    ends = candidate.predict_interval(keep * X_test, confidence_level=0.9)
    coverage = np.mean((ends[:, 0] <= y_test) & (y_test <= ends[:, 1]))
    held_out = candidate.log_predictive_density(keep * X_test, y_test).mean()
    print(f"{label:<20}{candidate.elbo_:9.2f}{held_out:18.3f}{coverage:15.1%}")

# %%
# The measurements tell a great deal. A prior precision for each column (ARD) buys
# nothing over one for all, and the mean-field fits fall three nats short. That gap is
# the Kullback-Leibler divergence of their posterior from the exact one. The predictions
# hardly feel it; the next section shows where it lies.
#
# Structured beside mean-field
# ----------------------------
# Total cholesterol (s1) and LDL cholesterol (s2) are nearly the same measurement. The
# data tell what they do together and cannot tell which of them does it: under the
# structured posterior each weight, and their difference, is uncertain, and their sum
# much less so. Mean-field takes all weights to be independent. It gets the sd of the
# sum about right and makes the weights, and their difference, appear three to five
# times as certain as they are. ``posterior_covariance="linear_response"`` repairs most
# of that after the fit.

s1, s2 = names.index("s1"), names.index("s2")
print("\nA COLLINEAR PAIR: s1 and s2\n")
print(
    "correlation of the two columns: "
    f"{np.corrcoef(X_train[:, s1], X_train[:, s2])[0, 1]:.2f}\n"
)
pair = {
    "s1": {"x4": 1},
    "s2": {"x5": 1},
    "s1 + s2": {"x4": 1, "x5": 1},
    "s1 - s2": {"x4": 1, "x5": -1},
}
corrected = VariationalBayesianRegression(
    posterior="mean_field", posterior_covariance="linear_response"
).fit(X_train, y_train)
rows = {
    "structured": fits["ridge, structured"],
    "mean_field": fits["ridge, mean_field"],
    "  + linear response": corrected,
}
print(f"{'posterior sd of':<22}" + "".join(f"{name:>10}" for name in pair))
for label, fit in rows.items():
    sds = fit.summary(contrasts=pair).sd
    print(f"{label:<22}" + "".join(f"{sd:10.3f}" for sd in sds))

print("\ncorrelation of the two weights over posterior draws")
draws = {}
for label in ("structured", "mean_field"):
    coef = rows[label].sample_posterior(n_draws, random_state=0)["coef"]
    draws[label] = coef[:, [s1, s2]]
    print(f"{label:<22}{np.corrcoef(draws[label].T)[0, 1]:10.3f}")

# %%
# Does the model describe the data?
# ---------------------------------
# A posterior predictive check: draw whole new data sets from the fitted model and see
# where the observed one stands among them. A statistic in the tail is something that
# the model does not reproduce.

replicated = model.sample_y(X_train, n_samples=n_draws, random_state=0)
statistics = {"sd": np.std, "skewness": skew, "minimum": np.min, "maximum": np.max}
print("\nPOSTERIOR PREDICTIVE CHECK\n")
head = f"{'':<10}{'observed':>10}{'replicated':>12}{'5 % to 95 %':>20}"
print(f"{head}{'P(>= obs)':>11}")
checks = {}
for label, statistic in statistics.items():
    observed, values = statistic(y_train), statistic(replicated, axis=0)
    checks[label] = observed, values
    low, high = np.quantile(values, [0.05, 0.95])
    span = f"{low:.2f} to {high:.2f}"
    print(
        f"{label:<10}{observed:10.2f}{values.mean():12.2f}{span:>20}"
        f"{np.mean(values >= observed):11.3f}"
    )

# %%
# The spread is right, but the model has symmetric noise and does not know that
# progression is a positive number: it predicts negative ones, which never occur, and
# misses the skew. :ref:`sphx_glr_auto_examples_pipeline_uncertainty.py` finds that a
# regression of the square root of y describes these data better by 14 nats.
#
# The picture
# -----------

if plt is not None:
    blue, orange, grey = "#0072B2", "#D55E00", "0.45"
    fig, axes = plt.subplots(2, 2, figsize=(10, 7.5), layout="constrained")

    ax = axes[0, 0]
    place = np.arange(len(names))
    ends = [effects.mean - effects.lower, effects.upper - effects.mean]
    ax.errorbar(effects.mean, place, xerr=ends, fmt="o", color=blue, capsize=3)
    ax.axvline(0.0, color=grey, lw=1)
    ax.set_yticks(place, names)
    ax.invert_yaxis()
    ax.set_xlabel("change in y for one sd of the column")
    ax.set_title("Effects with 90 % intervals")

    ax = axes[0, 1]
    mean = model.predict(X_test)
    order = np.argsort(mean)
    rank = np.arange(len(order))
    ax.fill_between(
        rank, *interval[order].T, color=blue, alpha=0.2, lw=0, label="90 % interval"
    )
    ax.plot(rank, mean[order], color=blue, label="prediction")
    hit = inside[order]
    ax.plot(rank[hit], y_test[order][hit], ".", color="0.25", label="observed, inside")
    ax.plot(
        rank[~hit],
        y_test[order][~hit],
        "X",
        color=orange,
        mec="white",
        ms=8,
        label="observed, outside",
    )
    ax.set_xlabel("test patient, by predicted progression")
    ax.set_ylabel("progression")
    ax.set_title(f"Predictions: {inside.mean():.0%} inside")
    ax.legend(fontsize="small")

    ax = axes[1, 0]
    for label, color, marker in (
        ("structured", blue, "o"),
        ("mean_field", orange, "x"),
    ):
        points = draws[label][:500].T
        ax.plot(*points, marker, color=color, ms=3.5, alpha=0.5, label=label)
    ax.set_xlabel("weight of s1 (total cholesterol)")
    ax.set_ylabel("weight of s2 (LDL)")
    ax.set_title("Posterior draws for a collinear pair")
    ax.legend(fontsize="small")

    ax = axes[1, 1]
    observed, values = checks["skewness"]
    ax.hist(values, bins=40, color=blue, alpha=0.6, label="replicated")
    ax.axvline(observed, color=orange, lw=2, label="observed")
    ax.set_xlabel("skewness of y")
    ax.set_ylabel("data sets")
    ax.set_title("Posterior predictive check")
    ax.legend(fontsize="small")

    if "sphinx_gallery" not in sys.modules:
        args.output.mkdir(parents=True, exist_ok=True)
        fig.savefig(args.output / "quickstart.png", dpi=120)
        print(f"picture: {args.output / 'quickstart.png'}")
