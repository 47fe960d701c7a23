"""Special functions of whole arrays, by the kernels where they are large."""

import numpy as np

from skvi.kernels import dirichlet


def _applied(function, x):
    x = np.ascontiguousarray(x, dtype=np.float64)
    out = np.empty_like(x)
    if x.size:
        function(x.ravel(), out.ravel())
    return out


def digamma(x):
    return _applied(dirichlet.digamma, x)


def gammaln(x):
    return _applied(dirichlet.gammaln, x)


def log(x):
    return _applied(dirichlet.log, x)
