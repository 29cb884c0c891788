"""One Slurm cluster for all tests here; they run one after another, never with `-n`."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import hosts
import pytest
from slurm_cluster import PROGRAMS, SlurmCluster


@pytest.fixture(scope="session")
def _slurm_session() -> Iterator[SlurmCluster]:
    hosts.require(*PROGRAMS)
    # not below pytest's own folder, which only its user can enter: the paths of sockets must be short, too
    with SlurmCluster(Path(tempfile.mkdtemp(prefix="wfc-slurm-"))) as cluster:
        yield cluster


@pytest.fixture
def slurm(_slurm_session: SlurmCluster) -> Iterator[SlurmCluster]:
    """A Slurm cluster of three nodes without jobs."""
    yield _slurm_session
    for host in _slurm_session.hosts:
        if not host.up:
            _slurm_session.boot_node(host.name)
    _slurm_session.cancel_all()
