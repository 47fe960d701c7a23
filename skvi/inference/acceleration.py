"""Anderson extrapolation of a fixed-point map.

Walker & Ni (2011), SIAM Journal on Numerical Analysis 49, algorithm AA.

The map is the model's global step in unconstrained coordinates. The engine keeps an
extrapolated posterior only if its ELBO is no lower than the last one's.
"""

from collections import deque

import numpy as np

DEPTH = 8


class Anderson:
    """Differences of the last iterates and residuals, and the point they point at."""

    def __init__(self, depth=DEPTH):
        self.iterates = deque(maxlen=depth + 1)
        self.images = deque(maxlen=depth + 1)

    def propose(self, model, q, plain, values):
        """The extrapolated posterior, or None to take the plain step."""
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
        with np.errstate(over="ignore", invalid="ignore"):
            try:
                return model.at(coordinates, values, plain)
            except (ValueError, FloatingPointError):
                return None
