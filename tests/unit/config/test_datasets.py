import pytest

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.sources import READERS


@pytest.mark.parametrize(
    ("format", "keys"),
    [
        ("jsonl", {"quoting": "none"}),
        ("jsonl", {"subset": "en"}),
        ("csv", {"tar": "a.tar"}),
        ("kaldi", {"text_column": "sentence"}),
        ("kaldi", {"columns": {"language": "locale"}}),
        ("stm", {"time_unit": "ms"}),
        ("stm", {"path_parts": 2}),
        ("lhotse", {"audio_column": "wav"}),
        ("folder", {"allow_pipes": ["sph2pipe"]}),
        ("webdataset", {"streaming": True}),
        ("webdataset", {"audio_dir": "x"}),
        ("saved", {"revision": "main"}),
        ("parquet", {"data_files": "*.parquet"}),
    ],
)
def test_a_key_that_a_format_does_not_read_is_refused(format, keys):
    (key,) = keys
    with pytest.raises(ValueError, match=rf"{key}: only format .* reads? it, not {format}"):
        DatasetConfig(source="x", format=format, **keys)


def test_every_format_has_a_reader():
    assert {*READERS, "mix"} == set(DatasetConfig.model_fields["format"].annotation.__args__)


@pytest.mark.parametrize("key", ["source", "splits", "audio_dir"])
@pytest.mark.parametrize("path", ["a\0b", "a" * 300, "é" * 150, "a/" * 3000])
def test_what_cannot_be_a_path_is_refused(key, path):
    keys = {"source": "data", "splits": {"train": path}} if key == "splits" else {"source": "data", key: path}
    with pytest.raises(ValueError, match=f"{key}.*is no path"):
        DatasetConfig(**keys)
