"""The run directory. No other folder of the package knows where the files of a run lie."""
