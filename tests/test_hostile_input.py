"""What hostile input does: checked here, and written to docs/hostile_input.md.

Each row either fits, and its check says what holds, or raises one clear error. The
page is compared with what this test finds; set SKVI_WRITE_DOCS=1 to write it anew.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from skvi import (
    VariationalBayesianRegression,
    VariationalGaussianMixture,
    VariationalTopicModel,
)

PAGE = Path(__file__).parents[1] / "docs" / "hostile_input.md"
HEAD = """# Hostile input

What the estimators do with input that breaks naive code. The tables are written by
`tests/test_hostile_input.py`, which checks every sentence in them.
"""


@dataclass(frozen=True)
class Table:
    """A section of the page: rows of (title, X, y, parameters, check)."""

    make: type
    about: str
    params: list
    usable: Callable
    rows: list

    @property
    def head(self):
        return (
            f"\n## {self.make.__name__}\n\n{self.about}\n\n"
            "| input | what happens |\n| --- | --- |\n"
        )


# -- VariationalBayesianRegression -----------------------------------------------------

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
REGRESSION = Table(
    VariationalBayesianRegression,
    "With both posteriors and both priors.",
    [
        {"posterior": posterior, "prior": prior}
        for posterior in ("structured", "mean_field")
        for prior in ("ridge", "ard")
    ],
    usable,
    ROWS,
)


# -- VariationalGaussianMixture --------------------------------------------------------

GROUPS = np.repeat([0, 1, 2], [12, 18, 30])
Z = rng.standard_normal((60, 2)) + np.array([[0, 0], [20, 5], [-5, 20]])[GROUPS]
HOLES = replaced(Z, rng.random(Z.shape) < 0.2, np.nan)


def fitted(params, rows=Z):
    return VariationalGaussianMixture(**params).fit(rows)


def usable_density(model, rows):
    """Densities, probabilities, draws and the posterior's moments are numbers."""
    for values in (
        model.score_samples(rows),
        model.predict_proba(rows),
        model.sample(5)[0],
        model.sample_posterior(5, 0)["precisions"],
        model.means_,
        model.covariances_,
        model.means_covariance_,
        model.elbo_,
    ):
        assert np.all(np.isfinite(values))
    close(model.weights_.sum(), 1.0)
    assert model.converged_


def groups_found(labels, expected=GROUPS):
    assert adjusted_rand_score(expected, labels) == 1.0


def nothing_more(model, params):
    return "fits; all that is fitted is a number"


def same_row(row):
    def check(model, params):
        close(model.means_, np.tile(row, (3, 1)))
        return "fits; all means are that row"

    return check


def two_values(model, params):
    labels = model.predict([[1.0, 2.0], [50.0, 2.5]])
    assert labels[0] != labels[1]
    return "fits; each has a component"


def labels_stay(rows):
    def check(model, params):
        groups_found(model.predict(rows))
        return "fits; the labels are those without it"

    return check


def positive_definite(model, params):
    if model.covariances_.ndim > 1 and params["covariance_type"] in ("full", "tied"):
        assert np.all(np.linalg.eigvalsh(model.covariances_) > 0.0)
    else:
        assert np.all(model.covariances_ > 0.0)
    return "fits; covariances are positive definite"


def in_units(factor):
    def check(model, params):
        here = fitted(params)
        assert np.array_equal(model.predict(Z * factor), here.predict(Z))
        close(model.elbo_, here.elbo_ - Z.size * np.log(factor))
        return "fits; the labels are the same, the ELBO moved by -n D log c"

    return check


def far_away(model, params):
    groups_found(model.predict(Z + FAR))
    close(model.means_ - FAR, fitted(params).means_, 1e-4)
    return "fits; the same labels, and means up to the rounding of the shifted numbers"


def own_component(model, params):
    labels = model.predict(replaced(Z, 3, 1e6))
    assert np.sum(labels == labels[3]) == 1
    assert len(np.unique(np.delete(labels, 3))) == 1
    return (
        "fits; it is a component, and the rest is one, too: scales and priors are "
        "those of all rows"
    )


def holes(model, params):
    known = ~np.isnan(HOLES).any(axis=1)
    groups_found(model.predict(Z[known]), GROUPS[known])
    return "fits; they are integrated out, and the groups are found"


def unknown_row(model, params):
    close(model.predict_proba(np.full((1, 2), np.nan))[0], model.weights_)
    groups_found(model.predict(Z))
    return "fits; its components have the probabilities of their weights"


FAR = 1e8 * Z.std(axis=0)
MIXTURE = Table(
    VariationalGaussianMixture,
    "Three components, with all covariance types and both posteriors.",
    [
        {
            "n_components": 3,
            "covariance_type": covariance_type,
            "posterior": posterior,
            "random_state": 0,
        }
        for covariance_type in ("full", "tied", "diag", "spherical")
        for posterior in ("structured", "mean_field")
    ],
    usable_density,
    [
        ("one row", Z[:1], None, {}, same_row(Z[0])),
        ("two rows", Z[:2], None, {}, nothing_more),
        ("identical rows", np.full((20, 2), 0.1), None, {}, same_row([0.1, 0.1])),
        ("rows of zeros", np.zeros((20, 2)), None, {}, same_row([0.0, 0.0])),
        (
            "two different rows, ten times each",
            np.repeat([[1.0, 2.0], [50.0, 2.5]], 10, axis=0),
            None,
            {},
            two_values,
        ),
        ("one column", Z[:, :1], None, {}, nothing_more),
        (
            "a constant column",
            np.c_[Z, np.full(60, 0.1)],
            None,
            {},
            labels_stay(np.c_[Z, np.full(60, 0.1)]),
        ),
        (
            "a column that is the sum of others",
            np.c_[Z, Z.sum(axis=1)],
            None,
            {},
            labels_stay(np.c_[Z, Z.sum(axis=1)]),
        ),
        ("8 rows, 40 columns", WIDE[:8, :40], None, {}, positive_definite),
        ("X * 1e-150", Z * 1e-150, None, {}, in_units(1e-150)),
        ("X * 1e-8", Z * 1e-8, None, {}, in_units(1e-8)),
        ("X * 1e150", Z * 1e150, None, {}, in_units(1e150)),
        ("X + 1e8 standard deviations", Z + FAR, None, {}, far_away),
        ("a row at 1e6", replaced(Z, 3, 1e6), None, {}, own_component),
        ("a fifth of the entries NaN", HOLES, None, {}, holes),
        (
            "a row that is all NaN",
            np.r_[Z, [[np.nan, np.nan]]],
            None,
            {},
            unknown_row,
        ),
        (
            "a column that is all NaN",
            replaced(Z, np.s_[:, 1], np.nan),
            None,
            {},
            "Column(s) [1] of X hold no number at all (only NaN): drop them",
        ),
        (
            "infinity in X",
            replaced(Z, (0, 0), np.inf),
            None,
            {},
            "Input X contains infinity",
        ),
        (
            "strings in X",
            np.full((30, 2), "a"),
            None,
            {},
            "could not convert string to float",
        ),
        ("complex X", Z + 1j, None, {}, "Complex data not supported"),
        ("no rows", Z[:0], None, {}, "Found array with 0 sample(s)"),
        ("no columns", Z[:, :0], None, {}, "Found array with 0 feature(s)"),
    ],
)


# -- VariationalTopicModel -------------------------------------------------------------

SUBJECT = np.arange(40) % 2
WORDS = rng.poisson(np.where(SUBJECT[:, None] == np.arange(8) // 4, 6.0, 0.1))
WORDS = WORDS.astype(float)


def usable_topics(model, rows):
    """Topics, proportions, perplexities and draws are numbers."""
    close(model.components_.sum(axis=1), 1.0)
    close(model.transform(rows).sum(axis=1), 1.0)
    for values in (
        model.components_std_,
        model.doc_topic_posterior(rows).interval(0.9),
        model.perplexity(rows, method="elbo"),
        model.sample_posterior(5, 0)["topics"],
        model.elbo_,
    ):
        assert np.all(np.isfinite(values))
    assert model.converged_


def topics_of(params, rows=WORDS):
    return VariationalTopicModel(**params).fit(rows)


def subjects_found(model, rows=WORDS):
    assert adjusted_rand_score(SUBJECT, model.transform(rows).argmax(axis=1)) == 1.0


def prior_of_empty(model, params):
    rows = np.r_[WORDS, np.zeros((3, 8))]
    alpha = model.doc_topic_prior_
    close(model.transform(rows)[-3:], np.tile(alpha / alpha.sum(), (3, 1)))
    subjects_found(model, rows[:40])
    close(model.elbo_, topics_of(params).elbo_)
    return "fits; they have the prior's proportions, and the rest is as without them"


def unseen_word(model, params):
    assert np.all(model.components_[:, 8] < 0.1)
    subjects_found(model, np.c_[WORDS, np.zeros(40)])
    return "fits; all topics give it what the prior does"


def same_as_dense(model, params):
    close(model.elbo_, topics_of(params).elbo_, 1e-12)
    return "fits; the same as the sums, dense"


def same_proportions(model, params):
    theta = model.transform(WORDS[:1])
    close(model.transform(np.tile(WORDS[:1], (30, 1))), np.tile(theta, (30, 1)))
    return "fits; they have the same proportions"


def huge_count(model, params):
    assert model.transform(replaced(WORDS, (0, 0), 1e4))[0].max() > 0.99
    assert model.components_[:, 0].max() > 0.9
    return "fits; the word has a topic to itself"


def stored_twice():
    half = np.floor(WORDS / 2.0)
    parts = np.c_[half, WORDS - half].ravel()
    return sparse.csr_array(
        (parts, np.tile(np.arange(8), 80), 16 * np.arange(41)), shape=(40, 8)
    )


def fractions(model, params):
    subjects_found(model, WORDS / 3.0)
    with pytest.raises(ValueError, match="not whole numbers"):
        model.sample_posterior(5, 0, X=WORDS / 3.0)
    return "fits; as counts do, but there are no tokens whose topics could be drawn"


NO_WORD = "X holds no word at all"
TOPICS = Table(
    VariationalTopicModel,
    "Two topics, with both posteriors, the structured one in both of its forms.",
    [
        {"n_components": 2, "random_state": 0, **form}
        for form in (
            {"posterior": "structured"},
            {"posterior": "structured", "memory_budget": 0.0},
            {"posterior": "mean_field"},
        )
    ],
    usable_topics,
    [
        ("one document", WORDS[:1], None, {}, nothing_more),
        ("one document of one word", np.eye(8)[:1], None, {}, nothing_more),
        ("two documents", WORDS[:2], None, {}, nothing_more),
        ("one column", WORDS[:, :1] + 1.0, None, {}, nothing_more),
        (
            "the same document 30 times",
            np.tile(WORDS[:1], (30, 1)),
            None,
            {},
            same_proportions,
        ),
        ("empty documents", np.r_[WORDS, np.zeros((3, 8))], None, {}, prior_of_empty),
        ("a word of no document", np.c_[WORDS, np.zeros(40)], None, {}, unseen_word),
        ("a count of 1e4", replaced(WORDS, (0, 0), 1e4), None, {}, huge_count),
        ("numbers that are not whole", WORDS / 3.0, None, {}, fractions),
        ("a count of 1e9", replaced(WORDS, (0, 0), 1e9), None, {}, nothing_more),
        (
            "sparse X, entries stored in two parts",
            stored_twice(),
            None,
            {},
            same_as_dense,
        ),
        ("documents that are all empty", np.zeros((5, 8)), None, {}, NO_WORD),
        (
            "negative counts",
            replaced(WORDS, (0, 0), -1.0),
            None,
            {},
            "Negative values in data",
        ),
        ("NaN in X", replaced(WORDS, (0, 0), np.nan), None, {}, "Input X contains NaN"),
        (
            "infinity in X",
            replaced(WORDS, (0, 0), np.inf),
            None,
            {},
            "Input X contains infinity",
        ),
        (
            "strings in X",
            np.full((30, 2), "a"),
            None,
            {},
            "could not convert string to float",
        ),
        ("complex X", WORDS + 1j, None, {}, "Complex data not supported"),
        ("no rows", WORDS[:0], None, {}, "Found array with 0 sample(s)"),
        ("no columns", WORDS[:, :0], None, {}, "Found array with 0 feature(s)"),
    ],
)


# -- the page --------------------------------------------------------------------------

TABLES = [REGRESSION, MIXTURE, TOPICS]
EVERY_ROW = [(table, *row) for table in TABLES for row in table.rows]


def outcome(table, title, rows, target, extra, check):
    """The line of a row, after checking it for all of the table's parameters."""
    sentences = set()
    for params in table.params:
        estimator = table.make(**params, **extra)
        if callable(check):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                estimator.fit(rows, target)
                table.usable(estimator, rows)
                sentences.add(check(estimator, params))
        elif extra and params != table.params[0]:
            continue  # only the exact posterior needs a proper prior there
        else:
            with pytest.raises(ValueError) as caught:
                estimator.fit(rows, target)
            assert check in str(caught.value)
            assert not hasattr(estimator, "elbo_")
            sentences.add(f"`ValueError`: {check} ...")
    (sentence,) = sentences
    return f"| {title} | {sentence} |"


def lines_of_page():
    return PAGE.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    "row", EVERY_ROW, ids=[f"{row[0].make.__name__}-{row[1]}" for row in EVERY_ROW]
)
def test_hostile_input(row):
    line = outcome(*row)
    if not os.environ.get("SKVI_WRITE_DOCS"):
        section = "\n".join(lines_of_page()).split("\n## ")
        (section,) = [s for s in section if s.startswith(row[0].make.__name__)]
        assert line in section.splitlines()


def test_the_page_has_exactly_these_rows():
    if os.environ.get("SKVI_WRITE_DOCS"):
        text = HEAD
        for table in TABLES:
            text += table.head
            text += "".join(outcome(table, *row) + "\n" for row in table.rows)
        PAGE.write_text(text, encoding="utf-8")
    lines = [line for line in lines_of_page() if line[:1] == "|"]
    assert len(lines) == len(EVERY_ROW) + 2 * len(TABLES)
