r"""The one loop over global updates.

Iteration t: the driver's pass at q_t gives statistics S_t and ELBO(q_t), which is
appended to the path and tested for convergence. If it converged, q_t is returned as it
is; otherwise the driver advances to q_{t+1}. So the ELBO, its terms and everything that
is read off the posterior describe one and the same q.

Convergence has two parts. The ELBO must have stopped rising, and the estimated distance
that is *left* must be small in posterior standard deviations: a step of s sds that
shrinks by the factor r an iteration has s / (1 - r) to go from where it started,
however small s is.
"""

from collections import deque
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from skvi.inference.acceleration import Anderson

SLOWEST_RATE = 1.0 - 1e-6  # a map that seems not to contract has such tiny steps
N_FALLS = 3  # of the ELBO that end a run, if rounding can explain them
MOST_NOISE = 1e-5  # relative to the ELBO, that an ill-conditioned model may show
SLACK = 1e-12  # relative rounding of an ELBO, which a fall must exceed to be one
# By the precision of the statistics: the relative rounding of a rise of the ELBO, and
# the steps, in posterior sds, that are rounding and have no rate.
ROUNDING = {"float64": (SLACK, 1e-8), "float32": (2e-6, 1e-4)}


@dataclass
class Fit:
    """What a run of the engine returns: everything describes ``posterior``."""

    posterior: object
    statistics: object
    elbo_terms: dict
    path: list = field(default_factory=list)
    n_iter: int = 0
    converged: bool = False
    stopped: bool = False  # by a callback's wish

    @property
    def elbo(self):
        return float(sum(self.elbo_terms.values()))


class Convergence:
    """The two-part test, fed with every accepted iterate and its plain successor."""

    def __init__(self, tol, distance_tol, dtype="float64"):
        self.slack, self.rounding_sd = ROUNDING[np.dtype(dtype).name]
        self.tol = tol
        self.distance_tol = distance_tol
        self.noise, self.n_falls = 0.0, 0
        self.last = None
        self.rates = deque([0.0], maxlen=3)  # one rate alone may be a lucky one

    def distance_left(self, q, plain):
        """Estimated distance, in posterior sds, of q from the fixed point."""
        if plain is None:  # there is no step to take from here
            self.last = None
            return np.inf
        step = q.distance(plain)
        if self.last is None:
            left = 0.0 if step == 0.0 else np.inf
        else:
            before, before_plain = self.last
            moved = before.distance(q)
            left = step
            if max(step, moved) > self.rounding_sd:
                # The plain map's rate along the last move.
                rate = before_plain.distance(plain) / moved if moved > 0.0 else np.inf
                self.rates.append(min(rate, SLOWEST_RATE))
                left = step / (1.0 - max(self.rates))
        self.last = (q, plain)
        return left

    def reached(self, path, distance_left, rise_left=np.inf):
        """Whether ELBO and posterior have stopped, or have too short a way to go.

        ``rise_left`` is what the model knows the ELBO can rise on the distance left.
        """
        if distance_left <= self.distance_tol and rise_left <= self.tol:
            return True
        # A single pass counts only where the plain step has nowhere to go.
        rise = 0.0 if distance_left == 0.0 else np.inf
        if len(path) > 1:
            rise = abs(path[-1] - path[-2])
            # Steps that cannot lower the bound and do show what its digits are worth.
            fall = path[-2] - path[-1]
            self.n_falls += fall > self.slack * abs(path[-1])
            self.noise = max(self.noise, fall)
        tol = max(self.tol, self.slack * abs(path[-1]))
        if self.n_falls >= N_FALLS:  # what is left to go is not to be seen
            return rise <= max(tol, min(self.noise, MOST_NOISE * abs(path[-1])))
        return rise <= tol and distance_left <= self.distance_tol


def _evaluate(driver, q):
    statistics = driver.evaluate(q)
    return statistics, driver.elbo_terms(statistics, q)


def _itself(q):
    return q


def climb(
    model,
    driver,
    q,
    *,
    max_iter,
    tol,
    distance_tol=1e-3,
    accelerator=Anderson,
    on_iteration=None,
    dtype="float64",
):
    """Maximise the ELBO from q.

    Parameters
    ----------
    model : Model
    driver : a driver of skvi.inference.drivers
        How a pass over the data is made, and what an iteration does with it.
    q : the initial posterior
    max_iter : int
        Largest number of iterations (global updates of the batch driver, passes of the
        others).
    tol : float
        Rise of the ELBO, in nats, below which it counts as having stopped.
    distance_tol : float, default=1e-3
        Posterior sds that may be left to go; inf does not look at them.
    accelerator : Anderson, OverRelaxation or None, default=Anderson
        How to extrapolate where the model has coordinates and the driver allows it; an
        extrapolation stays only if the ELBO does not fall by it.
    on_iteration : callable or None
        ``on_iteration(fit)`` after every iteration; returning True stops the run.
    dtype : "float64" or "float32", default="float64"
        The precision in which statistics are computed.

    Returns
    -------
    fit : Fit
    """
    convergence = Convergence(tol, distance_tol, dtype)
    mixer = accelerator() if accelerator and driver.extrapolates else None
    path, fallback, fit, floor = [], None, None, -np.inf
    for iteration in range(max_iter + 1):
        # An extrapolation may land where numbers overflow; it is then dropped.
        statistics, terms = None, {"none": np.nan}
        try:
            with np.errstate(all="ignore" if fallback is not None else None):
                statistics, terms = _evaluate(driver, q)
        except np.linalg.LinAlgError:
            if fallback is None:
                raise
        elbo = sum(terms.values())
        if fallback is not None and not elbo >= floor - SLACK * abs(floor):
            q, fallback = fallback(), None
            mixer.rejected()
            statistics, terms = _evaluate(driver, q)
            elbo = sum(terms.values())
        path.append(float(elbo))
        last = iteration == max_iter
        # The convergence test looks a step ahead where distance is asked for.
        ahead = driver.monotone and np.isfinite(distance_tol)
        converged = driver.monotone and not ahead and convergence.reached(path, np.inf)
        target = None
        if ahead:
            target = driver.target(q, statistics)
            left = convergence.distance_left(q, target)
            converged = convergence.reached(path, left, model.rise_within(q, left))
        fit = Fit(q, statistics, terms, path, max(1, iteration), converged)
        fit.stopped = on_iteration is not None and bool(on_iteration(fit))
        if converged or fit.stopped or last:
            break
        step = partial(driver.advance, q, statistics, target)
        if mixer is not None and driver.trusts(target):
            # A plain step that is looked at only if the extrapolation fails.
            candidate = None
            if target is not q:
                candidate = mixer.propose(model, q, target, statistics.values)
            fallback, floor = step, path[-1]
        else:
            plain, candidate = step(), None
            if mixer is not None and plain is not q:
                candidate = mixer.propose(model, q, plain, statistics.values)
            step = fallback = partial(_itself, plain)
            floor = driver.known_elbo(plain, path[-1])
        if candidate is None:
            q, fallback = step(), None
        else:
            q = candidate
    return driver.finish(model, fit)
