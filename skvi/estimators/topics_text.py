"""Reading topics: their words, and how well these go together."""

import numpy as np
from scipy import sparse
from sklearn.utils.validation import check_is_fitted

from skvi.estimators.base import check_count


class TopicTextMixin:
    """What a person asks of a fitted topic model."""

    def top_words(self, n=10, feature_names=None):
        """The most probable words of each topic.

        Parameters
        ----------
        n : int, default=10
            Words a topic.

        feature_names : sequence of str of length n_features, default=None
            The words, such as ``vectorizer.get_feature_names_out()``. None takes the
            column names of the X that was fitted, if it had any.

        Returns
        -------
        words : list of lists
            For each topic its words, the most probable first; column numbers where
            there are no names.
        """
        check_is_fitted(self)
        check_count(n, "n", "words a topic")
        names = feature_names
        if names is None:
            names = getattr(self, "feature_names_in_", np.arange(self.n_features_in_))
        names = np.asarray(names)
        if names.shape != (self.n_features_in_,):
            raise ValueError(
                f"feature_names has shape {names.shape}, but the model was fitted to "
                f"{self.n_features_in_} words; pass one name a column of X."
            )
        return [names[row].tolist() for row in self._top(n)]

    def coherence(self, X, n=10):
        """How often the top words of each topic share a document.

        The mean normalised pointwise mutual information of pairs of top words, counted
        over documents of X: log(p(v, w) / (p(v) p(w))) / -log p(v, w), which is 1 for
        words that occur only together, 0 for independent ones and -1 for words that
        never meet [1]_.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_documents, n_features)
            Counts of a reference corpus: that of the fit, or better another one.

        n : int, default=10
            Words a topic, at least 2.

        Returns
        -------
        coherence : ndarray of shape (n_components,)

        References
        ----------
        .. [1] G. Bouma (2009). Normalized (pointwise) mutual information in
           collocation extraction. GSCL.
        """
        check_is_fitted(self)
        check_count(n, "n", "words a topic")
        if min(n, self.n_features_in_) < 2:
            raise ValueError(
                f"n={n} of {self.n_features_in_} word(s) leaves no pair; it takes 2."
            )
        seen = (self._validate_counts(X) > 0).astype(np.float64).tocsc()
        out = np.empty(len(self.components_))
        for k, top in enumerate(self._top(n)):
            columns = sparse.csc_array(seen[:, top])
            together = (columns.T @ columns).toarray() / seen.shape[0]
            alone = np.diagonal(together)
            rows, cols = np.triu_indices(len(top), 1)
            p, independent = together[rows, cols], alone[rows] * alone[cols]
            npmi = np.full(len(p), -1.0)
            some = p > 0.0
            always = p == 1.0
            rest = some & ~always
            npmi[rest] = np.log(p[rest] / independent[rest]) / -np.log(p[rest])
            npmi[always] = 1.0
            out[k] = npmi.mean()
        return out

    def _top(self, n):
        n = min(n, self.n_features_in_)
        return np.argsort(-self.components_, axis=1, kind="stable")[:, :n]
