"""Shared test set-up: the optional real data, and one BLAS thread a worker."""

import os
from pathlib import Path

import pytest

# pytest-xdist already runs one worker a core. This must happen before numpy is
# imported, hence at import; processes that a test starts inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    for _name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    ):
        os.environ.setdefault(_name, "1")

DATA_VARIABLE = "SKVI_DATA"


def data_path(*parts):
    """Path inside the folder of optional data sets; skips the test without it.

    ``data_path("regression", "longley.npz")`` in a test or a fixture. Do not call
    it at import: pytest-xdist does not report modules that are skipped whole.
    """
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        pytest.skip(
            f"{DATA_VARIABLE} is not set: it names the folder of optional data sets"
        )
    folder = Path(folder)
    if not folder.is_dir():
        pytest.fail(f"{DATA_VARIABLE}={str(folder)!r} is not a folder")
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{DATA_VARIABLE} has no {'/'.join(parts)!r}")
    return path


@pytest.fixture(scope="session")
def skvi_data():
    """The folder of optional data sets (pathlib.Path), or a skipped test."""
    return data_path()


def _skip_reason(report):
    # (file, line, "Skipped: reason"); a list once it has come from a worker
    longrepr = getattr(report, "longrepr", None)
    if isinstance(longrepr, (tuple, list)) and len(longrepr) == 3:
        return str(longrepr[2]).removeprefix("Skipped: ")
    return ""


def pytest_terminal_summary(terminalreporter):
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum(_skip_reason(report).startswith(DATA_VARIABLE) for report in skipped)
    terminalreporter.write_line(
        f"{count} tests skipped for want of {DATA_VARIABLE} data"
    )
