"""What a fitted linear model says: weights, predictions, tables."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skvi.estimators.prediction import (
    PredictiveRegressorMixin,
    check_probability,
    dense_blocks,
)
from skvi.estimators.summary import Summary, contrast_row
from skvi.linalg import scaled_covariance


class LinearModelMixin(PredictiveRegressorMixin):
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

    def summary(self, confidence_level=0.95, contrasts=None):
        """Tabulate the posterior of the weights, or of linear combinations of them.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Probability of the central intervals.

        contrasts : dict of str to (array-like of shape (n_features,) or dict), \
                default=None
            Linear combinations of the weights by name: one coefficient a feature, or
            a dict of feature name (or "intercept") to coefficient. None tabulates
            every weight and the intercept.

        Returns
        -------
        summary : Summary
            Prints as text and, in notebooks, as HTML; ``to_pandas()``. With arrays
            ``mean``, ``sd``, ``lower``, ``upper``, ``probability_positive``.

        Examples
        --------
        >>> from sklearn.datasets import load_diabetes
        >>> from skvi import VariationalBayesianRegression
        >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
        >>> model = VariationalBayesianRegression().fit(X[["bmi", "bp"]], y)
        >>> model.summary(contrasts={"bmi - bp": {"bmi": 1, "bp": -1}})
        VariationalBayesianRegression (95% intervals)
                  mean   sd  lower  upper  P(> 0)
        bmi - bp ...
        """
        check_is_fitted(self)
        check_probability(confidence_level, "confidence_level")
        names = self._feature_names()
        if contrasts is None:
            contrasts = {name: {name: 1.0} for name in names}
            if self.fit_intercept:
                contrasts["intercept"] = {"intercept": 1.0}
        if not contrasts:
            raise ValueError(
                "contrasts={} names no linear combination; leave it None for a table "
                "of all weights."
            )
        names_and_one = [*names, "intercept"] if self.fit_intercept else names
        rows = np.stack(
            [contrast_row(k, v, names_and_one) for k, v in contrasts.items()]
        )
        level = rows[:, -1] if self.fit_intercept else np.zeros(len(rows))
        # The intercept is the level at the mean of X less what the weights make of it.
        rows = rows[:, : len(names)] - np.outer(level, self.X_offset_)
        tail = 0.5 * (1.0 - confidence_level)
        table = self._tabulate(rows / self.X_scale_, tail, level)
        names = list(contrasts)
        n_targets = table.shape[1]
        if np.ndim(self.intercept_) != 0:
            names = [f"y{t}: {name}" for name in names for t in range(n_targets)]
        notes = {"elbo": self.elbo_}
        for name in ("noise_variance_", "noise_collapse_probability_"):
            for t, value in enumerate(np.atleast_1d(getattr(self, name))):
                label = name.strip("_").replace("_", " ")
                notes[label if n_targets == 1 else f"y{t}: {label}"] = float(value)
        return Summary(type(self).__name__, names, table, confidence_level, notes)

    def _tabulate(self, rows, tail, level):
        """(rows, targets, 5): mean, sd, interval and P(> 0) of level * b + rows @ w."""
        step = max(1, (1 << 20) // max(1, rows.shape[1]))
        parts = []
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            laws = self._laws(rows[some], level=level[some], noise=False)
            columns = [
                [
                    law.mean,
                    np.sqrt(law.variance()),
                    *law.quantile([tail, 1.0 - tail]).T,
                    1.0 - law.cdf(np.zeros(len(law.mean))),
                ]
                for law in laws
            ]
            parts.append(np.transpose(columns, (2, 0, 1)))
        return np.concatenate(parts)

    def _feature_names(self):
        default = [f"x{j}" for j in range(self.n_features_in_)]
        return list(getattr(self, "feature_names_in_", default))


def _by_name(draws):
    """Draws with vectors of one number dropped to numbers."""
    return {k: v[:, 0] if k == "level" and v.ndim > 1 else v for k, v in draws.items()}
