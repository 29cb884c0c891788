"""The hosts that the cluster tests stand on: apart where machines are apart, one where a cluster shares."""

import signal
from pathlib import Path

import hosts as fixture
from hosts import Hosts


def test_hosts_are_apart_and_see_each_other(tmp_path: Path) -> None:
    fixture.require()
    (tmp_path / "shared").write_text("same file system")
    with Hosts(folder=tmp_path / "a") as hosts, Hosts(("head",), folder=tmp_path / "b") as others:
        names = [host.run(["hostname"]).stdout.strip() for host in hosts]
        addresses = {host.run(["hostname", "-I"]).stdout.strip() for host in [*hosts, *others]}
        hosts["node1"].run(["touch", "/dev/shm/mine"])
        hosts["node1"].run(["touch", "/tmp/ray/mine"])
        seen = [host.run(["bash", "-c", f"ls /dev/shm /tmp/ray; cat {tmp_path / 'shared'}"]).stdout for host in hosts]
        looked_up = hosts["node1"].run(["getent", "hosts", "node3"]).stdout.split()
        server = hosts["node2"].start(["python3", "-m", "http.server", "8000"], log=tmp_path / "server.log")
        reach = "for try in $(seq 100); do (exec 3<>/dev/tcp/node2/8000) 2>/dev/null && exit 0; sleep 0.1; done; exit 1"
        reached = hosts["node1"].run(["bash", "-c", reach]).returncode
        hosts["node2"].signal(server, signal.SIGTERM)
        ended = server.wait(10)

    assert names == ["node1", "node2", "node3"]
    assert addresses == {host.ip for host in [*hosts, *others]} and len(addresses) == 4
    assert [text.count("mine") for text in seen] == [2, 0, 0] and all("same file system" in text for text in seen)
    assert looked_up == [hosts["node3"].ip, "node3"]
    assert reached == 0 and ended == -signal.SIGTERM


def test_a_killed_host_takes_its_processes_along_and_boots_again(tmp_path: Path) -> None:
    fixture.require()
    with Hosts(("one", "two"), folder=tmp_path) as hosts:
        lost, kept = (host.start(["sleep", "1000"]) for host in hosts)
        hosts["one"].run(["touch", "/dev/shm/volatile", "/tmp/ray/kept"])
        hosts["one"].kill()
        assert not hosts["one"].up and lost.wait(10) == -signal.SIGKILL
        hosts["one"].boot()
        seen = hosts["one"].run(["ls", "/dev/shm", "/tmp/ray"]).stdout
        assert kept.poll() is None
    assert "kept" in seen and "volatile" not in seen
    assert kept.wait(10) == -signal.SIGKILL
    assert not Path(f"/sys/class/net/{hosts.bridge}").exists()
