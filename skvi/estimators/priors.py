"""Hyperpriors as a user passes them, checked and resolved."""

import numpy as np

# Of Dirichlet and Beta priors: beyond, differences of their terms have no digits left.
CONCENTRATIONS = 1e-10, 1e8


def concentrations(value, shape, name):
    """Concentrations of the given shape, from a number for all or one for each."""
    array = np.asarray(value)
    low, high = CONCENTRATIONS
    right = array.dtype.kind in "fiu" and array.shape in {(), shape}
    if not right or not np.all((array >= low) & (array <= high)):
        each = f", or an array of them of shape {shape}" if shape else ""
        raise ValueError(
            f"{name}={value!r} must be a positive number{each}, between {low:g} and "
            f"{high:g}: beyond, the bound has no digits."
        )
    return np.broadcast_to(array.astype(np.float64), shape)


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
