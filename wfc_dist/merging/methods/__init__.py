"""Merge methods: pure functions of factors, each with its source."""
