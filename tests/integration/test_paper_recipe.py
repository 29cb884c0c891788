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

from wfc_dist import Run, open_run
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
    "train.precision=fp32", "train.batch_size=1", "train.gradient_accumulation=1",
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


@pytest.fixture(scope="module")
def finished(prepared: Path) -> Run:
    """The run of the configuration on the miniatures."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(prepared)
        wfc("run", CONFIG, *TINY, "--plain")
    return open_run(prepared / "runs" / "paper")


def sets() -> set[str]:
    """Returns the names of all sets, learned and kept."""
    config = load_config(CONFIG)
    return {*config.datasets, *config.evaluate.protected}


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


def test_the_audit_and_the_plan_name_every_set(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prepared)
    audit = wfc("audit", CONFIG, *TINY, "--deep").stdout
    assert len(sets()) == 18 and all(name in audit for name in sets()) and "error" not in audit
    assert "runs/paper: 2 rounds" in wfc("plan", CONFIG, *TINY).stdout


def test_two_rounds_of_three_are_learned(finished: Run) -> None:
    rounds = (("seame", "fisher", "arzen"), ("ascend", "talcs", "tunswitch"))
    assert {(adapter.round_index, adapter.dataset) for adapter in finished.adapters()} == {
        (number, name) for number, names in enumerate(rounds, start=1) for name in names
    }
    scores = finished.scores_of(2)
    assert scores is not None and finished.base().index == 2 and set(scores.sets) == sets()


def test_mandarin_is_scored_in_mixed_errors_and_the_rest_in_words(finished: Run) -> None:
    scores = finished.scores_of(2)
    assert scores is not None
    assert {name for name in sets() if scores.sets[name]["metric"] == "mer"} == MANDARIN
    assert {name for name in sets() if scores.sets[name]["metric"] == "wer"} == sets() - MANDARIN


def test_the_last_base_is_decoded_with_the_language_that_it_detects(
    finished: Run, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared)
    detected = wfc("evaluate", "runs/paper", "--on", CONFIG, *TINY, "evaluate.language=detect").stdout
    assert finished.num_bases == 3 and all(name in detected for name in sets())
