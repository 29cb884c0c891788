"""Averages adapters with collective operations and merges the average into a base."""
