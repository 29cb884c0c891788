"""What a job asks of Slurm, and the folder that remembers it."""

import os
import subprocess
from pathlib import Path

import pytest

from wfc_dist.backends.slurm import submission
from wfc_dist.backends.slurm.submission import JobRecord, Resources
from wfc_dist.config.cluster import ClusterConfig
from wfc_dist.errors import ConfigError, IntegrityError

GOLDEN = Path(__file__).parent / "golden" / "slurm-job.sh"


def test_the_rendered_job_is_the_golden_one() -> None:
    from submitit.slurm.slurm import _make_sbatch_string

    slurm = {"partition": "gpu", "account": "speech", "time_min": 90, "mem_gb": 7.5, "setup": ["module load cuda"],
             "parameters": {"constraint": "a100", "nodes": 2, "ntasks-per-node": 1, "--exclusive": True}}  # fmt: skip
    cluster = ClusterConfig.model_validate(
        {"workers_per_trainer": 2, "cpus_per_worker": 3.5, "gpus_per_worker": 1, "slurm": slurm}
    )
    job = JobRecord(Path("/shared/my run/slurm/round-0001/train-a-1"), "wfc-x-round-0001-train-a-1f", "key")
    chosen = submission.parameters(cluster, job, submission.trainer_resources(cluster))
    assert _make_sbatch_string("python -m submitit", job.folder / "submitit", **chosen) == GOLDEN.read_text()


def test_what_sbatch_reads_from_the_environment_reaches_the_jobs_unless_it_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "long")
    monkeypatch.setenv("SBATCH_ACCOUNT", "speech")
    monkeypatch.delenv("SBATCH_QOS", raising=False)
    cluster = ClusterConfig.model_validate({"slurm": {"partition": "short"}})
    chosen = submission.parameters(cluster, JobRecord(Path("/x"), "name", "key"), submission.trainer_resources(cluster))
    assert (chosen["partition"], chosen["account"], chosen.get("qos")) == ("short", "speech", None)


def test_the_trainers_layout_is_theirs_alone() -> None:
    cluster = ClusterConfig.model_validate(
        {"workers_per_trainer": 4, "slurm": {"parameters": {"nodes": 2, "ntasks_per_node": 2}}}
    )
    job = JobRecord(Path("/x"), "name", "key")
    for resources in (submission.decoder_resources(cluster), submission.centralizer_resources(cluster)):
        chosen = submission.parameters(cluster, job, resources)
        assert (chosen["nodes"], chosen["ntasks_per_node"]) == (1, 1)
    with pytest.raises(ConfigError, match="nodes x ntasks-per-node = 4, but "):
        submission.parameters(cluster, job, Resources(3, 1, 0, spread=True))


def test_a_job_that_centralizes_takes_no_more_cores_than_it_can_use() -> None:
    for cores, ranks, expected in ((1.5, None, "1 x (2 CPU)"), (4, 2, "2 x (4 CPU)"), (64, 2, "2 x (4 CPU)")):
        cluster = ClusterConfig.model_validate({"cpus_per_worker": cores, "centralizer_ranks": ranks, "gpus_per_worker": 1})
        assert str(submission.centralizer_resources(cluster)) == expected
    assert str(submission.trainer_resources(cluster)) == "1 x (64 CPU, 1 GPU)"


def test_submissions_are_numbered_and_found_again(tmp_path: Path) -> None:
    first = submission.prepare(tmp_path, "train-a", "key", "run")
    second = submission.prepare(tmp_path, "train-a", "key", "run")
    submission.prepare(tmp_path, "train-a-b", "key", "run")  # a data set whose name begins alike
    assert [first.folder.name, second.folder.name] == ["train-a-1", "train-a-2"] and first.name != second.name
    assert submission.find(tmp_path, "train-a") == second
    assert submission.find(tmp_path, "train-b") is None


def test_the_environment_of_the_coordinators_own_job_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", "/etc/site.conf")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    with submission._outside_any_job():
        assert os.environ["SLURM_CONF"] == "/etc/site.conf" and "SLURM_NTASKS" not in os.environ
    assert os.environ["SLURM_NTASKS"] == "1"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "x"}', "\xff"])
def test_a_damaged_record_of_a_job_says_what_to_do(tmp_path: Path, text: str) -> None:
    folder = submission.prepare(tmp_path, "a", "key", "run").folder
    (folder / "job.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(IntegrityError, match=r"job\.json is damaged.*cancel the job.*squeue --me.* for a, remove .*run again"):
        submission.find(tmp_path, "a")


def test_nodes_that_are_left_out_are_excluded_beside_those_of_the_user() -> None:
    job, by_user = JobRecord(Path("/x"), "name", "key"), {"slurm": {"parameters": {"exclude": "node[7-9]"}}}
    for tree, exclude, expected in (
        (by_user, ["node1", "node3"], "node[7-9],node1,node3"), (by_user, [], "node[7-9]"),
        ({}, ["node1"], "node1"), ({}, [], None),
    ):  # fmt: skip
        cluster = ClusterConfig.model_validate(tree)
        chosen = submission.parameters(cluster, job, submission.trainer_resources(cluster), exclude)
        assert chosen["additional_parameters"].get("exclude") == expected


def test_the_last_words_are_those_of_the_process_or_else_of_its_script(tmp_path: Path) -> None:
    job = JobRecord(tmp_path, "name", "key")
    assert job.last_words() == ""
    (tmp_path / "batch.log").write_text("no module cuda\n\n")
    (tmp_path / "submitit").mkdir(exist_ok=True)
    (tmp_path / "submitit" / "7_0_log.out").touch()
    assert job.last_words() == "no module cuda"
    (tmp_path / "submitit" / "7_0_log.out").write_text("x" * 9000 + "\nTraceback\nImportError: libcudart\n")
    assert job.last_words() == "ImportError: libcudart"


@pytest.mark.process
@pytest.mark.parametrize(("mode", "code"), [(0o700, 0), (0o755, 0), (0o775, 67), (0o777, 67)])
def test_a_job_loads_no_pickle_from_a_folder_that_others_may_write(tmp_path: Path, mode: int, code: int) -> None:
    job = submission.prepare(tmp_path / "my run", "train-a", "key", "run")
    assert (job.folder / submission.PICKLES).stat().st_mode & 0o777 == 0o700
    (job.folder / submission.PICKLES).chmod(mode)
    cluster = ClusterConfig()
    setup = submission.parameters(cluster, job, submission.trainer_resources(cluster))["setup"]
    assert subprocess.run(["bash", "-c", "\n".join(setup)], check=False).returncode == code
