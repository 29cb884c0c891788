"""The run directory: the only folder that knows where everything of a run lies."""
