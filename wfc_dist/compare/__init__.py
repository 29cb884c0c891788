"""Systems side by side: every method of continual learning as runs of the same machinery, scored on the same sets."""
