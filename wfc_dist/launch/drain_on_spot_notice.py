"""Waits on an AWS spot node for the two-minute notice, then tells Ray to drain the node. Ray itself does not see the notice.

    wfc launch spot-notice HEAD_IP:6379 &

Then wfc checkpoints the training on this node and moves it (`cluster.on_drain=move`), or checkpoints everything and stops.
"""

import argparse
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

PROGRAM = "wfc launch spot-notice"
METADATA = "http://169.254.169.254"  # the instance's metadata service
SECONDS_LEFT = 110  # less than the 120 s of the notice, because it is polled every 5 s


def noticed(metadata: str) -> bool:
    """Returns whether the notice has come; False if the metadata service does not answer."""
    try:
        wanted = urllib.request.Request(
            f"{metadata}/latest/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        )
        with urllib.request.urlopen(wanted, timeout=5) as answer:
            session = answer.read().decode()
        query = urllib.request.Request(
            f"{metadata}/latest/meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": session}
        )
        with urllib.request.urlopen(query, timeout=5):
            return True
    except (urllib.error.URLError, OSError):  # 404 until the notice comes
        return False


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> None:
    """Entry point; the usage says `program`. The process becomes `ray drain-node` for the node on which it runs."""
    parser = argparse.ArgumentParser(prog=program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", metavar="HEAD_IP:6379")
    parser.add_argument("--metadata", default=METADATA, help="another metadata service, for tests")
    parser.add_argument("--every", type=float, default=5, metavar="SECONDS")
    options = parser.parse_args(arguments)
    while not noticed(options.metadata):
        time.sleep(options.every)
    os.environ["RAY_ADDRESS"] = options.address
    os.execvp("ray", [
        "ray", "drain-node", "--address", options.address, "--reason", "DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message", "spot instance taken back", "--deadline-remaining-seconds", str(SECONDS_LEFT),
    ])  # fmt: skip
