"""`wfc audit` and `wfc run` over a mix of every reader, killed once and started again: the same base, to the byte."""

from pathlib import Path

import pytest
import tiny
import yaml
from processes import kill_tree, start_wfc, wait_for, wfc
from unit.data.readers.test_documented import MAKERS, documented, path_with_programs

from wfc_dist.data.sources import READERS
from wfc_dist.runs.handle import Run


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict]]:
    """Every corpus of the table in docs/data.md, in a folder of its own, and the blocks that the table has for them."""
    folder = tmp_path_factory.mktemp("corpora")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        blocks = {}
        for number, (title, text) in enumerate(documented().items()):
            name, block = f"part-{number:02d}", yaml.safe_load(text)
            (folder / name).mkdir()
            MAKERS[title](Path(name))
            blocks[name] = block | {"source": str(folder / name), "splits": {"train": block["splits"]["train"]}}
    return folder, blocks


@pytest.mark.slow
def test_a_run_over_every_reader_goes_on_after_a_kill(corpora, tmp_path: Path) -> None:
    folder, parts = corpora
    assert {block.get("format", "jsonl") for block in parts.values()} == set(READERS)
    config = tiny.make_config(tmp_path, [["a"]])
    tree = yaml.safe_load(config.read_text())
    tree["datasets"]["all"] = {"format": "mix", "splits": {"train": "train"}, "parts": parts}
    tree |= {"rounds": [["all", "a"]], "cluster": {"backend": "in_process"}}
    tree["train"] |= {"max_steps": 4, "checkpoint_every": 2, "packing": True}
    config.write_text(yaml.safe_dump(tree, sort_keys=False))
    environment = {"XDG_CACHE_HOME": str(folder / "caches"), "HF_DATASETS_CACHE": str(folder / "datasets"), "COLUMNS": "200"}
    environment["PATH"] = path_with_programs(folder)

    said = wfc("audit", config, "--deep", **environment).stdout
    row = next(line for line in said.splitlines() if "all" in line)
    assert str(sum(block.get("max_clips", 3) for block in parts.values())) in row

    wfc("run", config, "--plain", **environment)
    expected = Run(tmp_path / "runs/tiny").base().sha256

    again, held = f"run.dir={tmp_path / 'again'}", tmp_path / "held"
    process = start_wfc(
        "run", config, again, "--plain", log=tmp_path / "log", WFC_HOLD_AT=f"write_checkpoint={held}", **environment
    )
    assert wait_for(held, process), (tmp_path / "log").read_text()
    kill_tree(process)
    wfc("run", config, again, "--plain", **environment)
    assert Run(tmp_path / "again/tiny").base().sha256 == expected
