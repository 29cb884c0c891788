"""Pure: a CTranslate2 Whisper model file into the tensors of a Hugging Face checkpoint. Floating-point models only (no int8).

The file (little-endian; strings end in a zero byte, their length before them as uint16):
    version uint32, spec string, revision uint32
    number of variables uint32, then for each: name, rank uint8, dimensions uint32 each, dtype uint8, size in bytes uint32, bytes
    number of aliases uint32, then for each: alias, name
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wfc_dist.errors import InputError

DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
VERSION = 6
State = dict[str, np.ndarray]


class _Reader:
    """Takes numbers and strings off the front of a file's bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position = memoryview(data), 0

    def take(self, num_bytes: int) -> memoryview:
        taken = self._data[self._position : self._position + num_bytes]
        if len(taken) < num_bytes:
            raise InputError(f"the model file ends at byte {len(self._data)} in the middle of a variable; download it again")
        self._position += num_bytes
        return taken

    def number(self, code: str) -> int:
        return int(struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0])

    def string(self) -> str:
        return bytes(self.take(self.number("H"))[:-1]).decode()

    def done(self) -> bool:
        return self._position == len(self._data)


def read_variables(data: bytes) -> State:
    """Returns name -> array (views of `data`) of every variable and alias in a model file.

    Raises:
        InputError: Not a Whisper model of this file version, cut short, or longer than it says.
    """
    reader = _Reader(data)
    version, spec, _ = reader.number("I"), reader.string(), reader.number("I")
    if version != VERSION or spec != "WhisperSpec":
        raise InputError(f"the model file is {spec} version {version}, expected WhisperSpec version {VERSION}; use another file")
    variables: State = {}
    for _ in range(reader.number("I")):
        name, rank = reader.string(), reader.number("B")
        shape = [reader.number("I") for _ in range(rank)]
        code, raw = reader.number("B"), reader.take(reader.number("I"))
        if code not in DTYPES:
            raise InputError(
                f"the model file's variable {name} has dtype {code}, expected one of {sorted(DTYPES)}; use another file"
            )
        variables[name] = np.frombuffer(raw, DTYPES[code]).reshape(shape)
    for _ in range(reader.number("I")):
        alias, target = reader.string(), reader.string()
        variables.setdefault(alias, variables[target])
    if not reader.done():
        raise InputError("the model file goes on after its last variable; download it again")
    return variables


@dataclass(frozen=True)
class WhisperShape:
    """What config.json says about sizes."""

    vocab_size: int
    num_mel_bins: int
    d_model: int
    encoder_layers: int
    decoder_layers: int
    num_heads: int
    ffn_dim: int
    max_source_positions: int
    max_target_positions: int


def _num_layers(variables: Mapping[str, np.ndarray], side: str) -> int:
    prefix = f"{side}/layer_"
    names = {name.split("/")[1] for name in variables if name.startswith(prefix)}
    return sum(name.removeprefix("layer_").isdigit() for name in names)


def whisper_shape(variables: Mapping[str, np.ndarray]) -> WhisperShape:
    """Returns the sizes of a model, read off its variables."""
    vocab_size, d_model = variables["decoder/embeddings/weight"].shape
    return WhisperShape(
        vocab_size=vocab_size,
        num_mel_bins=variables["encoder/conv1/weight"].shape[1],
        d_model=d_model,
        encoder_layers=_num_layers(variables, "encoder"),
        decoder_layers=_num_layers(variables, "decoder"),
        num_heads=int(variables["encoder/num_heads"]),
        ffn_dim=variables["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        max_source_positions=variables["encoder/position_encodings/encodings"].shape[0],
        max_target_positions=variables["decoder/position_encodings/encodings"].shape[0],
    )


class _Mapper:
    """Copies variables into a Hugging Face state, and knows which were used."""

    def __init__(self, variables: Mapping[str, np.ndarray]) -> None:
        self._variables, self._used = variables, set[str]()
        self.state: State = {}

    def _get(self, name: str) -> np.ndarray:
        array = self._variables.get(name)
        if array is None or array.dtype not in (np.float16, np.float32):
            found = "is missing" if array is None else f"is {array.dtype}"
            raise InputError(f"the model file's variable {name} {found}, expected float16 or float32; use another file")
        self._used.add(name)
        return array

    def copy(self, target: str, source: str, rows: slice = slice(None)) -> None:
        self.state[target] = np.ascontiguousarray(self._get(source)[rows], dtype=np.float32)

    def linear(self, target: str, source: str, rows: slice = slice(None), *, bias: bool = True) -> None:
        self.copy(f"{target}.weight", f"{source}/weight", rows)
        if bias:
            self.copy(f"{target}.bias", f"{source}/bias", rows)
        elif np.any(self._get(f"{source}/bias")[rows]):
            raise InputError(f"the model file's {source} has a key bias, Whisper has none; use another file")

    def norm(self, target: str, source: str) -> None:
        self.copy(f"{target}.weight", f"{source}/gamma")
        self.copy(f"{target}.bias", f"{source}/beta")

    def unused(self) -> list[str]:
        """Returns tensors that were not copied; scalars (flags, head counts) are not tensors."""
        return sorted(name for name, array in self._variables.items() if name not in self._used and array.size > 1)


def _layer(mapper: _Mapper, side: str, index: int, d_model: int) -> None:
    """Copies one layer; CTranslate2 stacks the rows of q, k, v in one matrix, and of k, v in cross attention."""
    target, source = f"model.{side}.layers.{index}", f"{side}/layer_{index}"
    q, k, v = (slice(part * d_model, (part + 1) * d_model) for part in range(3))
    attention, fused = f"{target}.self_attn", f"{source}/self_attention/linear_0"
    mapper.norm(f"{target}.self_attn_layer_norm", f"{source}/self_attention/layer_norm")
    mapper.linear(f"{attention}.q_proj", fused, q)
    mapper.linear(f"{attention}.k_proj", fused, k, bias=False)
    mapper.linear(f"{attention}.v_proj", fused, v)
    mapper.linear(f"{attention}.out_proj", f"{source}/self_attention/linear_1")
    if side == "decoder":
        attention, fused = f"{target}.encoder_attn", f"{source}/attention/linear_1"
        mapper.norm(f"{target}.encoder_attn_layer_norm", f"{source}/attention/layer_norm")
        mapper.linear(f"{attention}.q_proj", f"{source}/attention/linear_0")
        mapper.linear(f"{attention}.k_proj", fused, q, bias=False)
        mapper.linear(f"{attention}.v_proj", fused, k)
        mapper.linear(f"{attention}.out_proj", f"{source}/attention/linear_2")
    mapper.norm(f"{target}.final_layer_norm", f"{source}/ffn/layer_norm")
    mapper.linear(f"{target}.fc1", f"{source}/ffn/linear_0")
    mapper.linear(f"{target}.fc2", f"{source}/ffn/linear_1")


def hugging_face_state(variables: Mapping[str, np.ndarray]) -> State:
    """Returns the float32 tensors of WhisperForConditionalGeneration; the output matrix is tied to the embedding and left out.

    Raises:
        InputError: A variable is missing, quantized or unknown; names it.
    """
    shape, mapper = whisper_shape(variables), _Mapper(variables)
    for name in ("conv1", "conv2"):
        mapper.linear(f"model.encoder.{name}", f"encoder/{name}")
    mapper.copy("model.decoder.embed_tokens.weight", "decoder/embeddings/weight")
    for side, num_layers in (("encoder", shape.encoder_layers), ("decoder", shape.decoder_layers)):
        mapper.copy(f"model.{side}.embed_positions.weight", f"{side}/position_encodings/encodings")
        for index in range(num_layers):
            _layer(mapper, side, index, shape.d_model)
        mapper.norm(f"model.{side}.layer_norm", f"{side}/layer_norm")
    unused = [name for name in mapper.unused() if name != "decoder/projection/weight"]
    if unused:
        raise InputError(f"the model file has tensors Whisper does not: {', '.join(unused[:5])}; use another file")
    return mapper.state
