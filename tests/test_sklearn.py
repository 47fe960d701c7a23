"""scikit-learn's own checks, with nothing excused that is not asked of rows alone."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from cases import CASES, sequences_of
from skvi import VariationalLinearDynamicalSystem

CHOICES = (
    "prior",
    "covariance_type",
    "emission",
    "emissions",
    "observations",
    "structure",
    "family",
    "link",
    "weight_concentration_prior_type",
    "memory_budget",
    "doc_topic_prior",
)
# what a row takes to end at an optimum of its data, as its arrays are for these
PRECISION = ("tol", "max_iter", "block_size")
# columns that the data of the checks do not have
ROLES = ("sequence", "sequence_weight", "offset", "exposure", "trials")
ROLES += ("groups", "random_slopes", "sd_prior")
SMOOTHERS = [case for case in CASES if case.kind.smooths]


def representatives():
    """Rows with a choice, for one of the posteriors, that no row before them made."""
    seen = set()
    for case in CASES:
        estimator = case.estimator()
        params = estimator.get_params()
        if params.get("family") == "binomial":
            continue  # no y of the checks counts successes
        made = {
            (case.make, params["posterior"], name, params[name])
            for name in CHOICES
            if name in params and np.ndim(params[name]) == 0
        }
        if made - seen:
            seen |= made
            defaults = case.make().get_params()
            own = [name for name in params if name in PRECISION + ROLES]
            several = list, tuple, np.ndarray
            own += [
                name for name, value in params.items() if isinstance(value, several)
            ]
            if case.make is VariationalLinearDynamicalSystem:
                own.append("n_components")  # one state tells as much, and is faster
            yield estimator.set_params(**{name: defaults[name] for name in own})


ROWS_DEPEND = (
    "the check assumes rows to be independent; here they are steps of one sequence "
    "(test_answers_depend_on_a_sequence_alone has what holds instead)"
)


def expected_failures(estimator):
    """The two checks of rows one by one, of what smooths even with one component.

    They pass where the data of a check leave all states at rest.
    """
    if isinstance(estimator, VariationalLinearDynamicalSystem):
        return {
            "check_methods_sample_order_invariance": ROWS_DEPEND,
            "check_methods_subset_invariance": ROWS_DEPEND,
        }
    return {}


@parametrize_with_checks(
    list(representatives()),
    expected_failed_checks=expected_failures,
)
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("case", SMOOTHERS, ids=lambda case: case.name)
def test_answers_depend_on_a_sequence_alone(case):
    """Invariance to the order and subset of sequences.

    The checks ask it of rows.
    """
    X, y = case.data(np.random.default_rng(0))
    model = case.estimator().fit(X, y)
    if model.sequence is None:
        return  # there is one
    _, slices, _ = sequences_of(model, X)
    here = case.kind.outputs(model, X)
    backwards = np.concatenate([np.arange(len(X))[rows] for rows in slices[::-1]])
    for rows in [backwards, *[np.arange(len(X))[rows] for rows in slices]]:
        for there, all_of_them in zip(case.kind.outputs(model, X[rows]), here):
            np.testing.assert_allclose(there, all_of_them[rows], rtol=1e-9, atol=1e-9)
