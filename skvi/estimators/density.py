"""What a fitted density answers, written once: all follows from a predictive law."""

from numbers import Integral

import numpy as np
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from skvi._sklearn import check_sample_weight
from skvi.estimators.base import as_generator, check_count
from skvi.estimators.prediction import (
    check_probabilities,
    check_probability,
    dense_blocks,
)


class PredictiveDensityMixin(DensityMixin):
    """Densities, labels and imputation for estimators that write three methods.

    ``_predictive()`` is a StudentMixture in standard units, ``_fitted_frame`` the
    Frame of these units, ``_validate_rows(X)`` checks new rows.
    """

    def score_samples(self, X):
        """Log predictive density of each row, the posterior integrated out.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows. The density of a row with NaN is that of its other entries.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats. Its exponential integrates to one over a complete row.
        """
        law = self._predictive()

        def densities(x, log_unit):
            return law.log_density(x) - log_unit

        return self._by_block(X, densities)

    def score(self, X, y=None, sample_weight=None):
        """Mean log predictive density of rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        y : None
            Ignored; there by convention.

        sample_weight : array-like of shape (n_samples,), default=None
            How many times each row counts.

        Returns
        -------
        score : float
            Nats a row.
        """
        density = self.score_samples(X)
        weight = check_sample_weight(
            sample_weight, density[:, None], ensure_non_negative=True
        )
        return float(np.average(density, weights=weight))

    def predict_proba(self, X):
        """Probability of each component given a row, the posterior integrated out.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_components)
        """
        law = self._predictive()
        return self._by_block(X, lambda x, log_unit: law.responsibilities(x))

    def predict(self, X):
        """The most probable component of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        law = self._predictive()
        return self._by_block(
            X, lambda x, log_unit: law.log_densities(x).argmax(axis=1)
        )

    def fit_predict(self, X, y=None, sample_weight=None):
        """Fit, and return the most probable component of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        y : None
            Ignored; there by convention.

        sample_weight : array-like of shape (n_samples,), default=None
            How many times each row counts.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def sample(self, n_samples=1, random_state=None):
        """Draw new rows from the predictive law.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.

        random_state : int, RandomState instance or None, default=None
            Determines the draws; None is the estimator's own `random_state`.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
        labels : ndarray of shape (n_samples,)
            The component of each.
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples")
        state = self.random_state if random_state is None else random_state
        X, labels = self._predictive().sample(int(n_samples), as_generator(state))
        frame = self._fitted_frame
        return frame.centre + frame.unit * X, labels

    def impute(self, X, return_std=False):
        """Fill missing entries with their predictive means given the others.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows; NaN marks what is missing.

        return_std : bool, default=False
            Also return the predictive standard deviations.

        Returns
        -------
        X_filled : ndarray of shape (n_samples, n_features)
            X with numbers in place of NaN.

        std : ndarray of shape (n_samples, n_features)
            With ``return_std=True``; zero where the entry was observed.
        """
        X, frame = self._dense_rows(X), self._fitted_frame
        filled, std = self._predictive().impute(frame.inward(X))
        # What was observed is handed back as it came.
        filled = np.where(np.isnan(X), frame.centre + frame.unit * filled, X)
        return (filled, frame.unit * std) if return_std else filled

    def conditional(self, X, features):
        """Predictive law of some features given the others.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows. Entries of the asked features are not looked at; NaN among the
            others is integrated out.

        features : int, str or sequence of these
            Which features: positions, or names seen in fit.

        Returns
        -------
        law : ConditionalMixture
            With ``mean``, ``std()``, ``covariance()``, ``interval(level)``,
            ``quantile(p)``, ``log_density(values)`` and ``sample(n, random_state)``;
            one law a row, features in the order asked for.
        """
        X, frame = self._dense_rows(X), self._fitted_frame
        index = self._feature_index(features)
        inner = self._predictive().conditional(frame.inward(X), index)
        return ConditionalMixture(inner, frame.unit[index], frame.centre[index])

    # -- helpers -----------------------------------------------------------------------

    def _by_block(self, X, read):
        check_is_fitted(self)
        X, frame = self._validate_rows(X), self._fitted_frame
        log_unit = np.log(frame.unit)
        out = []
        for _, block in dense_blocks(X):
            x = frame.inward(block)
            out.append(read(x, (~np.isnan(x)) @ log_unit))
        return np.concatenate(out)

    def _dense_rows(self, X):
        check_is_fitted(self)
        return validate_data(
            self,
            X,
            reset=False,
            dtype=np.float64,
            ensure_all_finite="allow-nan",
        )

    def _feature_index(self, features):
        names = list(getattr(self, "feature_names_in_", []))
        single = isinstance(features, (str, Integral))
        entries = [features] if single else list(features)
        index = []
        for entry in entries:
            if isinstance(entry, str) and entry in names:
                index.append(names.index(entry))
            elif isinstance(entry, Integral) and -self.n_features_in_ <= entry < (
                self.n_features_in_
            ):
                index.append(int(entry) % self.n_features_in_)
            else:
                raise ValueError(
                    f"features={features!r}: {entry!r} is no feature. Give positions "
                    f"below {self.n_features_in_}"
                    + (f", or names among {names[:30]}." if names else ".")
                )
        if not index or len(set(index)) != len(index):
            raise ValueError(f"features={features!r} must name features, each once.")
        return np.array(index)


class ConditionalMixture:
    """Predictive laws of some features, one a row, given the rest of the row.

    Attributes
    ----------
    mean : ndarray of shape (n_samples, n_asked)
    weights : ndarray of shape (n_samples, n_components)
        Probability of each component given what was observed.
    """

    def __init__(self, inner, scale, shift):
        self._inner, self._scale, self._shift = inner, scale, shift

    @property
    def weights(self):
        return self._inner.weights

    @property
    def mean(self):
        return self._shift + self._scale * self._inner.mean

    def std(self):
        """Standard deviations, (n_samples, n_asked)."""
        return self._scale * self._inner.std()

    def covariance(self):
        """Covariances, (n_samples, n_asked, n_asked)."""
        return self._inner.covariance() * self._scale * self._scale[:, None]

    def quantile(self, probabilities):
        """Quantiles of each feature, (n_samples, n_asked, n_probabilities)."""
        inner = self._inner.quantile(
            check_probabilities(probabilities, "probabilities")
        )
        return self._shift[:, None] + self._scale[:, None] * inner

    def interval(self, confidence_level=0.95):
        """Central intervals of each feature, (n_samples, n_asked, 2)."""
        check_probability(confidence_level, "confidence_level")
        tail = 0.5 * (1.0 - confidence_level)
        return self.quantile([tail, 1.0 - tail])

    def log_density(self, values):
        """Log density of the asked features, jointly, (n_samples,)."""
        values = np.asarray(values, dtype=np.float64)
        shape = self.mean.shape
        if values.shape == shape[:1] and shape[1] == 1:
            values = values[:, None]
        if values.shape != shape:
            raise ValueError(
                f"values has shape {values.shape}; give the {shape[1]} asked "
                f"feature(s) of each of the {shape[0]} rows, shape {shape}."
            )
        inner = self._inner.log_density((values - self._shift) / self._scale)
        return inner - np.log(self._scale).sum()

    def sample(self, n_samples=1, random_state=None):
        """Draws, (n_samples, n_rows, n_asked)."""
        check_count(n_samples, "n_samples")
        draws = self._inner.sample(int(n_samples), as_generator(random_state))
        return self._shift + self._scale * draws
