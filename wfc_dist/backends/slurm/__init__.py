"""Runs rounds as small Slurm jobs: one per adapter and one that centralizes. For sites where K nodes are never free together."""
