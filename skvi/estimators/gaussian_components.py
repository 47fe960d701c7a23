"""Gaussian components as users see them: their priors, and their attributes.

Priors are checked, relative to the data, and in standard units.
"""

from dataclasses import dataclass
from numbers import Real

import numpy as np

from skvi.distributions import DiagonalNormalGamma, NormalWishart, Wishart

MEAN_PRECISION = 0.1  # rows that the prior of a mean is worth
EXTRA_DOF = 2.0  # beyond n_features: a component without rows has a finite covariance


@dataclass(frozen=True)
class GaussianPriors:
    """Numbers in standard units.

    Attributes
    ----------
    mean : array of shape (D,)
    mean_precision, dof : float
    covariance : array of shape (D, D), (D,) or ()
    """

    mean: np.ndarray
    mean_precision: float
    dof: float
    covariance: np.ndarray

    @classmethod
    def resolve(cls, estimator, totals, frame):
        """The parameters of an estimator, None being relative to the data."""
        dim, kind = len(frame.unit), estimator.covariance_type
        mean_precision = estimator.mean_precision_prior
        if mean_precision is None:
            mean_precision = MEAN_PRECISION
        mean = totals.mean
        if estimator.mean_prior is not None:
            mean = _array(estimator.mean_prior, (dim,), "mean_prior")
            mean = (mean - frame.centre) / frame.unit
        dof = estimator.degrees_of_freedom_prior
        matrix = kind in ("full", "tied")
        if dof is None:
            dof = (dim if matrix else 1) + EXTRA_DOF
        elif matrix and not dof > dim - 1:
            raise ValueError(
                f"degrees_of_freedom_prior={dof!r} must be greater than "
                f"n_features - 1 = {dim - 1} for covariance_type={kind!r}, or the "
                "Wishart prior has no density."
            )
        return cls(
            mean,
            float(mean_precision),
            float(dof),
            cls._covariance(estimator.covariance_prior, kind, totals, frame),
        )

    @staticmethod
    def _covariance(value, kind, totals, frame):
        dim = len(frame.unit)
        if value is None:
            if kind in ("full", "tied"):
                return totals.covariance()
            variance = totals.scale**2
            return variance if kind == "diag" else np.mean(variance)
        shape = {"diag": (dim,), "spherical": ()}.get(kind, (dim, dim))
        if isinstance(value, Real):  # the same variance for every column
            value = value * (np.eye(dim) if len(shape) == 2 else np.ones(shape))
        value = _array(value, shape, "covariance_prior")
        if kind in ("full", "tied"):
            if not np.allclose(value, value.T):
                raise ValueError("covariance_prior must be a symmetric matrix.")
            value = value / frame.unit / frame.unit[:, None]
            value = 0.5 * (value + value.T)
            if np.linalg.eigvalsh(value)[0] <= 0.0:
                raise ValueError(
                    "covariance_prior must be positive definite; add a small multiple "
                    "of the identity to it."
                )
            return value
        if np.any(value <= 0.0):
            raise ValueError(f"covariance_prior={value!r} must be positive.")
        return value / (frame.unit if kind == "diag" else frame.unit[0]) ** 2

    def components(self, K, kind):
        """p(mu, Lambda) of K components."""
        mean = np.tile(self.mean, (K, 1))
        beta, nu, C = self.mean_precision, self.dof, self.covariance
        if kind == "full":
            wishart = Wishart(np.full(K, nu), np.tile(C, (K, 1, 1)))
            return NormalWishart(mean, beta, wishart)
        if kind == "tied":
            return NormalWishart(mean, beta, Wishart(nu, C))
        rate = np.tile(0.5 * C, (K, 1)) if kind == "diag" else np.full(K, 0.5 * C)
        return DiagonalNormalGamma(mean, beta, 0.5 * nu, rate)

    def attributes(self, frame, kind):
        """As fitted attributes, in the data's units."""
        unit = frame.unit
        if kind in ("full", "tied"):
            covariance = self.covariance * unit * unit[:, None]
        elif kind == "diag":
            covariance = self.covariance * unit**2
        else:
            covariance = float(self.covariance * unit[0] ** 2)
        return {
            "mean_prior_": frame.centre + unit * self.mean,
            "mean_precision_prior_": self.mean_precision,
            "degrees_of_freedom_prior_": self.dof,
            "covariance_prior_": covariance,
        }


def _array(value, shape, name):
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or array.shape != shape:
        raise ValueError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; give numbers of "
            f"shape {shape}."
        )
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name}={value!r} must be finite.")
    return array.astype(np.float64)


def component_attributes(components, kind):
    """Fitted attributes of a posterior of means and precisions, in its own units."""
    return {
        "means_": components.location.copy(),
        **_covariances(components, kind),
        "mean_precision_": _by_component(components.mean_precision),
    }


def _covariances(components, kind):
    if kind in ("full", "tied"):
        wishart = components.wishart
        # precisions_ = B B' with B upper triangular, as scikit-learn has it.
        root = np.sqrt(wishart.dof)[..., None, None]
        return {
            "covariances_": wishart.inverse_scale / wishart.dof[..., None, None],
            "precisions_": wishart.mean,
            "precisions_cholesky_": root * np.swapaxes(wishart.inverse_factor, -1, -2),
            "degrees_of_freedom_": wishart.dof.copy(),
        }
    noise = components.noise
    return {
        "covariances_": noise.rate / noise.shape,
        "precisions_": noise.mean,
        "precisions_cholesky_": np.sqrt(noise.mean),
        "degrees_of_freedom_": 2.0 * noise.shape,
    }


def _by_component(mean_precision):
    """One number a component where its coordinates share it."""
    if mean_precision.ndim == 2 and np.all(mean_precision == mean_precision[:, :1]):
        return mean_precision[:, 0].copy()
    return mean_precision.copy()
