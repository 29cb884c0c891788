"""Merge methods: pure functions of factors, each with its source.

Every method takes `factors`, one module of each adapter, and `weights`, w_i >= 0 with sum 1. The adapters may differ in r and
alpha, except for `factor_mean`. Only `mean` and `factor_mean` are called with weights of zero. `catalog` has the meaning and the
range of every option.
"""
