"""scikit-learn's own checks, with nothing excused."""

import numpy as np
from sklearn.utils.estimator_checks import parametrize_with_checks

from cases import CASES

CHOICES = (
    "prior",
    "covariance_type",
    "emission",
    "weight_concentration_prior_type",
    "memory_budget",
    "doc_topic_prior",
)
# what a row takes to end at an optimum of its data, as its arrays are for these
PRECISION = ("tol", "max_iter", "block_size")


def representatives():
    """Rows with a choice, for one of the posteriors, that no row before them made."""
    seen = set()
    for case in CASES:
        estimator = case.estimator()
        params = estimator.get_params()
        made = {
            (case.make, params["posterior"], name, params[name])
            for name in CHOICES
            if name in params and np.ndim(params[name]) == 0
        }
        if made - seen:
            seen |= made
            defaults = case.make().get_params()
            own = [name for name in params if name in PRECISION]
            own += [name for name, value in params.items() if np.ndim(value) > 0]
            yield estimator.set_params(**{name: defaults[name] for name in own})


@parametrize_with_checks(list(representatives()))
def test_sklearn_checks(estimator, check):
    check(estimator)
