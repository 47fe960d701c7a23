"""Blocks of rows, and the one place where work over them runs in parallel."""

from contextlib import nullcontext
from functools import cache, reduce
from operator import add

from joblib import Parallel, delayed, effective_n_jobs
from sklearn.utils import gen_even_slices
from threadpoolctl import ThreadpoolController

SMALL_MATRIX = 256  # rows of a factorisation that threads of BLAS only slow down


@cache
def _threadpools():
    """Found once: looking for the loaded libraries costs more than a small fit."""
    return ThreadpoolController()


def blas_threads(size):
    """A context in which work on matrices of this size has the threads it deserves."""
    if size > SMALL_MATRIX:
        return nullcontext()
    return _threadpools().limit(limits=1, user_api="blas")


def run_parallel(function, items, n_jobs=None):
    """``[function(item) for item in items]`` on joblib workers.

    Threads are preferred (the work is BLAS and nogil kernels), no backend is fixed, so
    ``joblib.parallel_config(backend=...)`` moves the same code to a cluster. Inside
    parallel threads BLAS itself is single-threaded.
    """
    items = list(items)
    n_workers = min(effective_n_jobs(n_jobs), len(items))
    if n_workers <= 1:
        return [function(item) for item in items]
    with _threadpools().limit(limits=1, user_api="blas"):
        return Parallel(n_jobs=n_workers, prefer="threads")(
            delayed(function)(item) for item in items
        )


def map_reduce(function, n_rows, block_size, n_jobs=None):
    """Sum of ``function(slice of rows)`` over one contiguous chunk a worker."""
    n_workers = max(1, min(effective_n_jobs(n_jobs), n_rows // block_size))
    return reduce(
        add, run_parallel(function, gen_even_slices(n_rows, n_workers), n_jobs)
    )
