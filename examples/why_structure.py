"""
Why structure: a chain of states
================================

In a time series each state depends on the one before. The precision of the posterior is
tridiagonal, and a factorised q, one independent law for each step, throws the
off-diagonal away. This page shows what that costs, on the smallest chain there is: one
number that follows an AR(1) process and is seen with noise,

.. math::

    x_t = a\\, x_{t-1} + w_t, \\quad w_t \\sim N(0, q), \\qquad
    y_t = x_t + v_t, \\quad v_t \\sim N(0, r) .

The states have the variance one, so :math:`q = 1 - a^2`, and the noise has, too. With
the parameters known the posterior of the states is Gaussian and
``posterior="structured"`` of ``VariationalLinearDynamicalSystem`` is exact, so that
nothing has to be taken on trust. With the parameters learnt the price is a different
one, and higher.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.stats import norm

from skvi import VariationalLinearDynamicalSystem

try:
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

parser = argparse.ArgumentParser(
    description="What independent states cost in an AR(1) chain."
)
parser.add_argument("--quick", action="store_true", help="shorter series")
parser.add_argument(
    "--output", type=Path, default=Path(), help="folder for the picture"
)
args, _ = parser.parse_known_args()  # a notebook passes arguments of its own

# %%
# Theory
# ------
# Given the parameters, the precision matrix of the states of a long series has
# :math:`A = 1/r + (1 + a^2) / q` on its diagonal and :math:`-a / q` beside it. The
# factorised q that maximises the ELBO has the exact means and the variances
# :math:`1 / A`, those of each state *given* its neighbours. With :math:`B = 2 a / q`
# the true variance is :math:`1 / \sqrt{A^2 - B^2}`, and a step of the series costs
#
# .. math::
#
#     \text{gap} = \tfrac12 \log \frac{2 A}{A + \sqrt{A^2 - B^2}} \ \text{nats.}


def theory(a, r=1.0):
    """Ratio of the sds, coverage of 90 % intervals, and gap a step, of long series."""
    q = 1.0 - a**2
    diagonal, beside = 1.0 / r + (1.0 + a**2) / q, 2.0 * a / q
    root = np.sqrt(diagonal**2 - beside**2)
    ratio = np.sqrt(root / diagonal)
    coverage = 2.0 * norm.cdf(norm.ppf(0.95) * ratio) - 1.0
    return ratio, coverage, 0.5 * np.log(2.0 * diagonal / (diagonal + root))


# %%
# Parameters known
# ----------------
# Both families get the true parameters. "sd ratio" is the factorised sd over the exact
# one; "inside" is the part of the true states that 90 % intervals hold.

rhos = (0.5, 0.8, 0.9, 0.95, 0.99)
n_steps = 4000 if args.quick else 20000
posteriors = ("structured", "mean_field")


def make_chain(rho, n_steps, seed):
    """Observations and states of a chain whose states have the variance one."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n_steps, 2))
    states = np.empty(n_steps)
    state = noise[0, 0]
    for t in range(n_steps):
        if t:
            state = rho * state + np.sqrt(1.0 - rho**2) * noise[t, 0]
        states[t] = state
    return (states + noise[:, 1])[:, None], states


def fit_known(rho, posterior, y):
    """A fit with every parameter given, which leaves the states."""
    return VariationalLinearDynamicalSystem(
        posterior=posterior,
        transition_matrix=[[rho]],
        transition_covariance=[[1.0 - rho**2]],
        observation_matrix=[[1.0]],
        noise_variance=1.0,
        initial_mean=[0.0],
        initial_covariance=[[1.0]],
    ).fit(y)


known = {}
print(f"PARAMETERS KNOWN, {n_steps} steps\n")
print(
    f"{'':<6}{'sd ratio':>20}{'inside, 90 % interval':>32}{'elbo gap a step':>24}\n"
    f"{'rho':<6}{'fit':>10}{'theory':>10}"
    f"{'exact':>12}{'mean_field':>12}{'theory':>8}{'fit':>14}{'theory':>10}"
)
for rho in rhos:
    y, states = make_chain(rho, n_steps, seed=1)
    means, sds, inside, elbos = {}, {}, {}, {}
    for posterior in posteriors:
        fit = fit_known(rho, posterior, y)
        mean, sd = fit.smooth(y, return_std=True)
        means[posterior], sds[posterior] = mean[:, 0], sd[:, 0]
        inside[posterior] = np.mean(
            np.abs(states - mean[:, 0]) < norm.ppf(0.95) * sd[:, 0]
        )
        elbos[posterior] = fit.elbo_
    # The means are the exact ones whatever the family.
    np.testing.assert_allclose(means["mean_field"], means["structured"], atol=1e-6)
    middle = slice(200, -200)  # away from the ends, where theory begins
    ratio = np.mean(sds["mean_field"][middle] / sds["structured"][middle])
    gap = (elbos["structured"] - elbos["mean_field"]) / n_steps
    known[rho] = {"ratio": ratio, "inside": inside, "gap": gap}
    expected = theory(rho)
    print(
        f"{rho:<6}{ratio:10.3f}{expected[0]:10.3f}"
        f"{inside['structured']:12.1%}{inside['mean_field']:12.1%}{expected[1]:8.1%}"
        f"{gap:14.4f}{expected[2]:10.4f}"
    )
    assert abs(ratio - expected[0]) < 1e-4
    assert abs(gap - expected[2]) < 3.0 / n_steps, "ends cost less than that"

# %%
# The means are the same, to the last digit that matters. The longer the memory of the
# chain, the more of what is known of a state comes from far along the chain, and the
# more sure a q that sees only the nearest neighbours, as if they were known, takes
# itself to be.
#
# Parameters learnt
# -----------------
# Learning needs the second moments of the states: a from
# :math:`E[x_t x_{t-1}]`, q and r from variances. Independent states have no covariance
# with their neighbours, and too small a variance, so they bend the model towards one
# where independence costs less: less memory, more innovation, less noise.
#
# ``structure="free"`` has :math:`Q = I` by convention, and a loading c instead of the
# one here; :math:`q = c^2` brings it back. The last column is the log density of a new
# series, each step given those before, under the learnt parameters: it is the *model*
# that is worse, not only its intervals.

learnt = {posterior: {} for posterior in posteriors}
print(f"\nPARAMETERS LEARNT, {n_steps} steps\n")
print(
    f"{'rho':<6}{'':<12}{'a':>9}{'q':>9}{'r':>9}{'memory':>10}{'elbo a step':>14}"
    f"{'new series':>13}"
)
for rho in rhos:
    y, states = make_chain(rho, n_steps, seed=1)
    fresh, _ = make_chain(rho, n_steps, seed=2)
    print(
        f"{rho:<6}{'truth':<12}{rho:9.3f}{1.0 - rho**2:9.3f}{1.0:9.3f}"
        f"{-1.0 / np.log(rho):10.1f}{'':>14}"
        f"{fit_known(rho, 'structured', fresh).score(fresh):13.4f}"
    )
    for posterior in posteriors:
        fit = VariationalLinearDynamicalSystem(
            posterior=posterior, max_iter=5000, random_state=0
        ).fit(y)
        a = fit.transition_matrix_[0, 0]
        q = fit.observation_matrix_[0, 0] ** 2
        r = fit.noise_variance_[0]
        learnt[posterior][rho] = (a, q, r)
        print(
            f"{'':<6}{posterior:<12}{a:9.3f}{q:9.3f}{r:9.3f}{-1.0 / np.log(a):10.1f}"
            f"{fit.elbo_ / n_steps:14.4f}{fit.score(fresh):13.4f}"
        )

# %%
# "memory" is the number of steps after which a state is forgotten but for 1 / e of it.
# At 0.99 the truth is a hundred steps, and mean field finds a few.
#
# The picture
# -----------
# At the top a stretch of the chain at 0.99 with the parameters known: the lines in the
# middle of both bands are the same. Below, what theory says (lines) and the fits
# (points).

if plt is not None:
    blue, orange, grey = "#0072B2", "#D55E00", "0.45"
    fig, axes = plt.subplot_mosaic(
        [["states"] * 3, ["inside", "gap", "learnt"]],
        figsize=(11.0, 7.2),
        height_ratios=[1.15, 1.0],
        layout="constrained",
    )

    ax = axes["states"]
    y, states = make_chain(0.99, n_steps, seed=1)
    window = slice(1000, 1250)
    time = np.arange(n_steps)[window]
    ax.plot(time, y[window, 0], ".", color="0.75", ms=4, label="observations")
    for posterior, color, alpha in zip(posteriors, (blue, orange), (0.3, 0.55)):
        fit = fit_known(0.99, posterior, y)
        mean, sd = (part[window, 0] for part in fit.smooth(y, return_std=True))
        reach = norm.ppf(0.95) * sd
        label = f"90 % intervals, {posterior}"
        ax.fill_between(
            time,
            mean - reach,
            mean + reach,
            color=color,
            alpha=alpha,
            lw=0,
            label=label,
        )
    ax.plot(time, states[window], color="k", lw=1.2, label="true states")
    ax.set_xlim(time[0], time[-1])
    ax.set_xlabel("step")
    ax.set_title("States of an AR(1) chain, rho = 0.99, parameters known", loc="left")
    ax.legend(fontsize="small", ncols=4, loc="upper center")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.15 * (high - low))  # room for the legend

    curve = 1.0 - np.geomspace(0.6, 0.008, 200)
    ratio, coverage, gap = theory(curve)
    x = 1.0 / (1.0 - curve)  # spreads out the rhos close to one
    at = 1.0 / (1.0 - np.array(rhos))

    ax = axes["inside"]
    ax.plot(x, coverage, color=orange)
    ax.plot(x, ratio, "--", color=grey)
    ax.plot(
        at,
        [known[rho]["inside"]["structured"] for rho in rhos],
        "o",
        color=blue,
        label="inside, structured",
    )
    ax.plot(
        at,
        [known[rho]["inside"]["mean_field"] for rho in rhos],
        "o",
        color=orange,
        label="inside, mean_field",
    )
    ax.plot(
        at, [known[rho]["ratio"] for rho in rhos], "s", color=grey, label="ratio of sds"
    )
    ax.axhline(0.9, color="k", lw=1, zorder=0)
    ax.set_ylim(0.0, 1.0)
    ax.set_title("Inside 90 % intervals", loc="left")
    ax.legend(fontsize="small", loc="lower left")

    ax = axes["gap"]
    ax.plot(x, gap, color=orange)
    ax.plot(at, [known[rho]["gap"] for rho in rhos], "o", color=orange)
    ax.set_ylim(0.0, None)
    ax.set_title("ELBO gap, nats a step", loc="left")

    ax = axes["learnt"]
    for (posterior, found), color in zip(learnt.items(), (blue, orange)):
        values = [found[rho][0] for rho in rhos]
        ax.plot(at, values, "o-", color=color, label=f"a, {posterior}")
    ax.plot(x, curve, ":k", lw=1.2, label="a, truth")
    ax.set_title("a, learnt", loc="left")
    ax.legend(fontsize="small", loc="lower right")

    for name in ("inside", "gap", "learnt"):
        axes[name].set_xscale("log")
        axes[name].set_xticks(at, [str(rho) for rho in rhos])
        axes[name].minorticks_off()
        axes[name].set_xlabel("rho")

    if "sphinx_gallery" not in sys.modules:
        args.output.mkdir(parents=True, exist_ok=True)
        fig.savefig(args.output / "why_structure.png", dpi=120)
        print(f"picture: {args.output / 'why_structure.png'}")
