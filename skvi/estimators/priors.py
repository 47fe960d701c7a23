"""Hyperpriors as a user passes them, checked and resolved."""

import numpy as np


def gamma_pair(value, default, name):
    if value is None:
        return default
    try:
        shape, rate = (float(v) for v in value)
    except (TypeError, ValueError):
        shape = rate = np.nan
    if not (0.0 < shape < np.inf and 0.0 < rate < np.inf):
        raise ValueError(
            f"{name}={value!r} must be a pair (shape, rate) of positive numbers, such "
            f"as {default}."
        )
    return shape, rate


def positive_precisions(value, n_features):
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or array.shape not in {(), (n_features,)}:
        raise ValueError(
            f"weight_precision={value!r} must be a number or one for each of the "
            f"{n_features} features."
        )
    if not np.all((array > 0) & np.isfinite(array)):
        raise ValueError(
            f"weight_precision={value!r} must be positive and finite; a weight that "
            "should not be shrunk has a small precision, such as 1e-6."
        )
    return array.astype(np.float64)
