"""Speech data: sources of clips, audit, features, and batches of windows. `sources` and `audit` load neither torch nor ray."""
