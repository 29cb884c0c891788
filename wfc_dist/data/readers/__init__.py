"""Readers of corpora on disk: one function a format, (data set, value of `splits`) -> rows as written."""
