"""Speech data: sources of clips, audit, features and windows. `sources` and `audit` load neither torch nor ray."""
