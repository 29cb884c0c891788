"""`wfc analyze` on real (tiny) runs: also unfinished, also on object storage; the loss along the line."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from processes import wfc
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from wfc_dist.analysis.loss_line import END, alphas, loss_along
from wfc_dist.data.batching import DevWindows
from wfc_dist.data.sources import open_split
from wfc_dist.errors import InputError
from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths, read_base
from wfc_dist.weights import base_chain


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    tiny.make_dataset(root / "p", seed=9)
    protected = {"p": {"source": str(root / "p"), "splits": {"test": "test.jsonl"}}}
    config = tiny.make_config(root, rounds=[["a", "b"], ["c"]], evaluate={"protected": protected})
    wfc("run", config, "--plain")
    return root / "runs" / "tiny"


def test_the_command_says_writes_and_draws(finished: Path) -> None:
    done = wfc("analyze", finished, "--line", 4, "--clips", 2)

    page, numbers = (Path(line) for line in done.stdout.splitlines()[-2:])
    tree = json.loads(numbers.read_text())
    assert "weight decay" in done.stdout and "variance falls as 1/N" in done.stdout
    assert [round_["round_index"] for round_ in tree["rounds"]] == [1, 2] and not tree["notes"]
    assert {prior["steps"] for round_ in tree["rounds"] for prior in round_["prior"].values()} == {4}
    assert all(item["weight_norm"] > 0 and item["own_norm"] > 0 for item in tree["rounds"][0]["modules"].values())
    assert tree["line"]["alphas"] == [0, 0.5, 1, 1.5] and tree["line"]["splits"] == {
        "a": "dev",
        "b": "dev",
        "c": "dev",
        "p": "test",
    }
    assert "Loss along the update of round 2" in page.read_text()


def test_loss_along_the_line_ends_at_the_next_base(finished: Path) -> None:
    config, paths = Run(finished).config, RunPaths(finished)
    entry = read_base(finished, 1)
    assert entry is not None

    line = loss_along(config, entry[0], paths.delta(2), num_points=4, max_clips=2)

    for alpha, index in ((0, 1), (1, 2)):  # the model as a user loads it, with Transformers' own loss
        folder = paths.base(index)
        model, processor = WhisperForConditionalGeneration.from_pretrained(folder), WhisperProcessor.from_pretrained(folder)
        data = config.datasets["c"].model_copy(update={"max_clips": 2})
        windows = DevWindows(open_split("c", data, "dev"), config.train, processor)
        with torch.no_grad():
            loss = float(model(**windows.batch(0, len(windows.windows), 0, 1)).loss)
        # float32 logits, summed in another order
        assert line.losses["c"][line.alphas.index(alpha)] == pytest.approx(loss, rel=1e-5)
    assert line.best("c") in line.alphas and line.protected == ["p"]


def test_an_unfinished_run_is_analyzed_as_far_as_it_is(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    for folder in ("round-0002", "base-0002", "base-0001", "round-0001/delta", "round-0001/adapters/b"):
        shutil.rmtree(copy / folder)

    done = wfc("analyze", copy)
    refused = wfc("analyze", copy, "--line", 3, check=False)

    assert "round 1 is not finished: 1 of 2 adapters" in Path(done.stdout.splitlines()[-2]).read_text()
    assert refused.returncode == 2 and "no round has its update yet" in refused.stderr


def test_a_run_on_object_storage_is_fetched_and_its_analysis_published(finished: Path, tmp_path: Path) -> None:
    remote, cache = f"file://{tmp_path}/remote", tmp_path / "cache"
    wfc("run", finished.parents[1] / "config.yaml", f"run.dir={remote}", f"cluster.cache_dir={cache}", "--plain")
    shutil.rmtree(cache)
    cache.mkdir()

    done = wfc("analyze", f"{remote}/tiny", "--line", 2, "--clips", 1)

    published = tmp_path / "remote" / "tiny" / "report" / "analysis"
    assert {path.name for path in published.iterdir()} == {"index.html", "analysis.json"}
    assert f"{remote}/tiny/report/analysis/index.html" in done.stdout


def test_bad_input_is_one_message(finished: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((tmp_path,), "not a run directory"),
        ((f"file://{tmp_path}/nothing",), "is not a run"),
        ((finished, "--line", 1), "2 points or more"),
    ):
        done = wfc("analyze", *arguments, check=False)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    with pytest.raises(InputError, match="2 points or more"):
        alphas(1)
    assert alphas(3) == [0, END / 2, END]


def test_the_base_after_the_round_is_the_one_before_plus_the_update(finished: Path) -> None:
    """What alpha = 1 stands for: no tensor but the adapted ones differs."""
    before, after = (dict(base_chain.read_tensors(RunPaths(finished).base(index))) for index in (1, 2))
    delta = base_chain.read_delta(RunPaths(finished).delta(2))
    assert Run(finished).base().index == 2
    for name, tensor in after.items():
        module = name.removesuffix(".weight")
        wanted = before[name].double() + (delta[module].dense() if module in delta else 0)
        # base 1 was rounded to float32 once more than base 2, which is made from the root
        torch.testing.assert_close(tensor.double(), wanted, rtol=1e-6, atol=1e-7)
