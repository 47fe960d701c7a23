"""scikit-learn's own checks, with nothing excused."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from cases import CASES


@parametrize_with_checks([case.estimator() for case in CASES])
def test_sklearn_checks(estimator, check):
    check(estimator)
