"""Decoding, error rates with intervals, the matrix of rounds and test sets, and the report."""
