"""What hostile input does: checked here, and written to docs/hostile_input.md.

Each row either fits, and its check says what holds, or raises one clear error. The
page is compared with what this test finds; set SKVI_WRITE_DOCS=1 to write it anew.
"""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from skvi import VariationalBayesianRegression

PAGE = Path(__file__).parents[1] / "docs" / "hostile_input.md"
HEAD = """# Hostile input

What `VariationalBayesianRegression` does with input that breaks naive code. The table
is written by `tests/test_hostile_input.py`, which checks every sentence in it for both
posteriors and both priors.

| input | what happens |
| --- | --- |
"""

rng = np.random.default_rng(0)
X = rng.standard_normal((30, 4))
Y = X @ [1.0, 2.0, 0.0, -1.0] + rng.standard_normal(30)
WIDE = rng.standard_normal((10, 500))
FLAT = {"weight_precision_prior": (1e-6, 1e-6), "noise_precision_prior": (1e-6, 1e-6)}


def replaced(array, where, value):
    out = np.array(array, dtype=float)
    out[where] = value
    return out


def reference(params):
    return VariationalBayesianRegression(**params).fit(X, Y)


def close(a, b, tolerance=1e-6):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.max(np.abs(b)))


def usable(model, rows):
    """Predictions, intervals and draws are numbers."""
    mean, std = model.predict(rows, return_std=True)
    assert np.all(np.isfinite(mean)) and np.all(std > 0)
    assert np.all(np.isfinite(model.predict_interval(rows)))
    assert np.all(np.isfinite(model.sample_posterior(10, 0)["coef"]))
    assert np.isfinite(model.elbo_) and model.converged_


def constant_target(model, params):
    assert np.all(model.coef_ == 0.0)
    close(model.predict(X), 7.0)
    assert np.all(model.predict(X, return_std=True)[1] < 1.0)
    return (
        "fits; weights are 0, predictions that constant, with noise that the prior "
        "and n bound below"
    )


def constant_column(model, params):
    bare = VariationalBayesianRegression(**params, weight_precision_prior=(2.0, 0.5))
    bare.fit(np.delete(X, 1, axis=1), Y)
    same = VariationalBayesianRegression(**params, weight_precision_prior=(2.0, 0.5))
    same.fit(replaced(X, np.s_[:, 1], 0.1), Y)
    assert abs(model.coef_[1]) < 1e-12
    if params == {"posterior": "structured", "prior": "ridge"}:
        close(
            same.predict(replaced(X, np.s_[:, 1], 0.1)), bare.predict(X[:, [0, 2, 3]])
        )
        assert same.elbo_ == pytest.approx(bare.elbo_, abs=1e-9)
    return (
        "fits; its weight stays at the prior, with mean 0, and (exact posterior) the "
        "ELBO and predictions are those without it"
    )


def duplicated_column(model, params):
    close(model.coef_[0], model.coef_[4], 1e-3)
    sd = model.summary(contrasts={"sum": [1, 0, 0, 0, 1]}).sd[0]
    assert sd < 0.5
    return "fits; the two share the weight, and the sd of their sum stays small"


def one_row(model, params):
    assert np.all(model.coef_ == 0.0)
    close(model.predict(X[:1]), Y[:1])
    return (
        "fits; weights are 0, the prediction is y; the structured posterior, a "
        "Student-t of 1.5 degrees of freedom, reports infinite stds and finite "
        "intervals"
    )


def two_rows(model, params):
    assert model.noise_collapse_probability_ < 0.5
    return "fits; intervals are wide and the noise does not collapse"


def wide(model, params):
    assert model.noise_collapse_probability_ < 0.05
    return "fits without a p x p matrix; the noise does not collapse"


def scaled(factor):
    def check(model, params):
        units = reference(params)
        close(model.coef_ / factor, units.coef_)
        close(model.elbo_, units.elbo_ - len(Y) * np.log(factor))
        return "fits; everything in those units, the ELBO moved by -n log c"

    return check


def scaled_column(factor):
    def check(model, params):
        units = reference(params)
        close(model.coef_[2] * factor, units.coef_[2])
        close(model.elbo_, units.elbo_)
        return "fits; that weight in those units, nothing else changes"

    return check


def shifted(model, params):
    units = reference(params)
    close(model.coef_, units.coef_, 1e-4)
    close(model.elbo_, units.elbo_, 1e-5)
    return "fits; the same weights, up to the rounding of the shifted numbers"


def exact_fit(model, params):
    close(model.coef_, [1.0, 2.0, 0.0, -1.0], 0.01)
    assert model.noise_collapse_probability_ > 0.9
    return (
        "fits; `noise_collapse_probability_` is near 1, and the noise is what the "
        "prior leaves"
    )


def outlier(model, params):
    assert model.noise_variance_ > 1e9
    return "fits; a Gaussian likelihood follows it: the noise and intervals widen"


def weights_fixed_tiny(model, params):
    close(
        model.predict(np.c_[X, X[:, 0]]), np.c_[np.ones(30), X] @ least_squares(), 0.01
    )
    return "fits; least squares, with the sd of their difference that of the prior"


def least_squares():
    return np.linalg.lstsq(np.c_[np.ones(30), X], Y, rcond=None)[0]


NAN = "contains NaN"
ROWS = [
    ("y constant", X, np.full(30, 7.0), {}, constant_target),
    ("a constant column", replaced(X, np.s_[:, 1], 0.1), Y, {}, constant_column),
    ("a duplicated column", np.c_[X, X[:, 0]], Y, {}, duplicated_column),
    (
        "a duplicated column, `weight_precision=1e-12`",
        np.c_[X, X[:, 0]],
        Y,
        {"weight_precision": 1e-12},
        weights_fixed_tiny,
    ),
    ("one row", X[:1], Y[:1], {}, one_row),
    ("two rows", X[:2], Y[:2], {}, two_rows),
    ("10 rows, 500 columns", WIDE, Y[:10], {}, wide),
    ("y * 1e-12", X, Y * 1e-12, {}, scaled(1e-12)),
    ("y * 1e12", X, Y * 1e12, {}, scaled(1e12)),
    (
        "one column * 1e6",
        X * [1, 1, 1e6, 1],
        Y,
        {},
        scaled_column(1e6),
    ),
    ("one column * 1e160", X * [1, 1, 1e160, 1], Y, {}, scaled_column(1e160)),
    ("X + 1e9", X + 1e9, Y, {}, shifted),
    ("y without noise", X, X @ [1.0, 2.0, 0.0, -1.0], {}, exact_fit),
    ("an outlier of 1e6 in y", X, replaced(Y, 3, 1e6), {}, outlier),
    ("NaN in X", replaced(X, (0, 0), np.nan), Y, {}, "Input X contains NaN"),
    ("infinity in X", replaced(X, (0, 0), np.inf), Y, {}, "Input X contains infinity"),
    ("NaN in y", X, replaced(Y, 0, np.nan), {}, "Input y contains NaN"),
    ("strings in X", np.full((30, 2), "a"), Y, {}, "could not convert string to float"),
    ("no rows", X[:0], Y[:0], {}, "Found array with 0 sample(s)"),
    ("no columns", X[:, :0], Y, {}, "Found array with 0 feature(s)"),
    ("complex X", X + 1j, Y, {}, "Complex data not supported"),
    ("y * 1e200", X, Y * 1e200, {}, "y has a standard deviation of"),
    (
        "one row under near-improper priors",
        X[:1],
        Y[:1],
        FLAT,
        "The data say nothing about the weights",
    ),
]
PARAMS = [
    {"posterior": posterior, "prior": prior}
    for posterior in ("structured", "mean_field")
    for prior in ("ridge", "ard")
]


def outcome(rows, target, extra, check):
    """The sentence for a row, after checking it for every posterior and prior."""
    sentences = set()
    for params in PARAMS:
        estimator = VariationalBayesianRegression(**params, **extra)
        if callable(check):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                estimator.fit(rows, target)
                usable(estimator, rows)
                sentences.add(check(estimator, params))
        elif extra and params != PARAMS[0]:
            continue  # only the exact posterior needs a proper prior there
        else:
            with pytest.raises(ValueError) as caught:
                estimator.fit(rows, target)
            assert check in str(caught.value)
            assert not hasattr(estimator, "coef_")
            sentences.add(f"`ValueError`: {check} ...")
    (sentence,) = sentences
    return sentence


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_hostile_input(row):
    title, *rest = row
    line = f"| {title} | {outcome(*rest)} |"
    if not os.environ.get("SKVI_WRITE_DOCS"):
        assert line in PAGE.read_text(encoding="utf-8").splitlines()


def test_the_page_has_exactly_these_rows():
    if os.environ.get("SKVI_WRITE_DOCS"):
        lines = [f"| {title} | {outcome(*rest)} |\n" for title, *rest in ROWS]
        PAGE.write_text(HEAD + "".join(lines), encoding="utf-8")
    table = [
        line
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line[:1] == "|"
    ]
    assert len(table) == len(ROWS) + 2
