"""Looks at a source of speech, and says how a configuration has to name it."""
