#!/usr/bin/env python3
"""`wfc launch spot-notice` for a node with wfc_dist and Ray only: see wfc_dist/launch/drain_on_spot_notice.py."""

import sys

try:
    from wfc_dist.launch.drain_on_spot_notice import main
except ModuleNotFoundError as error:
    sys.exit(f"launch/drain_on_spot_notice.py needs wfc_dist ({error}): pip install --no-deps -e . in the checkout")

if __name__ == "__main__":
    main(program=f"python {sys.argv[0]}")
