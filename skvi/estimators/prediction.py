"""Predictions of a regressor, written once: everything follows from predictive laws."""

from numbers import Real

import numpy as np
from scipy import sparse
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from skvi.estimators.base import as_generator, check_count

BLOCK_ELEMENTS = 1 << 20
BLOCK_ROWS = 8192  # a predictive law holds some forty numbers a row


class PredictiveRegressorMixin(RegressorMixin):
    """``predict`` and its relatives for estimators that write two methods.

    ``_predictive_laws(X)`` yields (rows, list with one law a target), a law having
    ``mean``, ``variance()``, ``quantile(p)`` and ``log_density(y)``;
    ``_predictive_covariances(X)`` lists (n, n) covariances by target.
    """

    def predict(self, X, return_std=False, return_cov=False, quantiles=None):
        """Predict y with its uncertainty, noise included.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to predict.

        return_std : bool, default=False
            Also return the standard deviation of a new y.

        return_cov : bool, default=False
            Also return the joint covariance of the new y of all rows.

        quantiles : array-like of shape (n_quantiles,) or float, default=None
            Return these quantiles of a new y in place of its mean. Given as one
            array, they pass through a TransformedTargetRegressor, whose inverse
            transform they commute with.

        Returns
        -------
        y_mean : ndarray of shape (n_samples,) or (n_samples, n_targets)
            Predictive mean; not returned with `quantiles`.

        y_std : ndarray of the same shape
            With ``return_std=True``. Infinite where the predictive law, a Student-t,
            has no variance.

        y_cov : ndarray of shape (n_samples, n_samples[, n_targets])
            With ``return_cov=True``.

        y_quantiles : ndarray of shape (n_samples, n_quantiles[, n_targets])
            With `quantiles`.
        """
        check_is_fitted(self)
        if bool(return_std) + bool(return_cov) + (quantiles is not None) > 1:
            raise ValueError(
                f"return_std={return_std!r}, return_cov={return_cov!r} and "
                f"quantiles={quantiles!r} exclude each other: ask for one of them."
            )
        if quantiles is not None:
            return self._quantiles(X, check_probabilities(quantiles, "quantiles"))
        X = self._validate_rows(X)
        mean = self._predictive_mean(X)
        if return_std:
            variance = self._by_row(X, lambda law, rows, t: law.variance())
            return mean, np.sqrt(variance)
        if return_cov:
            return mean, self._join(self._predictive_covariances(X), axis=-1)
        return mean

    def predict_interval(self, X, confidence_level=0.95):
        """Central interval that holds a new y with the given probability.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to predict.

        confidence_level : float, default=0.95
            Probability of the interval, strictly between 0 and 1.

        Returns
        -------
        interval : ndarray of shape (n_samples, 2[, n_targets])
            Lower and upper end.
        """
        check_is_fitted(self)
        check_probability(confidence_level, "confidence_level")
        tail = 0.5 * (1.0 - confidence_level)
        return self._quantiles(X, np.array([tail, 1.0 - tail]))

    def log_predictive_density(self, X, y):
        """Log density of each y given its row and the training data.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Observed targets.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats; summed over targets, which are independent given the data.
        """
        check_is_fitted(self)
        X, y = self._validate_pairs(X, y)
        columns = np.asarray(y, dtype=np.float64).reshape(X.shape[0], -1)
        self._check_n_targets(columns)
        density = self._by_row(
            X, lambda law, rows, t: law.log_density(columns[rows, t]), squeeze=False
        )
        return density.sum(axis=-1)

    def sample_y(self, X, n_samples=1, random_state=None):
        """Draw new targets from the posterior predictive law, jointly over rows.

        Every draw takes one set of weights and noise for all rows, so that statistics
        of a whole replicated data set can be compared with those observed (posterior
        predictive checks).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples_X, n_features)
            Rows.

        n_samples : int, default=1
            Number of draws.

        random_state : int, RandomState instance or None, default=None
            Determines the draws.

        Returns
        -------
        y_samples : ndarray of shape (n_samples_X[, n_targets], n_samples)
        """
        check_is_fitted(self)
        check_count(n_samples, "n_samples")
        X = self._validate_rows(X)
        return self._replicate(X, int(n_samples), as_generator(random_state))

    # -- helpers -----------------------------------------------------------------------

    def _validate_rows(self, X):
        return validate_data(
            self,
            X,
            reset=False,
            accept_sparse=("csr", "csc"),
            dtype=[np.float64, np.float32],
        )

    def _validate_pairs(self, X, y):
        return validate_data(
            self,
            X,
            y,
            reset=False,
            accept_sparse=("csr", "csc"),
            dtype=[np.float64, np.float32],
            multi_output=True,
            y_numeric=True,
        )

    def _check_n_targets(self, columns):
        expected = np.size(self.intercept_)
        if columns.shape[1] != expected:
            raise ValueError(
                f"y has {columns.shape[1]} target(s), but this "
                f"{type(self).__name__} was fitted to {expected}."
            )

    def _quantiles(self, X, probabilities):
        X = self._validate_rows(X)
        return self._by_row(X, lambda law, rows, t: law.quantile(probabilities))

    def _by_row(self, X, read, squeeze=True):
        """``read(law, rows, target)`` over blocks of rows, targets on the last axis."""
        blocks = []
        for rows, laws in self._predictive_laws(X):
            parts = [read(law, rows, t) for t, law in enumerate(laws)]
            blocks.append(np.stack(parts, axis=-1))
        out = np.concatenate(blocks, axis=0)
        return out[..., 0] if squeeze and np.ndim(self.intercept_) == 0 else out

    def _join(self, parts, axis):
        return parts[0] if np.ndim(self.intercept_) == 0 else np.stack(parts, axis=axis)


def dense_blocks(X):
    """Yield (slice, dense float64 block) over rows, also of a sparse X."""
    X = X.tocsr() if sparse.issparse(X) else X
    step = int(np.clip(BLOCK_ELEMENTS // max(1, X.shape[1]), 16, BLOCK_ROWS))
    for start in range(0, X.shape[0], step):
        rows = slice(start, min(start + step, X.shape[0]))
        block = X[rows].toarray() if sparse.issparse(X) else X[rows]
        yield rows, np.asarray(block, dtype=np.float64)


def check_probability(value, name):
    if not isinstance(value, Real) or not 0.0 < value < 1.0:
        raise ValueError(
            f"{name}={value!r} must lie strictly between 0 and 1, such as 0.95."
        )


def check_probabilities(values, name):
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if array.ndim != 1 or not np.all((array > 0.0) & (array < 1.0)):
        raise ValueError(
            f"{name}={values!r} must be probabilities strictly between 0 and 1, such "
            "as [0.05, 0.5, 0.95]."
        )
    return array
