"""What the page offers: all that a run has committed, and other models by their names."""

from pathlib import Path

import pytest

from wfc_dist.config import loading
from wfc_dist.errors import InputError
from wfc_dist.runs.layout import RunPaths
from wfc_dist.storage import durable
from wfc_dist.tryout.choices import list_choices


def commit(folder: Path, **facts: object) -> None:
    staged = durable.staging_path(folder, 1)
    staged.mkdir(parents=True, exist_ok=True)
    durable.commit_folder(staged, folder, {"sha256": "0", **facts})


def make_run(folder: Path, *, bases: int = 2) -> Path:
    """Writes a run of two rounds with its adapters, an interim base, and folders that nobody committed."""
    data = {name: {"source": "x", "language": "en", "splits": {"train": "t", "test": "t"}} for name in ("es", "fr", "it")}
    config = loading.parse(
        {
            "run": {"name": folder.name, "dir": str(folder.parent)}, "base": {"model": "/models/whisper-base"}, "datasets": data,
            "rounds": [["fr", "es"], ["it"]],
        }
    )  # fmt: skip
    paths = RunPaths(folder)
    durable.write_json(paths.config, {"config": config.model_dump(mode="json")})
    paths.ledger.write_text("")
    for index in range(bases):
        commit(paths.base(index), **({} if index else {"model_path": str(folder.parent / "root")}))
    if bases > 1:
        for round_index, name in ((1, "es"), (1, "fr"), (2, "it")):
            commit(paths.adapter(round_index, name))
        commit(paths.interim(2, 1))
        commit(paths.interim(1, 1))  # a round that is committed needs its interim bases no longer
        paths.interim(2, 2).mkdir(parents=True)
    return folder


def test_a_run_offers_its_bases_interim_bases_and_adapters_in_the_order_of_the_configuration(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo")
    paths = RunPaths(run)
    assert [(choice.title, choice.path) for choice in list_choices([str(run)])] == [
        ("base 0 (whisper-base)", str(tmp_path / "root")), ("base 1", str(paths.base(1))),
        ("base 1 and 1 adapter", str(paths.interim(2, 1))), ("round 1: fr", str(paths.adapter(1, "fr"))),
        ("round 1: es", str(paths.adapter(1, "es"))), ("round 2: it", str(paths.adapter(2, "it"))),
    ]  # fmt: skip


def test_several_models_are_told_apart_by_the_names_of_their_runs(tmp_path: Path) -> None:
    run, folder = make_run(tmp_path / "demo"), tmp_path / "other"
    folder.mkdir()
    titles = [choice.title for choice in list_choices([str(run), str(folder), "openai/whisper-tiny"])]
    assert titles[:2] == ["demo: base 0 (whisper-base)", "demo: base 1"] and titles[-2:] == [str(folder), "openai/whisper-tiny"]


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["{tmp}/none"], "none is neither a run, nor a folder with a model, nor the name of a hub model"),
        (["runs/demo/base-0001"], "is neither a run"),
        (["demo"], "demo is neither a run"),
        (["{tmp}/new"], "has no committed base yet"),
        (["{tmp}/demo", "{tmp}/demo"], "two models would be called 'demo: base 0"),
        (["openai/whisper-tiny", "openai/whisper-tiny"], "two models would be called"),
    ],
)
def test_what_is_no_model_is_refused_at_once(tmp_path: Path, models: list[str], message: str) -> None:
    make_run(tmp_path / "demo")
    make_run(tmp_path / "new", bases=0)
    with pytest.raises(InputError, match=message):
        list_choices([name.format(tmp=tmp_path) for name in models])
