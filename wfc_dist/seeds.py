"""One seed a run, and seeds derived from it by name, so that nothing depends on the order in which they are asked for."""

import hashlib


def derived_seed(seed: int, *names: str | int) -> int:
    """Returns a 31-bit seed that depends on `seed` and every name, such as (1, "data", 2, "seame")."""
    text = "|".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") & 0x7FFFFFFF
