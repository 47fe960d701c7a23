"""In which precision rows are read."""

import numpy as np

SINGLE_UP_TO = 2e-4 / np.finfo(np.float32).eps  # so about 1e-4 nats a row at most


def working_dtype(components, data):
    """Single precision for such rows, until it would cost digits that count."""
    if data.arithmetic == np.float32:
        if _rounding(components, data.frame.scale) > SINGLE_UP_TO:
            data.arithmetic = np.dtype(np.float64)  # for good: no going to and fro
    return data.arithmetic


def _rounding(components, scale):
    """Root sum of squares of a quadratic form's terms, for rows of that scale.

    Far above its value where components are narrow or columns nearly collinear;
    times the precision of the arithmetic, the error of a row's log density.
    """
    value = np.abs(components.expect()["value"])
    if hasattr(components, "wishart"):
        terms = value * scale * scale[:, None]
        return float(np.sqrt(np.max(np.sum(terms**2, axis=(-2, -1)))))
    terms = value.reshape(len(components.location), -1) * scale**2
    return float(np.sqrt(np.max(np.sum(terms**2, axis=1))))
