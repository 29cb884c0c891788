"""Puts the parts together: a run from its configuration to its last base."""
