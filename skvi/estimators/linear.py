"""What a fitted linear model says: weights, predictions, tables."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skvi.estimators.linear_summary import LinearSummaryMixin
from skvi.estimators.prediction import PredictiveRegressorMixin, dense_blocks
from skvi.linalg import scaled_covariance


class LinearModelMixin(LinearSummaryMixin, PredictiveRegressorMixin):
    """Weights and predictions of models that are linear in standardised columns.

    The estimator sets ``_fitted_posteriors`` (one a target, in standard units),
    ``_fitted_laws`` (the covariances of their weights) and the means and scales of X
    and y; everything here is read off those.
    """

    @property
    def coef_covariance_(self):
        """Posterior covariance of the weights."""
        check_is_fitted(self)
        scale = np.atleast_2d(self._unit_scale())
        parts = [
            scaled_covariance(law.covariance(), s)
            for law, s in zip(self._fitted_laws, scale)
        ]
        if np.ndim(self.intercept_) == 0:
            return parts[0]
        if all(isinstance(part, np.ndarray) for part in parts):
            return np.stack(parts)
        return parts

    def _unit_scale(self):
        return np.multiply.outer(self.y_scale_, 1.0 / self.X_scale_)

    def _draw(self, n, rng):
        draws = [_by_name(q.sample(n, rng)) for q in np.atleast_1d(self.posterior_)]
        for draw in draws:
            level = draw.get("level", np.zeros(n))
            draw["intercept"] = level - draw["coef"] @ self.X_offset_
        if np.ndim(self.intercept_) == 0:
            return draws[0]
        return {name: np.stack([d[name] for d in draws], axis=1) for name in draws[0]}

    def _standardise(self, rows):
        return (rows - self.X_offset_) / self.X_scale_

    def _laws(self, rows, level=1.0, noise=True):
        """Laws of ``level * b + rows @ w`` (+ noise), in y's units, one a target."""
        return [
            q.predictive(rows, law, level=level, noise=noise).rescaled(
                scale, np.reshape(level, (-1, 1)) * shift
            )
            for q, law, scale, shift in zip(
                self._fitted_posteriors,
                self._fitted_laws,
                np.atleast_1d(self.y_scale_),
                np.atleast_1d(self.y_offset_),
            )
        ]

    def _predictive_laws(self, X):
        for rows, block in dense_blocks(X):
            yield rows, self._laws(self._standardise(block))

    def _predictive_mean(self, X):
        blocks = [
            self._standardise(block) @ (self.coef_ * self.X_scale_).T
            for _, block in dense_blocks(X)
        ]
        return self.y_offset_ + np.concatenate(blocks)

    def _predictive_covariances(self, X):
        rows = np.concatenate(
            [self._standardise(block) for _, block in dense_blocks(X)]
        )
        return [
            scale**2 * q.predictive_covariance(rows, law)
            for q, law, scale in zip(
                self._fitted_posteriors, self._fitted_laws, np.atleast_1d(self.y_scale_)
            )
        ]

    def _replicate(self, X, n_samples, rng):
        draws = self._draw(n_samples, rng)
        single = np.ndim(self.intercept_) == 0
        draws.setdefault("level", draws["intercept"])  # zero without an intercept
        coef, level, tau = (
            draws[name][:, None] if single else draws[name]
            for name in ("coef", "level", "noise_precision")
        )
        # (n_samples, t, p) against rows centred first: the shift may be large.
        mean = np.concatenate(
            [
                np.einsum("np,stp->nts", block - self.X_offset_, coef, optimize=True)
                for _, block in dense_blocks(X)
            ]
        )
        noise = rng.standard_normal(mean.shape) / np.sqrt(tau).T
        out = mean + level.T + noise
        return out[:, 0] if single else out

    def _output_names(self):
        n_targets = np.size(self.intercept_)
        return (
            None
            if np.ndim(self.intercept_) == 0
            else [f"y{t}" for t in range(n_targets)]
        )

    def _summary_notes(self):
        notes, n_targets = {"elbo": self.elbo_}, np.size(self.intercept_)
        for name in ("noise_variance_", "noise_collapse_probability_"):
            for t, value in enumerate(np.atleast_1d(getattr(self, name))):
                label = name.strip("_").replace("_", " ")
                notes[label if n_targets == 1 else f"y{t}: {label}"] = float(value)
        return notes


def _by_name(draws):
    """Draws with vectors of one number dropped to numbers."""
    return {k: v[:, 0] if k == "level" and v.ndim > 1 else v for k, v in draws.items()}
