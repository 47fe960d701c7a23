"""scikit-learn's underscore names: imported here, each with its reason, nowhere else.

They may change without notice; with all of them in one file, a new release of
scikit-learn is checked in one place.
"""

# The decorator of `fit` that checks `_parameter_constraints`; scikit-learn documents it
# for developers under this name.
from sklearn.base import _fit_context as fit_context

# The base of scikit-learn's own scorers. Multimetric scoring, metadata routing and
# `sklearn.callback.ScoringMonitor` recognise a scorer by it.
from sklearn.metrics._scorer import _BaseScorer as BaseScorer

# The base of GridSearchCV, RandomizedSearchCV and the halving searches, which
# `unwrap` opens; the public module does not export it.
from sklearn.model_selection._search import BaseSearchCV

# The words of `_parameter_constraints`, documented for developers likewise.
from sklearn.utils._param_validation import Interval, StrOptions

# scikit-learn's own error for metadata passed while metadata routing is off.
from sklearn.utils.metadata_routing import _raise_for_params as raise_for_params

# The validation of sample_weight that scikit-learn's own estimators share.
from sklearn.utils.validation import _check_sample_weight as check_sample_weight

__all__ = [
    "BaseScorer",
    "BaseSearchCV",
    "Interval",
    "StrOptions",
    "check_sample_weight",
    "fit_context",
    "raise_for_params",
]
