"""Tensors and the files that hold them: adapters, the chain of bases, hashes."""
