#!/usr/bin/env python3
"""`wfc launch ray` for a machine with wfc_dist, pydantic, PyYAML and Ray only: see wfc_dist/launch/submit_ray.py."""

import sys

try:
    from wfc_dist.launch.submit_ray import main
except ModuleNotFoundError as error:
    sys.exit(
        f"launch/submit_ray.py needs wfc_dist, pydantic, PyYAML and ray[default] ({error}): "
        "pip install --no-deps -e . in the checkout"
    )

if __name__ == "__main__":
    sys.exit(main(program=f"python {sys.argv[0]}"))
