"""Extrapolation of a fixed-point map: the model's global step.

It happens in the model's unconstrained coordinates. The engine keeps an extrapolated
posterior only if its ELBO is no lower than the last one's, and says so if it was not.
"""

from collections import deque

import numpy as np

DEPTH = 8
GROWTH, RETREAT = 1.3, 0.3  # of the length of over-relaxed steps
N_PLAIN = 10  # steps before them: the first choose the optimum that is climbed


class Anderson:
    """Anderson acceleration: the point that the last iterates and residuals point at.

    For maps that contract smoothly from where they start (Walker & Ni 2011, SIAM
    Journal on Numerical Analysis 49, algorithm AA).

    Parameters
    ----------
    depth : int
        How many steps it remembers.
    n_plain : int
        Steps before the first extrapolation, where most runs end without any.
    """

    def __init__(self, depth=DEPTH, n_plain=0):
        self.n_plain = n_plain
        self.iterates = deque(maxlen=depth + 1)
        self.images = deque(maxlen=depth + 1)

    def propose(self, model, q, plain, values):
        """The extrapolated posterior, or None to take the plain step."""
        if self.n_plain > 0:
            self.n_plain -= 1
            return None
        x = model.coordinates(q)
        if x is None:
            return None
        self.iterates.append(x)
        self.images.append(model.coordinates(plain))
        if len(self.iterates) < 2:
            return None
        images = np.array(self.images)
        residuals = images - np.array(self.iterates)
        # Minimise |r_t - dR'g|; lstsq cuts directions that rounding has made equal.
        steps, *_ = np.linalg.lstsq(
            np.diff(residuals, axis=0).T, residuals[-1], rcond=1e-8
        )
        coordinates = images[-1] - np.diff(images, axis=0).T @ steps
        if not np.all(np.isfinite(coordinates)):
            return None
        return _posterior_at(model, coordinates, values, plain)

    def rejected(self):
        """History is kept: later iterates make up for a bad one."""


class OverRelaxation:
    """Plain steps made longer while that raises the ELBO.

    For ascents far from their end, where many modes move at once and histories mislead
    (Salakhutdinov & Roweis 2003, Adaptive overrelaxed bound optimization methods).
    """

    def __init__(self):
        self.n_plain = N_PLAIN
        self.length = 1.0

    def propose(self, model, q, plain, values):
        """The posterior a longer step away, or None to take the plain step."""
        if self.n_plain > 0:
            self.n_plain -= 1
            return None
        length, self.length = self.length, GROWTH * self.length
        if length == 1.0:
            return None
        x = model.coordinates(q)
        if x is None:
            return None
        coordinates = x + length * (model.coordinates(plain) - x)
        return _posterior_at(model, coordinates, values, plain)

    def rejected(self):
        self.length = max(1.0, RETREAT * self.length / GROWTH)


def _posterior_at(model, coordinates, values, warm):
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            return model.at(coordinates, values, warm)
        except (ValueError, FloatingPointError):
            return None
