"""
Hidden states of neurons
========================

Neurons that are recorded together fire together, up to chance. A few hidden states that
move smoothly say how much each is about to fire, and the counts of spikes are Poisson
given the states,

.. math::

    x_t = A\\, x_{t-1} + w_t, \\qquad
    \\text{count}_{tn} \\sim \\mathrm{Poisson}\\big(\\exp(c_n \\cdot x_t + d_n)\\big) .

``VariationalLinearDynamicalSystem`` with ``observations="poisson"`` finds the states
and how sure they are, gives each neuron's rate with an interval, fills in neurons that
were not heard for a while, and chooses the number of states by ``elbo_``.

Two recordings. The first is of three neurons of a cockroach, in twenty trials with an
odour and in a minute without. The second is a single reach of a monkey, 182 neurons in
3.2 seconds: do the states know where the hand is going, and can they tell the count of
a neuron that has not been heard?

The data are read from the folder ``timeseries`` in the one that the environment
variable ``SKVI_DATA`` names (``spikes_e060817terpi.npz``, ``spikes_e060817spont.npz``
and ``mcmaze_trial748.npz``). Without it the page runs on simulated neurons, a reach
that is a movement of two rotating states among them, and remarks about numbers hold for
the recordings only.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import gammaln
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge

from skvi import VariationalLinearDynamicalSystem, sequence_ids

try:
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

parser = argparse.ArgumentParser(description="Hidden states of spiking neurons.")
parser.add_argument("--quick", action="store_true", help="fewer states and fits")
parser.add_argument(
    "--output", type=Path, default=Path(), help="folder for the picture"
)
args, _ = parser.parse_known_args()  # a notebook passes arguments of its own

DATA = os.environ.get("SKVI_DATA")
posteriors = ("structured", "mean_field")

# States of few spikes are found slowly. What is printed has long settled after this
# many iterations, though not all fits have converged to the last digit.
max_iter = 8 if args.quick else 200
warnings.simplefilter("ignore", ConvergenceWarning)


def recording(name):
    """Arrays of one file."""
    with np.load(Path(DATA) / "timeseries" / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def simulated_counts(rng, states, n_neurons, scale, mean_count):
    """Poisson counts of neurons with random loadings on the states."""
    loadings = scale * rng.standard_normal((states.shape[-1], n_neurons))
    base = np.log(mean_count) + 0.7 * rng.standard_normal(n_neurons)
    return rng.poisson(np.exp(states @ loadings + base))


print("recordings" if DATA is not None else "simulated (SKVI_DATA is not set)")

# %%
# Three neurons, twenty trials
# ----------------------------
# Each trial is a sequence: states do not run on from one into the next. A column with
# the number of the trial says where one ends. Bins of 0.1 s, 15 s a trial; the odour
# comes after six seconds. The last five trials are held out, and scored by the density
# of each bin given those before it.

if DATA is not None:
    trials = recording("spikes_e060817terpi")["counts"].astype(float)
    alone = recording("spikes_e060817spont")["counts"].astype(float)
    alone = alone.reshape(-1, 2, 3).sum(axis=1)  # bins of 0.05 s, made 0.1 s
else:
    rng = np.random.default_rng(0)

    def pulse(n_trials, n_bins, height):
        """One state for all neurons, that jumps when the odour comes."""
        state, out = np.zeros(n_trials), []
        for t in range(n_bins):
            odour = height * (60 <= t < 70)
            state = 0.85 * state + 0.4 * rng.standard_normal(n_trials) + odour
            out.append(state)
        return np.stack(out, axis=1)[..., None]

    both = np.concatenate(
        [pulse(20, 150, 0.3).reshape(-1, 1), pulse(1, 582, 0.0).reshape(-1, 1)]
    )
    counts = simulated_counts(rng, both, 3, 0.5, 1.5).astype(float)
    trials, alone = counts[:3000].reshape(20, 150, 3), counts[3000:]

n_trials, n_bins, n_neurons = trials.shape
X_trials = np.column_stack(
    [trials.reshape(-1, n_neurons), sequence_ids([n_bins] * n_trials)]
)
X_alone = np.column_stack([alone, np.zeros(len(alone))])
n_train = (3 if args.quick else 15) * n_bins
train, test = X_trials[:n_train], X_trials[15 * n_bins :]


def fit_states(k, posterior, X):
    """Poisson states; the column after the neurons says which sequence."""
    model = VariationalLinearDynamicalSystem(
        n_components=k,
        observations="poisson",
        posterior=posterior,
        sequence=X.shape[1] - 1,
        max_iter=max_iter,
        random_state=0,
    )
    return model.fit(X)


def constant_density(rows, fitted_on):
    """Log density a step of neurons that fire at constant rates."""
    rates = fitted_on.mean(axis=0)
    return np.mean(np.sum(rows * np.log(rates) - rates - gammaln(rows + 1.0), axis=1))


print(
    "\nTHREE NEURONS   nats; held out a bin; memory of the slowest state in seconds\n"
)
print(
    f"{'':<15}{'states':>8}{'posterior':>13}{'elbo':>11}{'held out':>11}{'memory':>9}"
)
few = {}
sets = {"odour": (train, test), "spontaneous": (X_alone[: n_train // 6], X_alone[400:])}
for name, (fitted_on, rows) in sets.items():
    flat = constant_density(rows[:, :n_neurons], fitted_on[:, :n_neurons])
    print(f"{name:<15}{0:>8}{'':>13}{'':>11}{flat:11.4f}")
    for k in (1, 2) if args.quick else (1, 2, 3):
        for posterior in posteriors:
            fit = fit_states(k, posterior, fitted_on)
            few[name, k, posterior] = fit
            slowest = np.abs(np.linalg.eigvals(fit.transition_matrix_)).max()
            memory = -0.1 / np.log(min(slowest, 1.0 - 1e-9))
            print(
                f"{'':<15}{k:>8}{posterior:>13}{fit.elbo_:11.1f}{fit.score(rows):11.4f}"
                f"{memory:9.2f}"
            )

# %%
# One state takes what the neurons have in common within a bin, and forgets it. With two
# the other one is slow, and the chain sees it where mean field does not: that makes the
# memory of its states short, as in :doc:`/auto_examples/why_structure`, and leaves most
# of what the second state is worth on the table.
#
# A reach
# -------
# One sequence of 161 bins of 20 ms. Neurons with fewer than five spikes tell next to
# nothing and are left out. With numbers of states from one to four; what each is good
# for is in the table further down.

if DATA is not None:
    reach = recording("mcmaze_trial748")
    counts = reach["counts"].astype(float)
    place, hand = reach["kinematics"][:, :2], reach["kinematics"][:, 2:4]
    bin_seconds = float(reach["bin_seconds"])
else:
    rng = np.random.default_rng(1)
    n, bin_seconds = 161, 0.02
    turn = 0.97 * np.array([[0.98, 0.2], [-0.2, 0.98]])
    state, states = np.zeros(2), []
    for t in range(n):
        push = 1.6 * np.array([1.0, 0.4]) * (75 <= t < 82)
        state = turn @ state + 0.1 * rng.standard_normal(2) + push
        states.append(state)
    states = np.array(states)
    counts = simulated_counts(rng, states, 120, 0.35, 0.08).astype(float)
    hand = 60.0 * states @ np.array([[1.0, -0.5], [0.2, 0.9]])
    hand += 3.0 * rng.standard_normal(hand.shape)
    place = bin_seconds * np.cumsum(hand, axis=0)
neurons = counts.sum(axis=0) >= (20 if args.quick else 5)
counts = counts[:, neurons]
n_bins, n_neurons = counts.shape
seconds = bin_seconds * np.arange(n_bins)
print(f"\nA REACH: {n_neurons} neurons, {n_bins} bins, {int(counts.sum())} spikes\n")


def fit_reach(k, posterior, X):
    """A fit to one sequence."""
    return VariationalLinearDynamicalSystem(
        n_components=k,
        observations="poisson",
        posterior=posterior,
        max_iter=max_iter,
        random_state=0,
    ).fit(X)


numbers = (1, 2) if args.quick else (1, 2, 3, 4)
reaches = {
    (k, posterior): fit_reach(k, posterior, counts)
    for k in numbers
    for posterior in posteriors
}
n_states = max(numbers, key=lambda k: reaches[k, "structured"].elbo_)
model = reaches[n_states, "structured"]

# %%
# The hand
# --------
# The model has seen spikes only. A ridge regression reads place and velocity of the
# hand off
# the states, or off the neurons' counts, each smoothed by a Gaussian kernel. The hand
# moves for a quarter of a second, so what can be asked of one reach is to fill in
# stretches: 80 ms are held out in turn, with 40 ms on both sides that nobody uses. The
# penalty, and the kernel of the counts, are the best in hindsight for all.


def decode(features, target):
    """R2 of a target in held-out stretches of the reach, and the guesses."""
    best = -np.inf, None
    for penalty in np.logspace(-1, 4, 6):
        guess = np.empty_like(target)
        for stretch in np.array_split(np.arange(n_bins), n_bins // 4):
            away = np.ones(n_bins, dtype=bool)
            away[max(stretch[0] - 2, 0) : stretch[-1] + 3] = False
            centre, scale = features[away].mean(axis=0), features[away].std(axis=0)
            scale = np.where(scale > 0.0, scale, 1.0)
            ridge = Ridge(penalty)
            ridge.fit((features[away] - centre) / scale, target[away])
            guess[stretch] = ridge.predict((features[stretch] - centre) / scale)
        error = np.sum((guess - target) ** 2)
        r2 = 1.0 - error / np.sum((target - target.mean(axis=0)) ** 2)
        best = max(best, (r2, guess), key=lambda found: found[0])
    return best


kernels = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)  # sds in bins
on_states = {key: decode(fit.states_, hand) for key, fit in reaches.items()}
where = {key: decode(fit.states_, place) for key, fit in reaches.items()}
smoothed = {sd: gaussian_filter1d(counts, sd, axis=0) for sd in kernels}
on_counts = {sd: decode(smoothed[sd], hand) for sd in kernels}
best_sd = max(kernels, key=lambda sd: on_counts[sd][0])

# %%
# Neurons that were not heard
# ---------------------------
# Of every neuron a stretch of 0.4 s is hidden, a different one for each, as NaN. The
# model gives the mean of what is missing by ``predict``: the other neurons tell the
# state, the rest of the neuron's own spikes its loadings. The rival smooths each neuron
# alone, over what was heard of it, with the kernel that does best in hindsight. Gains
# are over a constant rate for each neuron, in bits a spike; only counts that were
# hidden are scored, with the Poisson law of the predicted mean.

length = 20
n_splits = 1 if args.quick else 2


def log_poisson(rows, rates):
    """Log probabilities of counts."""
    return rows * np.log(rates) - rates - gammaln(rows + 1.0)


def smooth_alone(rows, sd):
    """Each neuron's rate from its own counts; a tenth of a spike at its mean rate."""
    heard = (~np.isnan(rows)).astype(float)
    mean_rate = np.nanmean(rows, axis=0)
    prior = 0.1 / np.maximum(mean_rate, 1e-3)  # in bins
    spikes = gaussian_filter1d(np.nan_to_num(rows), sd, axis=0, mode="constant")
    bins = gaussian_filter1d(heard, sd, axis=0, mode="constant")
    width = np.sqrt(4.0 * np.pi) * sd  # bins that the kernel is worth
    return (width * spikes + prior * mean_rate) / (width * bins + prior)


alone = (*kernels, 12.0, 20.0, 40.0)
gains = {}
for split in range(n_splits):
    rng = np.random.default_rng(split)
    hidden = np.zeros(counts.shape, dtype=bool)
    for j in range(n_neurons):
        start = rng.integers(n_bins - length)
        hidden[start : start + length, j] = True
    holes = np.where(hidden, np.nan, counts)
    base = np.broadcast_to(np.nanmean(holes, axis=0) + 1e-3, counts.shape)
    found = {sd: smooth_alone(holes, sd) for sd in alone}
    found |= {key: fit_reach(*key, holes).predict(holes) for key in reaches}
    for key, rates in found.items():
        gain = (log_poisson(counts, rates) - log_poisson(counts, base))[hidden].sum()
        gains.setdefault(key, []).append(gain / np.log(2.0) / counts[hidden].sum())
gains = {key: np.mean(values) for key, values in gains.items()}
best_alone = max(alone, key=lambda sd: gains[sd])

print("elbo in nats; R2 of place and velocity; bits a spike in hidden stretches\n")
print(f"{'':<8}{'structured':^36}{'mean_field':^36}")
heads = f"{'elbo':>10}{'place':>8}{'velocity':>10}{'bits':>8}"
print(f"{'states':<8}{heads}{heads}")
for k in numbers:
    cells = "".join(
        f"{reaches[k, posterior].elbo_:10.1f}{where[k, posterior][0]:8.2f}"
        f"{on_states[k, posterior][0]:10.2f}{gains[k, posterior]:8.3f}"
        for posterior in posteriors
    )
    print(f"{k:<8}{cells}")
ms = 1000.0 * bin_seconds
print(
    f"each neuron alone: place {decode(smoothed[best_sd], place)[0]:.2f}, velocity "
    f"{on_counts[best_sd][0]:.2f} (kernel of {best_sd * ms:.0f} ms), bits "
    f"{gains[best_alone]:.3f} (kernel of {best_alone * ms:.0f} ms)"
)

# %%
# The states fill in what was hidden better than smoothing each neuron alone does, if
# there are enough of them; the bound is content with fewer. In the recording they know
# where the hand is, and not how fast: what 1500 spikes bear out are states that change
# slowly, and the movement is over in a quarter of a second. Read off all neurons at
# once, each with a weight of its own, it is there.
#
# The picture
# -----------
# Bands are 90 % intervals.

if plt is not None:
    states, states_std = model.smooth(counts, return_std=True)
    blue, orange, grey = "#0072B2", "#D55E00", "0.45"
    z = 1.645
    fig, axes = plt.subplot_mosaic(
        [["odour", "states"], ["hand", "rates"]],
        figsize=(11.0, 7.6),
        layout="constrained",
    )

    ax = axes["odour"]
    time = 0.1 * np.arange(150)
    for posterior, color in zip(posteriors, (blue, orange)):
        fit = few["odour", 2, posterior]
        slow = int(np.argmax(np.diag(fit.transition_matrix_)))
        mean, std = fit.smooth(X_trials, return_std=True)
        mean, std = (part[:, slow].reshape(n_trials, 150) for part in (mean, std))
        low, high = mean[0] - z * std[0], mean[0] + z * std[0]
        ax.fill_between(time, low, high, color=color, alpha=0.3, lw=0)
        ax.plot(time, mean[0], color=color, lw=1, label=f"first trial, {posterior}")
        if posterior == "structured":
            ax.plot(time, mean.mean(axis=0), color="k", lw=1.6, label="mean of trials")
    ax.axvspan(6.0, 6.5, color="0.9", zorder=0)
    ax.set_xlabel("seconds")
    ax.set_title("Three neurons, two states: the slow one", loc="left")
    ax.legend(fontsize="small", loc="upper right")

    ax = axes["states"]
    for k, color in zip(range(min(n_states, 3)), (blue, orange, grey)):
        low, high = (
            states[:, k] - z * states_std[:, k],
            states[:, k] + z * states_std[:, k],
        )
        ax.fill_between(seconds, low, high, color=color, alpha=0.3, lw=0)
        ax.plot(seconds, states[:, k], color=color, lw=1.4, label=f"state {k + 1}")
    ax.set_xlabel("seconds")
    ax.set_title(f"A reach: states, {n_states} in all", loc="left")
    ax.legend(fontsize="small", loc="upper left")

    ax = axes["hand"]
    ax.plot(seconds, hand[:, 0], color="k", lw=1.6, label="hand, x direction")
    decoded = {
        "states": max(on_states.values(), key=lambda found: found[0]),
        "counts": on_counts[best_sd],
    }
    for (name, (r2, guess)), color in zip(decoded.items(), (blue, orange)):
        ax.plot(seconds, guess[:, 0], color=color, lw=1.2, label=f"{name}: R2 {r2:.2f}")
    ax.set_xlabel("seconds")
    ax.set_ylabel("velocity")
    ax.set_title("Velocity, held out in stretches of 80 ms", loc="left")
    ax.legend(fontsize="small", loc="upper left")

    ax = axes["rates"]
    busiest = np.argsort(-counts.sum(axis=0))[:3]
    # The law of a log rate: loadings at their means, the state at its covariance.
    _, cov = model.smooth(counts, return_cov=True)
    for j, color in zip(busiest, (blue, orange, grey)):
        c = model.observation_matrix_[j]
        middle = states @ c + model.intercept_[j]
        sd = np.sqrt(np.einsum("k,tkl,l->t", c, cov, c))
        low, high = np.exp(middle - z * sd), np.exp(middle + z * sd)
        ax.fill_between(
            seconds, low / bin_seconds, high / bin_seconds, color=color, alpha=0.3, lw=0
        )
        ax.plot(seconds, np.exp(middle) / bin_seconds, color=color, lw=1.4)
    top = ax.get_ylim()[1]
    for i, (j, color) in enumerate(zip(busiest, (blue, orange, grey))):
        when = seconds[counts[:, j] > 0]
        ax.plot(
            when, np.full(len(when), (1.04 + 0.05 * i) * top), "|", color=color, ms=6
        )
    ax.set_xlabel("seconds")
    ax.set_ylabel("spikes a second")
    ax.set_title("Rates of the three busiest neurons", loc="left")

    if "sphinx_gallery" not in sys.modules:
        args.output.mkdir(parents=True, exist_ok=True)
        fig.savefig(args.output / "neural_states.png", dpi=120)
        print(f"\npicture: {args.output / 'neural_states.png'}")
