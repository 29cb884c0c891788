#!/usr/bin/env python3
"""`wfc launch slurm` for a machine with wfc_dist, pydantic and PyYAML only: see wfc_dist/launch/submit_slurm.py."""

import sys

try:
    from wfc_dist.launch.submit_slurm import main
except ModuleNotFoundError as error:
    sys.exit(f"launch/submit_slurm.py needs wfc_dist, pydantic and PyYAML ({error}): pip install --no-deps -e . in the checkout")

if __name__ == "__main__":
    sys.exit(main(program=f"python {sys.argv[0]}"))
