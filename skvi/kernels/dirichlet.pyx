# cython: language_level=3, boundscheck=False, wraparound=False
# cython: cdivision=True, initializedcheck=False
"""Digamma and log Gamma of large arrays: several times the speed of scipy's."""

from libc.stdint cimport int64_t

cdef extern from "cells.h" nogil:
    void skvi_digamma_array(int64_t, const double*, double*)
    void skvi_lgamma_array(int64_t, const double*, double*)
    void skvi_exp_array(int64_t, const double*, double*)
    void skvi_log_array(int64_t, const double*, double*)


def digamma(const double[::1] x, double[::1] out):
    """The digamma function of positive numbers."""
    with nogil:
        skvi_digamma_array(x.shape[0], &x[0], &out[0])


def gammaln(const double[::1] x, double[::1] out):
    """The log of the Gamma function of positive numbers."""
    with nogil:
        skvi_lgamma_array(x.shape[0], &x[0], &out[0])


def exp(const double[::1] x, double[::1] out):
    """exp, its argument clipped to +-700."""
    with nogil:
        skvi_exp_array(x.shape[0], &x[0], &out[0])


def log(const double[::1] x, double[::1] out):
    """log of positive normal numbers."""
    with nogil:
        skvi_log_array(x.shape[0], &x[0], &out[0])
