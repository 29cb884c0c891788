"""The distributed average over real gloo processes: the same bytes whatever the number of ranks or the order of arrival."""

import json
import multiprocessing
import queue
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from centralize_ranks import run_rank
from safetensors.torch import load_file, save_file

from wfc_dist.backends import net
from wfc_dist.centralize import collectives, offline, rank
from wfc_dist.centralize.rank import CentralizeJob
from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.merging import catalog
from wfc_dist.rounds import Adapter, Base
from wfc_dist.storage import durable
from wfc_dist.weights import base_chain, peft_folder
from wfc_dist.weights.hashing import content_sha256

MODULES = [f"model.{side}.layers.{layer}.self_attn.{p}_proj" for side in ("encoder", "decoder") for layer in (0, 1) for p in "qv"]
METHODS = sorted(catalog.METHODS)
SIZE = 32


def make_adapter(
    folder: Path, base: Base, seed: int, *, lora_r: int = 4, alpha: int = 8, modules: list[str] = MODULES
) -> Adapter:
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for module in modules:
        state[f"base_model.model.{module}.lora_A.weight"] = torch.randn(lora_r, SIZE, generator=generator)
        state[f"base_model.model.{module}.lora_B.weight"] = 0.1 * torch.randn(SIZE, lora_r, generator=generator)
    sha256 = peft_folder.write_peft(folder, state, {"peft_type": "LORA", "r": lora_r, "lora_alpha": alpha, "bias": "none"})
    return Adapter(folder.name, str(folder), sha256, base.sha256, 1.0)


def commit(folder: Path) -> None:
    staged = folder.rename(folder.with_name(f"{folder.name}.tmp-1"))
    durable.commit_folder(staged, folder, {})


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> CentralizeJob:
    root = tiny.make_whisper(tmp_path_factory.mktemp("root"), dtype=torch.float16)
    hashes = base_chain.hash_tensors(root)
    base = Base(0, str(root), content_sha256(hashes))
    folder = tmp_path_factory.mktemp("adapters")
    found = [make_adapter(folder / f"set{i}", base, i, lora_r=2 + i, alpha=4 + i) for i in range(4)]
    return CentralizeJob(
        base=base, adapters=tuple(found), weights=(1.0, 2.0, 3.0, 4.0), method="mean", scale=1.0, dtype="auto",
        root=str(root), shared=str(root), past_deltas=(), tensor_hashes=hashes, delta_dir="", base_dir="",
    )  # fmt: skip


def run_ranks(job: CentralizeJob, size: int, out: Path) -> tuple[Any, dict[str, bytes]]:
    return run_jobs([job], size, out)[0]


def run_jobs(jobs: list[CentralizeJob], size: int, out: Path) -> list[tuple[Any, dict[str, bytes]]]:
    folders = [out / str(number) if number else out for number in range(len(jobs))]
    for folder in folders:
        (folder / "delta").mkdir(parents=True)
        (folder / "base").mkdir()
    jobs = [
        replace(job, delta_dir=str(folder / "delta"), base_dir=str(folder / "base"))
        for job, folder in zip(jobs, folders, strict=True)
    ]
    context = multiprocessing.get_context("spawn")
    results, port = context.Queue(), net.free_port("127.0.0.1")
    ranks = [context.Process(target=run_rank, args=(rank, size, port, jobs, results)) for rank in range(size)]
    for process in ranks:
        process.start()
    try:
        staged = results.get(timeout=120)
    except queue.Empty:
        pytest.fail(f"{size} ranks gave no result")
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    written = []
    for folder in folders:
        files = {"delta": folder / "delta" / base_chain.DELTA, "base": folder / "base" / base_chain.CHANGED}
        written.append({name: path.read_bytes() for name, path in files.items()})
    return list(zip(staged, written, strict=True))


def test_bytes_do_not_depend_on_the_number_of_ranks(job: CentralizeJob, tmp_path: Path) -> None:
    one, first = run_ranks(job, 1, tmp_path / "1")
    for size in (2, 3, 5):
        staged, files = run_ranks(job, size, tmp_path / str(size))
        assert files == first, f"{size} ranks wrote other bytes"
        assert staged.sha256 == one.sha256
        assert staged.facts["update_norm"] == one.facts["update_norm"]

    root, changed = load_file(Path(job.root) / "model.safetensors"), load_file(tmp_path / "1" / "base" / base_chain.CHANGED)
    for module in MODULES:
        expected = np.zeros((SIZE, SIZE))
        for weight, adapter in zip((0.1, 0.2, 0.3, 0.4), job.adapters, strict=True):
            factors = peft_folder.read_factors(Path(adapter.path))[module]
            expected += weight * factors.scaling * factors.b_OR.numpy().astype("f8") @ factors.a_RI.numpy().astype("f8")
        exact = torch.from_numpy(root[f"{module}.weight"].numpy().astype("f8") + expected)
        assert torch.equal(changed[f"{module}.weight"], exact.half()), module  # rounded once


def test_many_adapters_make_a_dense_update_with_the_same_bytes_from_sums_and_from_factors(
    job: CentralizeJob, tmp_path: Path
) -> None:
    # 48 numbers of rank in 32 x 32: dense. A rank with 24 of them sends its sum, one with 12 its factors (48 bits a number).
    found = [make_adapter(tmp_path / "adapters" / f"set{i}", job.base, i, lora_r=4) for i in range(12)]
    many = replace(job, adapters=tuple(found), weights=tuple(1.0 + i for i in range(12)))
    one, first = run_ranks(many, 1, tmp_path / "1")
    for size in (2, 5):
        staged, files = run_ranks(many, size, tmp_path / str(size))
        assert files == first, f"{size} ranks wrote other bytes"
        assert staged.facts == {**one.facts, "links": staged.facts["links"]}

    _, other = run_ranks(replace(many, adapters=many.adapters[::-1], weights=many.weights[::-1]), 3, tmp_path / "reversed")
    assert other == first, "integers add up to the same in any order"
    for module, item in base_chain.read_delta(tmp_path / "1" / "delta").items():
        expected = np.zeros((SIZE, SIZE))
        for share, adapter in zip(np.arange(1.0, 13) / 78, found, strict=True):
            factors = peft_folder.read_factors(Path(adapter.path))[module]
            expected += share * factors.scaling * factors.b_OR.numpy().astype("f8") @ factors.a_RI.numpy().astype("f8")
        assert np.array_equal(item.dense().numpy(), expected.astype(np.float32)), module  # rounded once


def test_a_round_averages_as_the_command_does(job: CentralizeJob, tmp_path: Path) -> None:
    # Ten shares of 1/10 add up to less than one: normalizing them a second time would round them otherwise.
    found = [make_adapter(tmp_path / "adapters" / f"set{i}", job.base, i, lora_r=1) for i in range(10)]
    for number in (10, 3):
        chosen = replace(job, adapters=tuple(found[:number]), weights=(1.0,) * number, scale=0.7)
        _, files = run_ranks(chosen, 2, tmp_path / str(number))
        offline.average([Path(item.path) for item in found[:number]], tmp_path / f"out-{number}", scale=0.7)
        assert (tmp_path / f"out-{number}" / base_chain.DELTA).read_bytes() == files["delta"]


def add_curvature(folder: Path, seed: int) -> None:
    generator, statistics = torch.Generator().manual_seed(seed), {}
    for module in MODULES:
        statistics[f"{module}.fisher"] = torch.rand(SIZE, SIZE, generator=generator)
        for kind in ("inputs", "outputs"):
            samples = torch.randn(SIZE, 2 * SIZE, generator=generator)
            statistics[f"{module}.{kind}"] = samples @ samples.T
    save_file(statistics, folder / peft_folder.STATISTICS)


def test_every_merge_method_writes_the_same_bytes_on_any_number_of_ranks(job: CentralizeJob, tmp_path: Path) -> None:
    found = [make_adapter(tmp_path / "adapters" / f"set{i}", job.base, i, lora_r=3) for i in range(4)]
    for seed, adapter in enumerate(found):
        add_curvature(Path(adapter.path), seed)
    offline.average([Path(found[3].path)], tmp_path / "past")
    for folder in (Path(found[3].path), tmp_path / "past"):
        commit(folder)
    chosen = replace(
        job, adapters=tuple(found[:3]), weights=(1.0, 2.0, 3.0), past_deltas=(str(tmp_path / "past"),), seed=7,
        previous_adapters=(found[3].path,),
    )  # fmt: skip
    jobs = [replace(chosen, method=name, scale=0.3) if name != "nesterov" else replace(chosen, method=name) for name in METHODS]
    jobs += [replace(chosen, method="ties", options={"density": 0.5}, norm="mean")]

    first = run_jobs(jobs, 1, tmp_path / "1")
    for size in (2, 3):
        for item, (staged, files), (alone, expected) in zip(jobs, run_jobs(jobs, size, tmp_path / str(size)), first, strict=True):
            assert files == expected, f"{item.method} on {size} ranks wrote other bytes"
            assert staged.sha256 == alone.sha256
    assert len({files["delta"] for _, files in first}) == len(jobs), "every method is another one"

    facts = first[-1][0].facts
    assert {key: facts[key] for key in ("method", "options", "norm", "scale", "seed")} == {
        "method": "ties", "options": {"density": 0.5}, "norm": "mean", "scale": 1.0, "seed": 7,
    }  # fmt: skip
    assert facts["update_norm"] == pytest.approx(first[METHODS.index("mean")][0].facts["update_norm"] / 0.3, rel=1e-6)
    for number, (item, (_, files)) in enumerate(zip(jobs, first, strict=True)):  # a round averages as the command does
        offline.average(
            [adapter.path for adapter in item.adapters], tmp_path / f"out-{number}", method=item.method, options=item.options,
            norm=item.norm, scale=item.scale, seed=item.seed, weights=item.weights,
            past=[tmp_path / "past"], previous=[found[3].path],
        )  # fmt: skip
        assert (tmp_path / f"out-{number}" / base_chain.DELTA).read_bytes() == files["delta"], item.method


def test_a_round_without_the_curvature_it_needs_names_the_adapter(job: CentralizeJob, tmp_path: Path) -> None:
    found = [make_adapter(tmp_path / "adapters" / f"set{i}", job.base, i) for i in range(2)]
    add_curvature(Path(found[0].path), 0)
    for adapter in found:
        commit(Path(adapter.path))
    chosen = replace(job, adapters=tuple(found), weights=(1.0, 1.0), delta_dir=str(tmp_path), base_dir=str(tmp_path))
    for changed in (
        replace(chosen, method="fisher"),
        replace(chosen, method="ihr", previous_adapters=(found[0].path, found[1].path)),
    ):
        with pytest.raises(InputError, match=r"/set1 has no curvature\.safetensors.*train\.curvature"):
            rank.centralize_rank(changed, collectives.Group())


@pytest.mark.parametrize("kind", ["past", "previous"])
@pytest.mark.parametrize("damage", ["flip", "no manifest"])
def test_what_earlier_rounds_left_is_hashed_before_it_is_merged(
    job: CentralizeJob, tmp_path: Path, kind: str, damage: str
) -> None:
    found = [make_adapter(tmp_path / "adapters" / f"set{i}", job.base, i) for i in range(2)]
    add_curvature(Path(found[1].path), 1)
    offline.average([Path(found[1].path)], tmp_path / "past")
    folder, name = (tmp_path / "past", base_chain.DELTA) if kind == "past" else (Path(found[1].path), "curvature.safetensors")
    for each in (Path(found[1].path), tmp_path / "past"):
        commit(each)
    if damage == "flip":
        data = bytearray((folder / name).read_bytes())
        data[-1] ^= 1
        (folder / name).write_bytes(data)
    else:
        (folder / durable.MANIFEST).unlink()
    changed = replace(job, adapters=(found[0],), weights=(1.0,), delta_dir=str(tmp_path), base_dir=str(tmp_path))
    with pytest.raises(IntegrityError, match="sha256 of its manifest" if damage == "flip" else "never committed"):
        rank.centralize_rank(
            replace(changed, past_deltas=(str(tmp_path / "past"),), previous_adapters=(found[1].path,)), collectives.Group()
        )


def test_order_of_arrival_does_not_matter_order_of_data_sets_decides(job: CentralizeJob, tmp_path: Path) -> None:
    # The coordinator always hands adapters over in data-set order; shuffling who loads what is a matter of ranks.
    _, first = run_ranks(job, 3, tmp_path / "a")
    shuffled = replace(job, adapters=job.adapters[::-1], weights=job.weights[::-1])
    _, other = run_ranks(shuffled, 3, tmp_path / "b")
    assert first["base"] == other["base"]  # float64 sums of four terms, rounded to float16: the order leaves no trace
    assert first["delta"] != other["delta"]  # factors are stored in the order of the sum


def test_overlay_base_loads_with_transformers_and_shares_the_rest(job: CentralizeJob, tmp_path: Path) -> None:
    from transformers import WhisperForConditionalGeneration

    staged, _ = run_ranks(job, 1, tmp_path)
    loaded = WhisperForConditionalGeneration.from_pretrained(staged.path, dtype="auto").state_dict()
    assert {f"{module}.weight" for module in MODULES} == set(staged.facts["changed"])
    changed = load_file(Path(staged.path) / base_chain.CHANGED)
    root = load_file(Path(job.root) / "model.safetensors")
    for name, tensor in root.items():
        assert torch.equal(loaded[name], changed.get(name, tensor)), name
    assert dict(base_chain.hash_tensors(Path(staged.path))) == staged.facts["tensors"]
    link = Path(staged.path) / "model-root-00001.safetensors"
    assert link.stat().st_ino == (Path(job.root) / "model.safetensors").stat().st_ino, "copied, not linked"


def test_foreign_changed_or_mismatched_adapters_are_refused(job: CentralizeJob, tmp_path: Path) -> None:
    def once(found: list[Adapter]) -> None:
        changed = replace(
            job, adapters=tuple(found), weights=(1.0,) * len(found), delta_dir=str(tmp_path), base_dir=str(tmp_path)
        )
        rank.centralize_rank(changed, collectives.Group())

    with pytest.raises(InputError, match="was trained against base"):
        once([job.adapters[0], replace(job.adapters[1], base_sha256="0" * 64)])
    with pytest.raises(IntegrityError, match="not the adapter that was committed"):
        once([job.adapters[0], replace(job.adapters[1], sha256="0" * 64)])
    with pytest.raises(InputError, match="different modules"):
        once([job.adapters[0], make_adapter(tmp_path / "fewer", job.base, 9, modules=MODULES[:-1])])
    with pytest.raises(InputError, match="no tensor"):
        once([make_adapter(tmp_path / "alien", job.base, 9, modules=["model.somewhere.q_proj"])])
    assert json.loads((Path(job.adapters[0].path) / peft_folder.CONFIG).read_text())["r"] == 2
