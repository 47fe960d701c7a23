"""Column roles: found by name or index, taken out of the features, refused clearly."""

import re
import warnings

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from skvi.columns import (
    numeric_column,
    reject_missing,
    sequence_bounds,
    sequence_ids,
    sequence_slices,
    split_columns,
    validate_columns,
)

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

COLUMNS = {
    "age": [9.5, 8.0, 9.0, 7.0],
    "school": ["a", "b", "a", "c"],
    "dose": [1, 2, 3, 4],
    "hours": [0.5, 0.5, 1.0, 2.0],
}
FRAMES = {
    "pandas": lambda: pd.DataFrame(COLUMNS),
    "polars": lambda: pl.DataFrame(COLUMNS),
}


def objects():
    return np.array(list(zip(*COLUMNS.values(), strict=True)), dtype=object)


# Finding columns


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("school", ["school", 1, -3, np.int64(1)])
def test_a_frame_stays_a_frame(make, school):
    X = make()
    features, values, kept = split_columns(X, {"groups": school, "offset": "hours"})
    assert type(features) is type(X)
    assert list(features.columns) == ["age", "dose"]
    assert values["groups"].tolist() == ["a", "b", "a", "c"]
    assert values["offset"].dtype == np.float64
    assert_array_equal(values["offset"], COLUMNS["hours"])
    assert_array_equal(kept, [0, 2])


@pytest.mark.parametrize("X", [objects(), objects().tolist()], ids=["array", "list"])
def test_mixed_rows_keep_each_value_as_it_is(X):
    features, values, kept = split_columns(X, {"groups": 1, "exposure": -1})
    assert isinstance(features, np.ndarray)
    assert features.tolist() == [[9.5, 1], [8.0, 2], [9.0, 3], [7.0, 4]]
    assert values["groups"].tolist() == ["a", "b", "a", "c"]
    assert values["exposure"].tolist() == COLUMNS["hours"]
    assert_array_equal(kept, [0, 2])


def test_a_float_array_keeps_its_dtype_and_the_column_is_a_copy():
    X = np.arange(6, dtype=np.float32).reshape(3, 2)
    features, values, _ = split_columns(X, {"groups": 0})
    assert features.dtype == values["groups"].dtype == np.float32
    values["groups"][:] = -1
    assert X[0, 0] == 0


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "dia", "lil"])
@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csr_array])
def test_sparse(form, make):
    dense = np.array([[1.0, 0, 7], [0, 2, 8], [0, 0, 7]])
    features, values, _ = split_columns(make(dense).asformat(form), {"groups": -1})
    assert sparse.issparse(features)
    assert_array_equal(features.toarray(), dense[:, :2])
    assert_array_equal(values["groups"], [7, 8, 7])


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("spec", [["school", "dose"], ("school", 2), np.array([1, 2])])
def test_several_columns_are_a_list_and_keep_their_dtypes(make, spec):
    features, values, _ = split_columns(make(), {"groups": spec})
    school, dose = values["groups"]
    assert school.tolist() == COLUMNS["school"]
    assert dose.dtype == np.int64
    assert_array_equal(dose, COLUMNS["dose"])
    assert list(features.columns) == ["age", "hours"]


def test_one_column_in_a_list_is_a_list():
    _, values, _ = split_columns(FRAMES["pandas"](), {"groups": ["school"]})
    assert [column.tolist() for column in values["groups"]] == [COLUMNS["school"]]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, np.asarray, list])
def test_without_features_the_rows_remain(make):
    rows = {"g": [1, 2, 3]} if make in (pd.DataFrame, pl.DataFrame) else [[1], [2], [3]]
    features, values, kept = split_columns(make(rows), {"groups": 0})
    assert features.shape == (3, 0)
    assert len(kept) == 0
    assert_array_equal(values["groups"], [1, 2, 3])


def test_without_roles_X_is_passed_on_untouched():
    names = np.array(["a", "b"])
    for X in ([[1, 2]], np.ones(3), "nonsense"):
        features, values, kept = split_columns(X, {"groups": None, "offset": None})
        assert features is X
        assert values == {"groups": None, "offset": None}
        assert_array_equal(names[kept], names)


def test_dates_and_categories_survive():
    days = np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[s]")
    frame = pd.DataFrame({"x": [1.0, 2.0], "day": days, "c": ["u", "v"]})
    frame["c"] = frame["c"].astype("category")
    _, values, _ = split_columns(frame, {"sequence": "day", "groups": "c"})
    assert values["sequence"].dtype.kind == "M"
    assert values["groups"].tolist() == ["u", "v"]
    polars = pl.DataFrame(
        {"x": [1.0], "c": ["u"]}, schema_overrides={"c": pl.Enum("u")}
    )
    assert split_columns(polars, {"g": "c"}).values["g"].tolist() == ["u"]


def test_names_seen_in_fit_serve_an_array_without_names():
    names = list(COLUMNS)
    split = split_columns(objects(), {"groups": "school"}, feature_names_in=names)
    assert split.values["groups"].tolist() == COLUMNS["school"]


# Refusals


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize(
    ("roles", "error", "message"),
    [
        (
            {"groups": "scool"},
            ValueError,
            "groups='scool' is not a column of X; the columns seen are 'age', "
            "'school', 'dose', 'hours'.",
        ),
        (
            {"groups": 4},
            ValueError,
            "groups=4 is out of range: X has 4 columns; use an index from 0 to 3, or "
            "from -4 to -1",
        ),
        ({"offset": -5}, ValueError, "offset=-5 is out of range"),
        ({"groups": True}, TypeError, "groups must be the name (str) or the index"),
        ({"groups": [np.True_]}, TypeError, "of type bool"),
        ({"groups": 1.0}, TypeError, "got 1.0 of type float"),
        ({"groups": [None]}, TypeError, "got None of type NoneType"),
        ({"groups": []}, ValueError, "groups=[] names no column; use groups=None"),
        (
            {"groups": "dose", "offset": -2},
            ValueError,
            "offset=-2: column -2 (position 2 of X) already stands in groups='dose'",
        ),
        (
            {"groups": ["school", 1]},
            ValueError,
            "column 1 (position 1 of X) already stands in groups=['school', 1]",
        ),
    ],
)
def test_refusals(make, roles, error, message):
    with pytest.raises(error, match=re.escape(message)):
        split_columns(make(), roles)


@pytest.mark.parametrize(
    "X", [np.ones((3, 2)), sparse.csr_array(np.ones((3, 2))), [[1, 2], [3, 4]]]
)
def test_a_name_needs_column_names(X):
    with pytest.raises(
        ValueError, match=r"groups='g' names a column, but X \(.*\) has no column names"
    ):
        split_columns(X, {"groups": "g"})


def test_long_lists_of_names_are_cut():
    X = pd.DataFrame(np.zeros((1, 100)), columns=[f"c{j}" for j in range(100)])
    with pytest.raises(ValueError, match=r"'c28', 'c29', \.\.\. and 70 more"):
        split_columns(X, {"groups": "g"})


def test_a_name_of_two_columns_is_ambiguous():
    X = pd.DataFrame([[1, 2, 3]], columns=["g", "x", "g"])
    with pytest.raises(
        ValueError, match=r"name of 2 columns of X \(positions \[0, 2\]"
    ):
        split_columns(X, {"groups": "g"})


def test_names_that_are_not_strings_are_not_matched_by_index():
    X = pd.DataFrame([[1, 2, 3]], columns=[2, 1, 0])
    assert split_columns(X, {"groups": 0}).values["groups"] == [1]  # position, not name
    with pytest.raises(ValueError, match="the columns seen are 2, 1, 0"):
        split_columns(X, {"groups": "0"})


@pytest.mark.parametrize("X", [np.ones(3), [1, 2], np.ones((2, 2, 2))])
def test_a_role_needs_two_dimensions(X):
    with pytest.raises(ValueError, match=r"Expected 2D array, got [13]D array instead"):
        split_columns(X, {"groups": 0})


# In an estimator


class GroupMeans(RegressorMixin, BaseEstimator):
    """Predicts each group's mean of y, and the overall mean for a new group."""

    def __init__(self, groups=None, offset=None):
        self.groups = groups
        self.offset = offset

    def _check(self, X, y="no_validation", reset=True):
        return validate_columns(
            self, X, y, roles=["groups", "offset"], reset=reset, dtype=np.float64
        )

    def fit(self, X, y):
        split, y = self._check(X, y)
        groups = split.values["groups"]
        self.means_ = {g: y[groups == g].mean() for g in np.unique(groups)}
        self.mean_ = y.mean()
        self.features_ = split.features
        self.kept_ = split.kept
        return self

    def predict(self, X):
        check_is_fitted(self)
        split, _ = self._check(X, reset=False)
        return np.array(
            [self.means_.get(g, self.mean_) for g in split.values["groups"]]
        )


Y = np.array([1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_whole_X_sets_names_and_number_of_features(make):
    model = GroupMeans(groups="school").fit(make(), Y)
    assert model.n_features_in_ == 4
    assert model.feature_names_in_.tolist() == list(COLUMNS)
    assert model.feature_names_in_[model.kept_].tolist() == ["age", "dose", "hours"]
    assert model.features_.dtype == np.float64
    assert_array_equal(model.features_[:, 1], COLUMNS["dose"])
    assert_array_equal(model.predict(make()), [2, 2, 2, 4])


def test_mismatches_at_predict_are_scikit_learns_own():
    X = FRAMES["pandas"]()
    model = GroupMeans(groups="school").fit(X, Y)
    with pytest.raises(ValueError, match="seen at fit time, yet now missing:\n- age"):
        model.predict(X.drop(columns="age"))
    with pytest.raises(ValueError, match="must be in the same order"):
        model.predict(X[["school", "age", "dose", "hours"]])
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        assert_array_equal(model.predict(objects()), [2, 2, 2, 4])
    by_index = GroupMeans(groups=1).fit(objects(), Y)
    assert not hasattr(by_index, "feature_names_in_")
    with pytest.raises(
        ValueError, match="X has 3 features, but GroupMeans is expecting"
    ):
        by_index.predict(objects()[:, :3])


def test_features_are_checked_without_the_roles():
    model = GroupMeans()
    for make in FRAMES.values():
        with pytest.raises(ValueError, match="could not convert string to float"):
            model.fit(make(), Y)
    bad = objects()
    bad[2, 2] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        GroupMeans(groups=1).fit(bad, Y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        GroupMeans(groups=1).fit(objects(), Y[:3])
    with pytest.raises(ValueError, match="requires y to be passed"):
        GroupMeans(groups=1).fit(objects(), None)
    only_groups = pd.DataFrame({"g": [1, 2]})
    with pytest.raises(ValueError, match=r"Found array with 0 feature\(s\)"):
        GroupMeans(groups="g").fit(only_groups, [1, 2])


def test_a_failing_fit_loses_nothing():
    model = GroupMeans(groups="school").fit(FRAMES["pandas"](), Y)
    before = dict(vars(model))
    other = pd.DataFrame({"school": ["a", "b"], "x": [1.0, np.nan]})
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.fit(other, [1, 2])
    assert vars(model) == before


def test_without_roles_it_is_validate_data():
    numbers = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    model = GroupMeans()
    split, y = validate_columns(model, numbers, roles=["groups", "offset"])
    assert y is None
    assert_array_equal(split.features, numbers)
    assert model.feature_names_in_[split.kept].tolist() == ["a", "b"]
    for reset in (True, False):
        with pytest.raises(ValueError, match="Reshape your data"):
            validate_columns(model, [1.0, 2.0], roles=["groups"], reset=reset)
    with pytest.raises(
        ValueError, match="X has 3 features, but GroupMeans is expecting 2"
    ):
        validate_columns(
            GroupMeans().fit(np.ones((4, 2)), Y),
            np.ones((2, 3)),
            roles=["groups"],
            reset=False,
        )


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_roles_travel_through_pipeline_and_cross_validation(make):
    X = make()
    pipeline = make_pipeline(FunctionTransformer(), GroupMeans(groups="school"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prediction = cross_val_predict(
            pipeline, X, Y, cv=GroupKFold(2), groups=COLUMNS["school"]
        )
    # GroupKFold leaves no school in both parts: each gets the others' overall mean.
    assert_array_equal(prediction, [3, 2, 3, 2])


# What a column holds


def test_numeric_column():
    assert_array_equal(numeric_column(np.array([1, 2], dtype=object), "offset"), [1, 2])
    assert_array_equal(numeric_column(np.array([-1.0, 0]), "offset"), [-1, 0])
    message = (
        r"offset must name a column of finite numbers, got .*inf.* at row 1 \(and 1"
    )
    with pytest.raises(ValueError, match=message):
        numeric_column(np.array([1, np.inf, np.nan]), "offset")
    with pytest.raises(
        ValueError, match=r"finite positive numbers, got .*0\.0.* row 0"
    ):
        numeric_column(np.array([0.0, 1.0]), "exposure", positive=True)
    with pytest.raises(
        ValueError, match=r"exposure must name .*its values are not numb"
    ):
        numeric_column(np.array(["a", "b"]), "exposure")


@pytest.mark.parametrize(
    "ids",
    [
        [1.0, np.nan, np.nan],
        np.array(["a", None, None], dtype=object),
        np.array(["a", float("nan"), None], dtype=object),
        np.array(["a", pd.NA, pd.NaT], dtype=object),
        np.array(["2020-01-01", "NaT", "NaT"], dtype="datetime64[D]"),
    ],
    ids=["nan", "None", "object nan", "NA", "NaT"],
)
def test_missing_ids(ids):
    message = r"without missing values, got .* at row 1 \(and 1 more such rows\)"
    with pytest.raises(ValueError, match="groups must name a column of ids " + message):
        reject_missing(ids, "groups")
    with pytest.raises(
        ValueError, match="sequence must name a column of ids " + message
    ):
        sequence_bounds(ids)


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_missing_ids_of_frames(make):
    frame = make()
    X = type(frame)({"g": ["a", None], "k": [1, None], "x": [0.0, 1.0]})
    for role in ("g", "k"):
        column = split_columns(X, {"sequence": role}).values["sequence"]
        with pytest.raises(ValueError, match="at row 1"):
            sequence_slices(column)


# Sequences


@pytest.mark.parametrize("dtype", [int, np.uint8, list])
def test_sequence_ids(dtype):
    lengths = [3, 1, 2] if dtype is list else np.array([3, 1, 2], dtype=dtype)
    ids = sequence_ids(lengths)
    assert ids.dtype.kind == "i"
    assert_array_equal(ids, [0, 0, 0, 1, 2, 2])
    assert_array_equal(sequence_bounds(ids), [0, 3, 4, 6])


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 0, 2], "positive integers, got 0 at position 1; leave out"),
        ([-1], "positive integers, got -1 at position 0"),
        ([], r"sequence of positive integers, got \[\]; give the number of rows"),
        ([2.0, 3.0], r"got \[2.0, 3.0\]; give the number of rows of each sequence"),
        ([True, True], r"got \[True, True\]"),
        (5, "got 5"),
        ([[1, 2]], r"got \[\[1, 2\]\]"),
        (None, "got None"),
    ],
)
def test_sequence_ids_refuses(lengths, message):
    with pytest.raises(ValueError, match="lengths must be .*" + message):
        sequence_ids(lengths)


@pytest.mark.parametrize(
    "ids",
    [
        ["b", "b", "a", "c"],
        np.array(["b", "b", "a", "c"], dtype=object),
        [2.5, 2.5, -1.0, 7.0],
        np.array([2, 2, 1, 3]),
        np.array(["2020", "2020", "2019", "2021"], dtype="datetime64[Y]"),
        np.array([1, 1, "a", 2.5], dtype=object),
    ],
)
def test_sequence_slices(ids):
    assert sequence_slices(ids) == [slice(0, 2), slice(2, 3), slice(3, 4)]


def test_short_sequences():
    assert sequence_slices([7]) == [slice(0, 1)]
    assert sequence_slices([]) == []
    assert_array_equal(sequence_bounds([]), [0])


@pytest.mark.parametrize("dtype", [None, object])
def test_an_id_that_comes_back_is_an_error(dtype):
    message = re.escape(
        "sequence: id 'a' comes back at row 4, after another one; it stood at rows 0 "
        "to 1."
    )
    with pytest.raises(ValueError, match=message):
        sequence_slices(np.array(["a", "a", "b", "b", "a"], dtype=dtype))
    with pytest.raises(ValueError, match="patient: id 2 comes back at row 3"):
        sequence_bounds([1, 2, 3, 2, 2, 1], parameter="patient")
