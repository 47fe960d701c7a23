"""scikit-learn's own checks, with nothing excused."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from cases import CASES

CHOICES = ("prior", "covariance_type", "emission", "weight_concentration_prior_type")


def representatives():
    """Rows with a choice, for one of the posteriors, that no row before them made."""
    seen = set()
    for case in CASES:
        estimator = case.estimator()
        params = estimator.get_params()
        made = {
            (case.make, params["posterior"], name, params[name])
            for name in CHOICES
            if name in params
        }
        if made - seen:
            seen |= made
            yield estimator


@parametrize_with_checks(list(representatives()))
def test_sklearn_checks(estimator, check):
    check(estimator)
