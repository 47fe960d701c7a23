"""Blocks of rows, and the one place where work over them runs in parallel."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cache, reduce
from operator import add

from joblib import Parallel, delayed, effective_n_jobs
from joblib.parallel import ThreadingBackend, get_active_backend
from sklearn.utils import gen_even_slices
from threadpoolctl import ThreadpoolController

N_CHUNKS = 16  # of neighbouring blocks: enough to keep the workers of a machine busy
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


def run_parallel(function, items, n_jobs=None, shared_memory=False):
    """``[function(item) for item in items]`` on joblib workers.

    With ``shared_memory`` the function writes into arrays of the caller, so workers are
    threads whatever the backend.

    Threads are preferred (the work is BLAS and nogil kernels), no backend is fixed, so
    ``joblib.parallel_config(backend=...)`` moves the same code to a cluster. Inside
    parallel threads BLAS itself is single-threaded.
    """
    items = list(items)
    n_workers = min(effective_n_jobs(n_jobs), len(items))
    if n_workers <= 1:
        return [function(item) for item in items]
    backend, _ = get_active_backend(prefer="threads")
    with _threadpools().limit(limits=1, user_api="blas"):
        if shared_memory or isinstance(backend, ThreadingBackend):
            # joblib looks for results every 10 ms: longer than many a pass takes.
            with ThreadPoolExecutor(n_workers) as pool:
                return list(pool.map(function, items))
        return Parallel(n_jobs=n_workers, prefer="threads")(
            delayed(function)(item) for item in items
        )


def run_in_turn(function, items, n_jobs=None):
    """Yield ``(item, function(item))``, holding no more results than there are workers.

    For results that are large, to be added to something in the order of the items. The
    function may write into arrays of the caller.
    """
    width = effective_n_jobs(n_jobs)
    for first in range(0, len(items), width):
        group = items[first : first + width]
        found = run_parallel(function, group, n_jobs, shared_memory=True)
        yield from zip(group, found)


def sum_over(function, items, n_jobs=None, shared_memory=False):
    """``function(item)`` added up over the items, in one order for any ``n_jobs``.

    With ``shared_memory`` the function writes into what the caller holds.
    """
    if len(items) == 1:
        return function(items[0])
    n_chunks = min(N_CHUNKS, len(items))  # so few sums are held at once
    chunks = [items[chunk] for chunk in gen_even_slices(len(items), n_chunks)]
    parts = run_parallel(
        lambda chunk: reduce(add, map(function, chunk)), chunks, n_jobs, shared_memory
    )
    return reduce(add, parts)


def map_reduce(function, n_rows, block_size, n_jobs=None):
    """Sum of ``function(slice of rows)`` over one contiguous chunk a worker."""
    n_workers = max(1, min(effective_n_jobs(n_jobs), n_rows // block_size))
    return reduce(
        add, run_parallel(function, gen_even_slices(n_rows, n_workers), n_jobs)
    )
