"""The paper's recipe from the discs to two bases, on miniatures: every script, then audit, plan and run of its configuration."""

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import miniature_corpora as miniatures
import numpy as np
import pytest
import tiny
import yaml
from miniature_corpora import FISHER_PITCHES, PAPER, script
from processes import wfc

from wfc_dist import open_run
from wfc_dist.config.loading import load_config
from wfc_dist.data.sources import open_split

CONFIG = PAPER / "config.yaml"
MANDARIN = {"seame", "ascend", "talcs", "fleurs-zh", "common-voice-zh"}
FLEURS = ("ar_eg", "de_de", "en_us", "fr_fr", "it_it", "ru_ru", "tr_tr")
CORPORA: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "seame": ("seame", miniatures.seame),
    "fisher": ("fisher", miniatures.fisher),
    "arzen": ("arzen", miniatures.arzen_parquet),
    "ascend": ("ascend", miniatures.ascend),
    "talcs": ("talcs", miniatures.talcs),
    "tunswitch": ("tunswitch", miniatures.tunswitch),
    "fleurs": ("fleurs", lambda root: miniatures.fleurs_parquet(root, FLEURS)),
    "common-voice": ("common_voice", miniatures.common_voice),
}
TINY = (
    "base.model=model", "cluster.backend=in_process", "cluster.gpus_per_worker=0", "cluster.cpus_per_worker=1",
    "cluster.threads_per_worker=1", "lora.r=4", "lora.alpha=8", "train.max_steps=1", "train.warmup_steps=0",
    "train.precision=fp32", "train.batch_size=1", "train.gradient_accumulation=1", "evaluate.bootstrap_samples=20",
    "evaluate.adapters=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corpora/paper, as the commands of examples/paper/README.md make it, and a tiny model."""
    root = tmp_path_factory.mktemp("paper")
    for name, (module, make) in CORPORA.items():
        script(module).main([*make(root / "discs" / name), "--out", str(root / "corpora" / "paper" / name)])
    tiny.make_whisper(root / "model", taciturn=True)
    return root


def test_the_configuration_names_what_the_scripts_write() -> None:
    tree = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    assert [len(names) for names in tree["rounds"]] == [3, 3]
    assert sorted(chain.from_iterable(tree["rounds"])) == sorted(tree["datasets"])
    kept = tree["evaluate"]["protected"]
    assert {dataset["source"].split("/")[2] for dataset in kept.values()} == {"fleurs", "common-voice"}
    for dataset in (*tree["datasets"].values(), *kept.values()):
        assert (dataset.get("metric") == "mer") == (dataset["language"] == "zh")


def test_training_hears_the_channel_of_the_speaker(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prepared)
    split = open_split("fisher", load_config(CONFIG).datasets["fisher"], "train")
    rows = [json.loads(line) for line in Path("corpora/paper/fisher/train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["channel"] for row in rows} == {0, 1}
    for index, row in enumerate(rows):
        samples = split.audio(index)
        loudest_hz = np.argmax(np.abs(np.fft.rfft(samples))) * 16_000 / len(samples)
        assert loudest_hz == pytest.approx(FISHER_PITCHES[row["channel"]], abs=1)


def test_two_rounds_of_three_from_the_discs_on(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prepared)
    audit = wfc("audit", CONFIG, *TINY, "--deep")
    sets = [*load_config(CONFIG).datasets, *load_config(CONFIG).evaluate.protected]
    assert len(sets) == 18 and all(name in audit.stdout for name in sets)
    assert "runs/paper: 2 rounds" in wfc("plan", CONFIG, *TINY).stdout
    wfc("run", CONFIG, *TINY, "--plain")
    run = open_run(prepared / "runs" / "paper")
    rounds = (("seame", "fisher", "arzen"), ("ascend", "talcs", "tunswitch"))
    assert {(adapter.round_index, adapter.dataset) for adapter in run.adapters()} == {
        (number, name) for number, names in enumerate(rounds, start=1) for name in names
    }
    scores = run.scores_of(2)
    assert scores is not None and run.base().index == 2
    metrics = {name: scores.sets[name]["metric"] for name in sets}
    assert metrics == {name: "mer" if name in MANDARIN else "wer" for name in sets}
    detected = wfc("evaluate", "runs/paper", "--on", CONFIG, *TINY, "evaluate.language=detect")
    assert all(name in detected.stdout for name in sets)
