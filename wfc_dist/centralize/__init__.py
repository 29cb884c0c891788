"""Averages adapters with a collective and merges the average into a base."""
