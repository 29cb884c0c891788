"""wfc_dist: continual learning of speech models by weight factorization and centralization, on clusters."""

__version__ = "0.1.0"
