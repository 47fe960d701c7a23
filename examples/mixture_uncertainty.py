"""
How sure is a mixture of its components?
========================================

Forty measurements of three kinds of things, and nobody wrote down which is which. A
Gaussian mixture finds the kinds. With so few rows the next question is how far to trust
what it found: where each component is, how wide, and how much of the population it
stands for. ``VariationalGaussianMixture`` keeps a posterior of all three, and its
predictions integrate over it.

The page also puts the two posterior families side by side, shows what the density of a
mixture is good for (filling in what is missing, one column given another), and ends
with a count of how often the intervals are right.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import chi2

from skvi import VariationalGaussianMixture

try:
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

parser = argparse.ArgumentParser(description="The posterior of a Gaussian mixture.")
parser.add_argument("--quick", action="store_true", help="fewer repetitions")
parser.add_argument(
    "--output", type=Path, default=Path(), help="folder for the picture"
)
args, _ = parser.parse_known_args()  # a notebook passes arguments of its own

# %%
# The data
# --------
# Three Gaussians of different shape. The smallest has a share of 15 %, about six rows.

true_weights = np.array([0.5, 0.35, 0.15])
true_means = np.array([[0.0, 0.0], [5.0, 1.0], [1.5, 6.0]])
true_covariances = np.array(
    [[[1.0, 0.8], [0.8, 1.0]], [[1.5, -1.0], [-1.0, 1.2]], [[0.6, 0.0], [0.0, 0.6]]]
)


def make_data(n_rows, rng):
    """Rows and their true components."""
    labels = rng.choice(3, size=n_rows, p=true_weights)
    noise = rng.standard_normal((n_rows, 2))
    roots = np.linalg.cholesky(true_covariances)
    return true_means[labels] + np.einsum("nij,nj->ni", roots[labels], noise), labels


def in_true_order(model):
    """The fit's components in the order of the true ones: labels mean nothing."""
    distance = np.linalg.norm(true_means[:, None] - model.means_, axis=2)
    return linear_sum_assignment(distance)[1]


X, _ = make_data(40, np.random.default_rng(2))

# %%
# Two posteriors
# --------------
# ``posterior="structured"``, the default, keeps the mean and the precision of a
# component together, as a Normal-Wishart: where the component may be wider, its mean is
# less certain. ``"mean_field"`` takes the two to be independent. The means are the same
# to a few hundredths; their standard deviations are not, and the bound says which
# posterior is closer to the exact one.

fits = {
    posterior: VariationalGaussianMixture(
        n_components=3, posterior=posterior, random_state=0
    ).fit(X)
    for posterior in ("structured", "mean_field")
}

print("POSTERIOR OF THE MEANS\n")
print(f"{'':<12}{'elbo':>9}   mean +- sd of the first column, by component")
for posterior, model in fits.items():
    order = in_true_order(model)
    cells = "".join(
        f"{mean:8.2f} +- {sd:.2f}"
        for mean, sd in zip(model.means_[order, 0], model.means_std_[order, 0])
    )
    print(f"{posterior:<12}{model.elbo_:9.2f}{cells}")

structured, mean_field = fits["structured"], fits["mean_field"]
gap = structured.elbo_ - mean_field.elbo_
assert gap > 0.0, "independent factors cannot be closer"

# %%
# Why the two differ
# ------------------
# ``sample_posterior`` draws everything jointly. Under the structured posterior the
# distance of a mean from its centre grows with the component's own width, so draws that
# are far out belong to wide components. Under mean-field they do not know of each
# other.

smallest = in_true_order(structured)[2]
print("\nWIDTH AND DISPLACEMENT of the smallest component, correlation of draws\n")
for posterior, model in fits.items():
    draws = model.sample_posterior(n_samples=20_000, random_state=0)
    k = in_true_order(model)[2]
    width = np.log(np.linalg.inv(draws["precisions"][:, k])[:, 0, 0])
    away = np.log(np.abs(draws["means"][:, k, 0] - model.means_[k, 0]))
    print(f"{posterior:<12}{np.corrcoef(width, away)[0, 1]:6.2f}")

# %%
# How large are the components?
# -----------------------------
# ``weights_interval`` gives central intervals of the shares. These rows alone leave a
# factor of two or more for the smallest.

order = in_true_order(structured)
weights = structured.weights_[order]
weight_ends = structured.weights_interval(confidence_level=0.9)[order]
print("\nWEIGHTS with 90 % intervals\n")
for truth, weight, (low, high) in zip(true_weights, weights, weight_ends):
    print(f"true {truth:.2f}   fitted {weight:.2f}   {low:.2f} to {high:.2f}")

# %%
# A density answers other questions
# ---------------------------------
# The predictive law of a row is a mixture of Student-t distributions, with everything
# that is uncertain integrated out. So is that of its second entry given the first:
# ``conditional`` returns it, and ``impute`` puts its mean where an entry is missing.
# Midway between two components that law has two humps. The mean then says little, and
# the sd says so.

incomplete = np.array([[-1.0, np.nan], [1.3, np.nan], [5.0, np.nan], [np.nan, 6.0]])
filled, std = structured.impute(incomplete, return_std=True)
print("\nIMPUTED\n")
for row, full, sd in zip(incomplete, filled, std):
    where = int(np.flatnonzero(np.isnan(row))[0])
    print(f"{row!s:<12} -> x{where + 1} = {full[where]:5.2f} +- {sd[where]:.2f}")

law = structured.conditional([[1.3, np.nan]], features=1)
print("\nx2 given x1 = 1.3:", end=" ")
print("probabilities of the components", law.weights[0, order].round(2), end=", ")
print("quantiles 5, 50, 95 %:", law.quantile([0.05, 0.5, 0.95])[0, 0].round(1))

# %%
# Are the intervals right?
# ------------------------
# Many data sets from the same truth; how often is a coordinate of a true mean in its
# 90 % posterior interval? With 40 rows some fits put the border between two components
# in the wrong place. A posterior that describes one labelling cannot know that, so the
# data sets where nearly all rows got their true label are counted apart.

n_sets = 20 if args.quick else 100
rng = np.random.default_rng(1)
inside = {posterior: [] for posterior in fits}
labelled = []
for _ in range(n_sets):
    rows, labels = make_data(40, rng)
    for posterior, found in inside.items():
        model = VariationalGaussianMixture(
            n_components=3, posterior=posterior, random_state=0
        ).fit(rows)
        order = in_true_order(model)
        draws = model.sample_posterior(n_samples=2000, random_state=0)["means"]
        low, high = np.quantile(draws[:, order], [0.05, 0.95], axis=0)
        found.append((low <= true_means) & (true_means <= high))
        if posterior == "structured":
            labelled.append(np.mean(order[labels] == model.predict(rows)))

print(f"\nCOVERAGE of 90 % intervals of the means, {n_sets} data sets of 40 rows\n")
print(f"{'':<30}" + "".join(f"share {w:.2f}".rjust(12) for w in true_weights), "   all")
clear = np.array(labelled) > 0.94
for posterior, found in inside.items():
    for text, which in (("", slice(None)), (", labels right", clear)):
        each = np.mean(np.array(found)[which], axis=(0, 2))
        cells = "".join(f"{share:12.0%}" for share in each)
        print(f"{posterior + text:<30}{cells}{each.mean():7.0%}")
print(f"at least 95 % of labels right in {clear.sum()} of {n_sets}")

# %%
# Under mean-field the intervals hold a little less, as they are a little shorter.
#
# The picture
# -----------
# Thin lines hold 90 % of a component's rows, filled ellipses 90 % of the posterior of
# its mean. The dashed ellipses beside mean-field's are the structured ones.


def ellipse(mean, covariance, mass=0.9):
    """Points on the contour of a Gaussian that holds ``mass``."""
    angle = np.linspace(0.0, 2.0 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    radius = np.sqrt(chi2.ppf(mass, df=2))
    return mean[:, None] + radius * np.linalg.cholesky(covariance) @ circle


if plt is not None:
    colors = ["#0072B2", "#D55E00", "#009E73"]
    fig, axes = plt.subplots(2, 2, figsize=(10, 8.6), layout="constrained")
    order = in_true_order(structured)

    for ax, (posterior, model) in zip(axes[0], fits.items()):
        ax.plot(*X.T, ".", color="0.35", ms=5, label="rows")
        for k, outer, color in zip(in_true_order(model), order, colors):
            rows_hold = ellipse(model.means_[k], model.covariances_[k])
            mean_holds = ellipse(model.means_[k], model.means_covariance_[k])
            ax.plot(*rows_hold, color=color, lw=1)
            ax.fill(*mean_holds, color=color, alpha=0.45, lw=0)
            if model is mean_field:
                wider = structured.means_covariance_[outer]
                wider = ellipse(structured.means_[outer], wider)
                label = "structured" if color == colors[0] else None
                ax.plot(*wider, "--", color="0.2", lw=1, label=label)
        ax.plot(*true_means.T, "k+", ms=9, mew=1.5, label="true means")
        ax.set_title(f'posterior="{posterior}", elbo {model.elbo_:.2f}')

    ax = axes[1, 0]
    for k, color in enumerate(colors):
        low, high = weight_ends[k]
        ax.plot([low, high], [2 - k] * 2, color=color, lw=5, alpha=0.45)
        ax.plot(weights[k], 2 - k, "o", color=color, ms=8)
        ax.plot(true_weights[k], 2 - k, "k+", ms=11, mew=1.5)
        text = f"{np.sum(structured.predict(X) == order[k])} rows"
        ax.text(high + 0.02, 2 - k, text, va="center")
    ax.plot([], [], "o-", color="0.5", ms=8, label="posterior mean, 90 % interval")
    ax.plot([], [], "k+", ms=11, mew=1.5, label="true share")
    ax.set_yticks([])
    ax.set_ylim(-0.6, 2.9)
    ax.set_xlim(0.0, 0.8)
    ax.set_xlabel("weight of the component")
    ax.set_title("Shares of the population")
    ax.legend(fontsize="small", loc="upper right")

    # The density of x2 given x1, each column of the picture relative to its highest.
    ax = axes[1, 1]
    first, second = np.linspace(-3.0, 9.0, 241), np.linspace(-3.5, 9.5, 261)
    at = np.stack(np.meshgrid(first, second), axis=-1)
    density = structured.score_samples(at.reshape(-1, 2)).reshape(261, 241)
    density = np.exp(density - density.max(axis=0))
    ax.pcolormesh(first, second, density, cmap="Greys", vmax=1.6, rasterized=True)
    ax.plot(*X.T, ".", color="0.2", ms=5)
    law = structured.conditional(np.column_stack([first, first]), features=1)
    low, high = law.interval(0.9)[:, 0].T
    ax.plot(first, law.mean[:, 0], color=colors[0], lw=2, label="mean (as imputed)")
    ax.plot(first, low, "--", color=colors[1], lw=1.2, label="90 % interval")
    ax.plot(first, high, "--", color=colors[1], lw=1.2)
    ax.set_title("Predictive law of $x_2$ given $x_1$")

    for ax in (*axes[0], axes[1, 1]):
        ax.set_xlabel("$x_1$")
        ax.set_ylabel("$x_2$")
        ax.set_aspect("equal")
        ax.set_xlim(-3.0, 9.0)
        ax.set_ylim(-3.5, 9.5)
        ax.legend(fontsize="small", loc="upper right")

    if "sphinx_gallery" not in sys.modules:
        args.output.mkdir(parents=True, exist_ok=True)
        fig.savefig(args.output / "mixture_uncertainty.png", dpi=120)
        print(f"\npicture: {args.output / 'mixture_uncertainty.png'}")
