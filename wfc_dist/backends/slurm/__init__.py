"""The rounds as small Slurm jobs: one per adapter, one that centralizes, for sites where K nodes at once never come free."""
