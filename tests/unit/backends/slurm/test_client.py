"""What Slurm offers, and the words for what it does not."""

import pytest

from wfc_dist.backends.slurm import client
from wfc_dist.backends.slurm.client import Partition
from wfc_dist.errors import ConfigError

SITE = [Partition("debug", 60, True, "up"), Partition("long", None, False, "up"), Partition("old", None, False, "drain")]


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("1-02:30:00", 1590), ("04:00:00", 240), ("30:00", 30), ("15", 15), ("2-12", 3600), ("infinite", None), ("UNLIMITED", None)],
)
def test_times_as_slurm_writes_them(text: str, minutes: float | None) -> None:
    assert client.parse_minutes(text) == minutes


@pytest.mark.parametrize(
    ("partition", "time_min", "message"),
    [
        ("gpu", 10, "there is no partition 'gpu'; partitions here: debug (default), long, old"),
        ("old", 10, "partition old is drain"),
        (None, 61, "a time limit of 61 min is above partition debug's 60 min"),
        ("debug,gpu", 10, "there is no partition 'gpu'"),
        ("debug,old", 61, "a time limit of 61 min is above partition debug's 60 min"),
    ],
)
def test_a_partition_that_cannot_be_is_named_with_those_that_can(partition: str | None, time_min: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(").replace(")", r"\)")):
        client.check_partition(partition, time_min, SITE)


def test_a_partition_that_can_be() -> None:
    client.check_partition(None, 60, SITE)
    client.check_partition("long", 10_000, SITE)
    client.check_partition("debug,long", 10_000, SITE)
    client.check_partition("old, debug", 60, SITE)
    client.check_partition(None, 60, SITE[1:])  # no default: sbatch knows what else chooses
