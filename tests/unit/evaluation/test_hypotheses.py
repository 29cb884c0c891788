import dataclasses
import hashlib
import json

import pytest

from wfc_dist.config.schema import EvaluateConfig
from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.evaluation import hypotheses
from wfc_dist.evaluation.hypotheses import (
    Hypothesis,
    cache_key,
    count_hypotheses,
    find_hypotheses,
    read_hypotheses,
    score_hypotheses,
    write_hypotheses,
)

SAID = [
    Hypothesis("a", ("One colour.",), "1 color", "en", 1.5),
    Hypothesis("b..c", ("\u00bfqu\u00e9?\u2028s\u00ed", "", "vale"), "qu\u00e9 no vale", "es", 2.0),
]


def test_round_trip(tmp_path):
    header = cache_key("m" * 64, "f" * 64, EvaluateConfig())
    write_hypotheses(tmp_path / "x" / "set.jsonl", header, SAID)

    found, hypotheses = read_hypotheses(tmp_path / "x" / "set.jsonl")

    assert hypotheses == SAID
    assert found == header | {"num_hypotheses": 2}
    assert find_hypotheses(tmp_path / "x" / "set.jsonl", header) == SAID


def test_detected_and_marked_languages_make_the_round_trip(tmp_path):
    more = [dataclasses.replace(SAID[0], detected="de"), dataclasses.replace(SAID[1], word_languages=(("es", "en"), (), ("es",)))]
    more += [dataclasses.replace(SAID[1], apart=True), dataclasses.replace(SAID[1], groups=("ann", "", "bob"))]
    write_hypotheses(tmp_path / "set.jsonl", cache_key("m", "f", EvaluateConfig(language="detect")), more)

    assert read_hypotheses(tmp_path / "set.jsonl")[1] == more


def test_the_bytes_of_a_file(tmp_path):
    write_hypotheses(tmp_path / "set.jsonl", cache_key("m", "f", EvaluateConfig()), SAID[:1])

    decoding = '{"max_clips": null, "no_repeat_ngram_size": 0, "num_beams": 1, "packing": false}'
    unsorted = '{"num_beams": 1, "no_repeat_ngram_size": 0, "packing": false, "max_clips": null}'
    digest = hashlib.sha256(decoding.encode()).hexdigest()
    row = '{"id": "a", "parts": ["One colour."], "hypothesis": "1 color", "language": "en", "duration_s": 1.5}\n'
    header = (
        f'{{"schema": 2, "model_sha256": "m", "fingerprint": "f", "decoding": {unsorted}, "decoding_sha256": "{digest}", '
        '"num_hypotheses": 1'
    )
    of_header = hashlib.sha256(json.dumps(json.loads(header + "}"), sort_keys=True).encode()).hexdigest()
    checksum = hashlib.sha256(f"{of_header}\n{row}".encode()).hexdigest()
    assert (tmp_path / "set.jsonl").read_text() == f'{header}, "checksum": "{checksum}"}}\n{row}'
    assert json.loads(decoding) == json.loads(unsorted)


@pytest.mark.parametrize("place", range(0, 400, 7))
def test_a_changed_bit_is_damage_or_another_header(tmp_path, place):
    path, header = tmp_path / "set.jsonl", cache_key("m", "f", EvaluateConfig())
    write_hypotheses(path, header, SAID)
    data = bytearray(path.read_bytes())
    data[-1 - place] ^= 1
    path.write_bytes(data)

    try:
        found = find_hypotheses(path, header)
    except (IntegrityError, InputError):
        return
    assert found is None or found == SAID, "only a changed name of the checksum itself goes unseen"


@pytest.mark.parametrize(
    "other",
    [
        cache_key("n" * 64, "f" * 64, EvaluateConfig()),
        cache_key("m" * 64, "g" * 64, EvaluateConfig()),
        cache_key("m" * 64, "f" * 64, EvaluateConfig(num_beams=4)),
        cache_key("m" * 64, "f" * 64, EvaluateConfig(packing=True)),
        cache_key("m" * 64, "f" * 64, EvaluateConfig(max_clips=3)),
        cache_key("m" * 64, "f" * 64, EvaluateConfig(packing=True, compression_ratio_threshold=None)),
        cache_key("m" * 64, "f" * 64, EvaluateConfig(no_repeat_ngram_size=4)),
        cache_key("m" * 64, "f" * 64, EvaluateConfig(language="detect")),
    ],
)
def test_another_model_set_or_decoding_is_decoded_again(tmp_path, other):
    write_hypotheses(tmp_path / "set.jsonl", cache_key("m" * 64, "f" * 64, EvaluateConfig()), SAID)

    assert find_hypotheses(tmp_path / "set.jsonl", other) is None
    assert find_hypotheses(tmp_path / "none.jsonl", other) is None


def test_metric_and_batch_size_do_not_ask_for_decoding_again():
    assert cache_key("m", "f", EvaluateConfig()) == cache_key("m", "f", EvaluateConfig(metric="cer", batch_size=2))


def test_the_threshold_is_of_packed_windows_only():
    alone, packed = (
        [cache_key("m", "f", EvaluateConfig(packing=packing, compression_ratio_threshold=limit)) for limit in (2.4, 3.0, None)]
        for packing in (False, True)
    )

    assert alone[0] == alone[1] == alone[2]
    assert len({key["decoding_sha256"] for key in packed}) == 3


def test_texts_of_an_earlier_rule_for_loops_are_decoded_again(monkeypatch):
    now = [cache_key("m", "f", EvaluateConfig(packing=packing)) for packing in (False, True)]
    monkeypatch.setattr(hypotheses, "LOOP_RULE", 1)
    before = [cache_key("m", "f", EvaluateConfig(packing=packing)) for packing in (False, True)]

    assert now[0] == before[0] and now[1]["decoding_sha256"] != before[1]["decoding_sha256"]


def test_truncated_file_is_refused(tmp_path):
    path = tmp_path / "set.jsonl"
    write_hypotheses(path, cache_key("m", "f", EvaluateConfig()), SAID)
    path.write_text("\n".join(path.read_text().split("\n")[:2]) + "\n")

    with pytest.raises(IntegrityError, match="1 of 2 hypotheses"):
        read_hypotheses(path)


@pytest.mark.parametrize("text", ["", "{", '{"schema": 2, "num_hypotheses": 1}\n{"id": "a"}\n'])
def test_damaged_file_is_refused(tmp_path, text):
    (tmp_path / "set.jsonl").write_text(text)

    with pytest.raises(IntegrityError, match="damaged"):
        read_hypotheses(tmp_path / "set.jsonl")


def test_other_schema_and_missing_file_are_refused(tmp_path):
    write_hypotheses(tmp_path / "set.jsonl", {"schema": 99}, SAID)

    with pytest.raises(InputError, match="schema 99"):
        read_hypotheses(tmp_path / "set.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read_hypotheses(tmp_path / "none.jsonl")


def test_every_language_is_normalised_as_its_own():
    found = score_hypotheses(SAID, EvaluateConfig(intervals=False), {"colour": "color"})

    assert (found.errors, found.reference_length, found.num_clips) == (1, 5, 4)


def test_errors_are_counted_clip_by_clip_within_a_window():
    counts = count_hypotheses(SAID, EvaluateConfig(), {"colour": "color"})

    assert counts.errors.tolist() == [0, 1, 0, 0]
    assert counts.lengths.tolist() == [2, 2, 0, 1]


def test_every_clip_of_a_window_is_normalised_on_its_own():
    # joined, "twenty five" would be the number 25
    window = Hypothesis("a..b", ("twenty", "five"), "20 5", "en", 1.0)

    assert count_hypotheses([window], EvaluateConfig(), {}).errors.tolist() == [0, 0]
