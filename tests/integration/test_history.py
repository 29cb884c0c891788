"""`wfc rollback`, `forget`, `remerge` and `gc` on a run of three rounds: what they make, and that nothing committed is lost."""

import shutil
from pathlib import Path

import pytest
import tiny
import torch
from processes import wfc

from wfc_dist import load_config, merge, open_run, rebuild, run
from wfc_dist.coordinator import history
from wfc_dist.coordinator.garbage import collect_garbage
from wfc_dist.coordinator.verify import verify_run
from wfc_dist.errors import ConfigError, InputError, RunLockedError
from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths
from wfc_dist.runs.opening import locked
from wfc_dist.weights import base_chain, peft_folder
from wfc_dist.weights.hashing import content_sha256


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("history")
    train = {"max_steps": 2, "lr": 1e-2, "checkpoint_every": 1, "warmup_steps": 1}
    path = tiny.make_config(root, (("a", "b"), ("c", "d"), ("e",)), train=train, evaluate={"adapters": False})
    run(load_config(path))
    shutil.copytree(root / "runs", root / "as-it-was", symlinks=True)
    return path


@pytest.fixture
def old(config: Path) -> Run:
    """Returns the run as it was, alone in its folder; a test may change it."""
    shutil.rmtree(config.parent / "runs")
    shutil.copytree(config.parent / "as-it-was", config.parent / "runs", symlinks=True)
    return open_run(config.parent / "runs" / "tiny")


def means(adapters: list[Path]) -> dict[str, torch.Tensor]:
    """Returns module -> mean of the adapters' updates in float64, computed from their files."""
    loaded = [peft_folder.read_factors(folder) for folder in adapters]
    return {
        module: torch.stack([
            item[module].scaling * item[module].b_OR.double() @ item[module].a_RI.double() for item in loaded
        ]).mean(0)
        for module in loaded[0]
    }  # fmt: skip


def test_without_a_set_the_chain_is_the_sum_of_the_means_of_the_others(old: Run) -> None:
    before = {path: path.read_bytes() for path in old.path.rglob("*") if path.is_file() and path.name != "lock"}

    branch = history.forget(old.path, "b")

    made = open_run(branch.path)
    assert [list(base.adapters) for base in made.bases] == [[], ["a"], ["c", "d"], ["e"]]
    updates = [means([old.paths.adapter(index, name) for name in names]) for index, names in ((1, "a"), (2, "cd"), (3, "e"))]
    root = Path(old.base(0).facts["root"])
    where = base_chain.weight_map(root)
    merged = base_chain.weight_map(made.base(3).path)
    for module in updates[0]:
        name = f"{module}.weight"
        expected = base_chain.read_tensor(where[name], name).double() + sum(update[module] for update in updates)
        torch.testing.assert_close(base_chain.read_tensor(merged[name], name).double(), expected, rtol=0, atol=2e-7)
    assert branch.grafted == [("c", 2), ("d", 2), ("e", 3)]
    assert branch.left_out == [("b", 1)]
    assert branch.same == 0
    assert made.base(2).facts["grafted"] == {"c": old.base(1).sha256, "d": old.base(1).sha256}
    assert "trained against another base" in (made.paths.base(2) / "README.md").read_text()
    assert verify_run(branch.path, deep=True).damaged == {}
    assert {path: path.read_bytes() for path in before} == before, "the old run has changed"

    last = run(load_config(branch.config))  # scores what is new
    assert last.sha256 == branch.base.sha256
    assert {scores.model for scores in made.scores()} == {f"base-{index:04d}" for index in range(4)}


def test_retrained_later_rounds_know_nothing_of_the_set(old: Run, tmp_path: Path) -> None:
    branch = history.forget(old.path, "d", name="anew", retrain=True)

    assert (branch.base.index, branch.same, branch.grafted) == (2, 1, [])
    assert branch.left_out == [("d", 2), ("e", 3)]
    last = run(load_config(branch.config))
    rounds = "rounds=[[a,b],[c],[e]]"
    assert last.sha256 == run(load_config(branch.config, [rounds, f"run.dir={tmp_path / 'other'}", "run.name=tiny"])).sha256


def test_another_merge_of_one_round_leaves_the_earlier_ones(old: Run) -> None:
    branch = history.remerge(old.path, 2, {"method": "ties", "options": {"density": 0.5}, "scale": 0.7})

    made = open_run(branch.path)
    assert [base.facts.get("method") for base in made.bases] == [None, "mean", "ties", "mean"]
    assert made.base(2).facts["options"] == {"density": 0.5}
    assert made.base(2).facts["scale"] == 0.7
    assert made.base(1).sha256 == old.base(1).sha256
    assert branch.grafted == [("e", 3)]
    assert verify_run(branch.path, deep=True).damaged == {}
    shutil.rmtree(made.paths.delta(2))
    verify_run(branch.path, repair=True)
    assert verify_run(branch.path, deep=True).damaged == {}, "a round is made anew as it was merged"


@pytest.mark.parametrize("to", [0, 1])
def test_after_a_rollback_the_same_command_makes_the_same_bytes(old: Run, to: int) -> None:
    shas = [base.sha256 for base in old.bases]
    scored = {scores.model: scores.sets for scores in old.scores() if (scores.base_index or 0) <= to}

    aside = history.rollback(old.path, to)

    assert aside is not None
    assert [base.sha256 for base in old.bases] == shas[: to + 1]
    assert {scores.model: scores.sets for scores in old.scores()} == scored
    assert RunPaths(aside).adapter(3, "e").is_dir(), "what was committed is still there"
    assert verify_run(old.path).damaged == {}
    run(old.config)
    assert [base.sha256 for base in old.bases] == shas


def test_after_a_rollback_later_rounds_may_change_and_earlier_ones_may_not(old: Run, config: Path) -> None:
    shas = [base.sha256 for base in old.bases]
    history.rollback(old.path, 1)

    def changed(*overrides: str) -> None:
        run(load_config(config, overrides))

    with pytest.raises(ConfigError, match="rounds"):
        changed("rounds=[[a],[b,c],[d,e]]")
    with pytest.raises(ConfigError, match=r"base\.dtype"):
        changed("base.dtype=float16")
    changed("rounds=[[a,b],[e],[c,d]]", "centralize.scale=0.5")
    assert [base.sha256 for base in old.bases][:2] == shas[:2]
    assert [list(base.adapters) for base in old.bases] == [[], ["a", "b"], ["e"], ["c", "d"]]
    assert old.base(2).facts["scale"] == 0.5
    with pytest.raises(ConfigError, match=r"centralize\.scale"):
        changed("rounds=[[a,b],[e],[c,d]]", "centralize.scale=1.0")
    shutil.rmtree(old.paths.delta(1))
    changed("rounds=[[a,b],[e],[c,d]]", "centralize.scale=0.5")
    assert verify_run(old.path, deep=True).damaged == {}, "round 1 is made anew with the scale that it had"


def test_an_update_can_be_merged_into_base_0_which_is_a_pointer(old: Run, tmp_path: Path) -> None:
    merged = merge(old.paths.base(0), old.paths.delta(1), tmp_path / "merged")
    assert content_sha256(base_chain.hash_tensors(merged)) == old.base(1).sha256


def test_garbage_is_shown_then_freed_and_the_run_stays_whole(old: Run) -> None:
    history.rollback(old.path, 2)
    (old.paths.adapters(1) / "a.tmp-damaged-3").mkdir()
    shas = [base.sha256 for base in old.bases]

    shown = wfc("gc", old.path).stdout

    assert "rolled-back-" in shown
    assert "--free removes it" in shown
    whys = {item.path.name: item.why for item in collect_garbage(old.path)}
    assert whys["a.tmp-damaged-3"] == "a damaged adapter or ledger, set aside"
    assert sum(item.num_bytes for item in collect_garbage(old.path)) > 10_000
    collect_garbage(old.path, free=True)
    assert collect_garbage(old.path) == []
    assert [base.sha256 for base in old.bases] == shas
    assert verify_run(old.path).damaged == {}


def test_what_cannot_be_done_is_refused(old: Run) -> None:
    with pytest.raises(InputError, match="no base 4 to go back to; its bases are 0 to 3"):
        history.rollback(old.path, 4)
    with pytest.raises(InputError, match=r"no merged round of .* has learned 'x'; its bases hold a, b, c, d, e"):
        history.forget(old.path, "x")
    with pytest.raises(InputError, match="has not merged round 4; its merged rounds are 1 to 3"):
        history.remerge(old.path, 4, {})
    with pytest.raises(ConfigError, match="method"):
        history.remerge(old.path, 1, {"method": "average"})
    history.remerge(old.path, 1, {"method": "ties"}, name="once")
    with pytest.raises(ConfigError, match="exists; give another name"):
        history.remerge(old.path, 1, {"method": "ties"}, name="once")
    (old.path.parent / "once" / "config.yaml").unlink()  # it is written last
    with (
        locked(RunPaths(old.path.parent / "once")),
        pytest.raises(RunLockedError, match="is written by another process; wait for it"),
    ):
        history.remerge(old.path, 1, {"method": "ties"}, name="once")
    with pytest.raises(ConfigError, match="or remove it if it is a branch that was cut off"):
        history.remerge(old.path, 1, {"method": "ties"}, name="once")
    with pytest.raises(InputError, match="fitted by decoding"):
        history.remerge(old.path, 1, {"weights": "fitted"})
    with pytest.raises(InputError, match="on object storage"):
        history.rollback("s3://bucket/run", 1)


def test_the_commands_say_what_was_and_was_not_undone(old: Run) -> None:
    said = " ".join(wfc("forget", old.path, "d").stdout.split())

    assert "trained against bases that held d, and merged as they are: e of round 3" in said
    assert "--retrain trains them again" in said
    assert "left out: d of round 2" in said
    assert f"wfc run {old.path.parent / 'tiny-without-d' / 'config.yaml'}" in said
    assert "trained against bases" not in wfc("forget", old.path, "e").stdout


def test_a_moved_run_without_its_root_makes_the_root_anew_and_is_whole(old: Run, config: Path, tmp_path: Path) -> None:
    moved, root, away = tmp_path / "moved", config.parent / "model", config.parent / "away"
    sha256 = old.base(0).sha256
    shutil.copytree(old.path, moved, symlinks=True)
    root.rename(away)
    try:
        assert "restore it there, or see docs/run-directory.md" in verify_run(moved).damaged["base-0000"]
        made = rebuild(moved, 0, moved / "root")
        assert made.sha256 == sha256 == content_sha256(base_chain.hash_tensors(moved / "root"))
        assert verify_run(moved, deep=True).damaged == {}
        merged = merge(moved / "base-0000", moved / "round-0001" / "delta", tmp_path / "merged")
        assert content_sha256(base_chain.hash_tensors(merged)) == old.base(1).sha256
    finally:
        away.rename(root)


def test_a_copy_and_a_run_that_was_moved_are_changed_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = {"max_clips": 1, "adapters": False}
    config = tiny.make_config(tmp_path, rounds=[["a"], ["b"]], train={"max_steps": 2}, evaluate=evaluate)
    wfc("run", config)
    original = tmp_path / "runs" / "tiny"
    shas, before = [base.sha256 for base in open_run(original).bases], (original / "ledger.jsonl").read_bytes()
    copy, far = shutil.copytree(original, tmp_path / "copies" / "mine", symlinks=True), tmp_path / "far"
    far.mkdir()
    monkeypatch.chdir(far)

    with open(open_run(copy).paths.delta(2) / "delta.safetensors", "r+b") as file:
        file.truncate(100)
    assert verify_run(copy, repair=True, deep=True).damaged == {}
    branch = history.forget(copy, "b")
    assert branch.path == copy.with_name("mine-without-b") and verify_run(branch.path, deep=True).damaged == {}
    history.rollback(copy, 1)
    assert [base.sha256 for base in open_run(copy).bases] == shas[:2]
    wfc("run", config, f"run.dir={copy.parent}", "run.name=mine")
    assert [base.sha256 for base in open_run(copy).bases] == shas
    assert (original / "ledger.jsonl").read_bytes() == before and [base.sha256 for base in open_run(original).bases] == shas
    assert not list(far.iterdir()) and [path.name for path in original.parent.iterdir()] == ["tiny"]

    (tmp_path / "model").rename(tmp_path / "elsewhere")
    rebuild(copy, 0, copy / "root")
    history.rollback(copy, 1)
    wfc("run", config, f"run.dir={copy.parent}", "run.name=mine")
    assert [base.sha256 for base in open_run(copy).bases] == shas, "with the root model that the run brings along"
    (tmp_path / "elsewhere").rename(tmp_path / "model")

    moved = original.rename(tmp_path / "moved")
    history.rollback(moved, 0)
    assert open_run(moved).num_bases == 1 and not original.exists()
    shutil.copytree(moved, tmp_path / "a b", symlinks=True)
    with pytest.raises(InputError, match=r"is a copy of moved under a name that no run can have"):
        history.rollback(tmp_path / "a b", 0)
