"""Priors of standard deviations, as users state them."""

import numpy as np

from skvi.models.mixed import ConjugatePrior, ScalePrior

EFFECTS_DEFAULT = ("half_t", 1.0, 3.0)
# Vanishing at zero: rows that are fitted exactly would else have no noise at all.
NOISE_DEFAULT = ("inverse_wishart", 0.1, 1.0)
KINDS = (
    "('half_normal', scale), ('half_t', scale, dof), ('half_cauchy', scale) or "
    "('inverse_wishart', scale, dof)"
)


def variance_prior(spec, default, n_effects, concentration, name):
    """(prior, resolved spec) of one covariance matrix.

    Parameters
    ----------
    spec : tuple or None
        As the parameter `sd_prior` describes.
    default : tuple
        What None stands for.
    n_effects : int
    concentration : float
        Of the LKJ law.
    name : str
        Of the parameter, for errors.
    """
    spec = default if spec is None else spec
    if not isinstance(spec, tuple | list) or not spec or not isinstance(spec[0], str):
        raise ValueError(f"{name}={spec!r} must be None, {KINDS}.")
    kind, *numbers = spec
    wanted = {"half_normal": 1, "half_cauchy": 1, "half_t": 2, "inverse_wishart": 2}
    if wanted.get(kind) != len(numbers):
        raise ValueError(f"{name}={spec!r} must be None, {KINDS}.")
    scale = _scales(numbers[0], n_effects, spec, name)
    dof = {"half_normal": np.inf, "half_cauchy": 1.0}.get(kind)
    if dof is None:
        dof = _number(numbers[1], spec, name)
    resolved = (kind, scale.tolist() if n_effects > 1 else float(scale[0]))
    if kind in ("half_t", "inverse_wishart"):
        resolved = (*resolved, float(dof))
    if kind != "inverse_wishart":
        return ScalePrior(scale, dof, concentration), resolved
    if dof <= n_effects - 1.0:
        raise ValueError(
            f"{name}={spec!r}: an inverse Wishart of {n_effects} effects is proper for "
            f"more than {n_effects - 1} degrees of freedom; raise them."
        )
    return ConjugatePrior(dof, dof * np.diag(scale**2)), resolved


def _scales(value, n_effects, spec, name):
    try:
        scale = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        scale = np.array(np.nan)
    good = scale.ndim == 0 or scale.shape == (n_effects,)
    if not good or not np.all(np.isfinite(scale) & (scale > 0.0)):
        raise ValueError(
            f"{name}={spec!r}: the scale must be a positive number, or one for each of "
            f"the {n_effects} effect(s): the intercept's, then those of the slopes."
        )
    return np.broadcast_to(scale, (n_effects,)).copy()


def _number(value, spec, name):
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not 0.0 < number < np.inf:
        raise ValueError(
            f"{name}={spec!r}: the degrees of freedom must be a positive number."
        )
    return number
