"""Merge methods: pure functions of factors, each with its source.

Every method takes `factors`, one module of each adapter, which may differ in r and alpha (not for `factor_mean`), and `weights`,
w_i >= 0 with sum 1; only `mean` and `factor_mean` get a weight of zero. `catalog` says what every option means, and its range.
"""
