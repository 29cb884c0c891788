"""The rounds on a Ray cluster."""
