import copy
import dataclasses
import logging
import warnings

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import make_dataset, make_whisper
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.config.schema import EvaluateConfig
from wfc_dist.data.sources import open_split
from wfc_dist.errors import ConfigError
from wfc_dist.evaluation import decoding
from wfc_dist.evaluation.decoder import Decoder, in_bfloat16
from wfc_dist.evaluation.decoding import decode_sets, transcribe_clip
from wfc_dist.evaluation.hallucinations import compression_ratio
from wfc_dist.evaluation.windows import cut_at_quiet, windows_of

SECOND = 16_000


def decode_set(model, processor, one, evaluate):
    return decode_sets(model, processor, [one], evaluate)[0]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    torch.set_num_threads(1)
    folder = make_whisper(tmp_path_factory.mktemp("model"))
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    model.config.max_target_positions = 40  # a random model never ends by itself
    return model, WhisperProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = make_dataset(tmp_path_factory.mktemp("data"), seed=0, test=5)
    return open_split("tones", DatasetConfig(source=str(folder), splits={"test": "test.jsonl"}), "test")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    folder = make_dataset(tmp_path_factory.mktemp("data"), seed=1, language="es", test=3)
    more = make_dataset(tmp_path_factory.mktemp("data"), seed=2, language="en", test=2)
    lines = (more / "test.jsonl").read_text().splitlines()
    rows = (folder / "test.jsonl").read_text().splitlines()
    absolute = [line.replace('"audio/', f'"{more}/audio/') for line in lines]
    (folder / "test.jsonl").write_text("\n".join([rows[0], absolute[0], rows[1], absolute[1], rows[2]]) + "\n")
    return open_split("mixed", DatasetConfig(source=str(folder), splits={"test": "test.jsonl"}), "test")


def test_one_hypothesis_a_clip_in_the_order_of_the_split(whisper, mixed):
    model, processor = whisper

    (found,) = decode_sets(model, processor, [mixed], EvaluateConfig(batch_size=2))

    assert [item.id for item in found] == [clip.id for clip in mixed.clips]
    assert [" ".join(item.parts) for item in found] == [clip.text for clip in mixed.clips]
    assert [item.language for item in found] == ["es", "en", "es", "en", "es"]


def test_batch_size_changes_no_hypothesis(whisper, mixed):
    model, processor = whisper

    alone = decode_set(model, processor, mixed, EvaluateConfig(batch_size=1))

    assert decode_set(model, processor, mixed, EvaluateConfig(batch_size=8)) == alone


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"packing": True}, {"max_clips": 2, "batch_size": 3}])
def test_sets_decoded_together_are_those_decoded_apart(whisper, split, mixed, options):
    model, processor = whisper
    evaluate = EvaluateConfig(**options)

    found = decode_sets(model, processor, [split, mixed, split], evaluate)

    assert found == [decode_set(model, processor, one, evaluate) for one in (split, mixed, split)]
    assert decode_sets(model, processor, [], evaluate) == []


def test_every_row_of_a_batch_has_its_own_language(whisper, split, mixed):
    model, processor = whisper
    asked = []
    handle = model.get_decoder().embed_tokens.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[0]))
    decode_sets(model, processor, [split, mixed], EvaluateConfig())
    handle.remove()

    languages = processor.tokenizer.convert_ids_to_tokens(asked[0][:, 1].tolist())
    assert sorted(languages) == ["<|en|>"] * 7 + ["<|es|>"] * 3


def test_language_is_given_to_the_model(whisper, split):
    model, processor = whisper
    asked = []
    handle = model.get_decoder().embed_tokens.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[0]))
    decode_set(model, processor, split, EvaluateConfig(max_clips=1))
    handle.remove()

    prompt = processor.tokenizer.convert_ids_to_tokens(asked[0][0].tolist())
    assert prompt == ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]


@pytest.mark.parametrize("options", [{}, {"packing": True, "num_beams": 2}])
def test_language_is_detected_by_the_model_and_recorded(whisper, mixed, options):
    model, processor = whisper
    asked = []
    handle = model.get_decoder().embed_tokens.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[0]))
    found = decode_set(model, processor, mixed, EvaluateConfig(language="detect", batch_size=8, **options))
    handle.remove()

    one = mixed.audio(0)
    features = processor.feature_extractor(one, sampling_rate=16_000, return_tensors="pt").input_features
    (chosen,) = processor.tokenizer.convert_ids_to_tokens(model.detect_language(features).tolist())
    prompts = next(tokens for tokens in asked if tokens.shape[1] == 4)  # after the step that detects
    languages = {token.strip("<|>") for token in processor.tokenizer.convert_ids_to_tokens(prompts[:, 1].tolist())}
    assert [item.language for item in found] == [
        item.language for item in decode_set(model, processor, mixed, EvaluateConfig(**options))
    ]
    assert {item.detected for item in found} == languages
    if not options:
        assert found[0].detected == chosen.strip("<|>")


def test_what_is_detected_is_decoded_as_if_it_were_given(whisper, split):
    model, processor = whisper
    detected = decode_set(model, processor, split, EvaluateConfig(language="detect"))
    clips = [dataclasses.replace(clip, language=item.detected) for clip, item in zip(split.clips, detected, strict=True)]
    given = copy.copy(split)
    given.clips = clips

    assert [item.hypothesis for item in decode_set(model, processor, given, EvaluateConfig())] == [
        item.hypothesis for item in detected
    ]
    assert {item.detected for item in decode_set(model, processor, split, EvaluateConfig())} == {""}


def test_model_of_one_language_detects_none(whisper, split):
    model, processor = whisper
    english = copy.copy(model)
    english.generation_config = copy.deepcopy(model.generation_config)
    english.generation_config.is_multilingual = False

    with pytest.raises(ConfigError, match="needs a multilingual model"):
        decode_set(english, processor, split, EvaluateConfig(language="detect"))


def test_languages_of_words_and_groups_go_with_their_clips(whisper, mixed):
    model, processor = whisper
    marked = copy.copy(mixed)
    marked.clips = [dataclasses.replace(mixed.clips[0], word_languages=("es",), group="ann"), *mixed.clips[1:]]

    packed = decode_set(model, processor, marked, EvaluateConfig(packing=True))

    assert [item.word_languages for item in packed] == [(("es",), (), ()), ()]
    assert [item.groups for item in packed] == [("ann", "", ""), ()]


@pytest.mark.parametrize("num_beams", [1, 2])
def test_sequences_never_exceed_the_decoder(whisper, split, num_beams):
    model, processor = whisper
    fed = []
    handle = model.get_decoder().embed_tokens.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0].shape[1]))
    decode_set(model, processor, split, EvaluateConfig(max_clips=1, num_beams=num_beams, no_repeat_ngram_size=3))
    handle.remove()

    assert sum(fed) == 40 - 1  # the last token is written, not read


def test_decoding_is_quiet(whisper, split, caplog, capfd):
    model, processor = whisper
    transformers.utils.logging.warning_once.cache_clear()  # earlier tests may have used up the one time
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        decode_set(model, processor, split, EvaluateConfig(max_clips=2))
        transcribe_clip(model, processor, split.audio(0))

    assert caplog.text == ""
    assert "".join(capfd.readouterr()) == ""


def test_adapter_changes_what_is_decoded_and_the_model_it_wraps_is_used(whisper, split, tmp_path):
    model, processor = whisper
    before = decode_set(model, processor, split, EvaluateConfig(max_clips=1))
    fresh = WhisperForConditionalGeneration.from_pretrained(model.name_or_path).eval()
    adapted = get_peft_model(fresh, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data, std=2.0)

    assert isinstance(adapted, PeftModel)
    assert decode_set(adapted, processor, split, EvaluateConfig(max_clips=1)) != before


def test_in_bfloat16_layers_are_rounded_and_logits_are_not(whisper, split, tmp_path):
    model, processor = whisper
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(1)
    adapter = get_peft_model(copy.deepcopy(model), LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)).eval()
    features = Decoder(model, processor).features([split.audio(0)])
    start = torch.tensor([[model.config.decoder_start_token_id]])
    for exact in (model, adapter):
        rounded = in_bfloat16(exact)
        with torch.inference_mode():
            wanted = exact(input_features=features, decoder_input_ids=start).logits
            logits = rounded(input_features=features.bfloat16(), decoder_input_ids=start).logits
        assert rounded.dtype == torch.bfloat16 and logits.dtype == torch.float32
        error = float((logits - wanted).norm() / wanted.norm())
        assert 0 < error < 0.05, "eight bits of a number are kept"
        assert len(logits.unique()) > 0.9 * logits.numel(), "logits of eight bits would be full of ties"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert in_bfloat16(rounded) is rounded
    one = EvaluateConfig(precision="bf16")
    assert [text.id for text in decode_set(adapter, processor, split, one)] == [clip.id for clip in split.clips]


def test_packing_joins_clips_of_a_language(whisper, mixed):
    model, processor = whisper

    found = decode_set(model, processor, mixed, EvaluateConfig(packing=True))

    assert [item.language for item in found] == ["es", "en"]
    spanish = [clip for clip in mixed.clips if clip.language == "es"]
    assert " ".join(found[0].parts) == " ".join(clip.text for clip in spanish)
    assert found[0].id == f"{spanish[0].id}..{spanish[-1].id}"
    assert found[0].duration_s == pytest.approx(sum(clip.duration_s for clip in spanish))


@pytest.mark.parametrize("options", [{}, {"language": "detect", "num_beams": 2}])
def test_a_window_that_is_a_loop_is_decoded_clip_by_clip(whisper, split, mixed, monkeypatch, options):
    monkeypatch.setattr(decoding, "num_spoken", lambda text: 0)  # a random model never ends, so its clips have more words
    model, processor = copy.deepcopy(whisper)
    seeded = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "encoder_attn" in name:  # a random model hardly listens
            torch.nn.init.normal_(parameter.data, std=2.0, generator=seeded)

    def decoded(**packed):
        return decode_sets(model, processor, [split, mixed], EvaluateConfig(**packed, **options))

    plain, alone = decoded(packing=True, compression_ratio_threshold=None), decoded()
    unrepeated = decoded(no_repeat_ngram_size=4)
    ratios = sorted(compression_ratio(item.hypothesis) for items in plain for item in items)
    limit = (ratios[0] + ratios[-1]) / 2
    found = decoded(packing=True, compression_ratio_threshold=limit)

    assert ratios[0] < limit < ratios[-1]
    assert {window.apart for windows in found for window in windows} == {True, False}
    for windows, before, *written in zip(found, plain, alone, unrepeated, strict=True):
        clips = [clip if compression_ratio(clip.hypothesis) <= limit else once for clip, once in zip(*written, strict=True)]
        for window, old in zip(windows, before, strict=True):
            texts = [clip for clip in clips if clip.language == window.language]
            joined = " ".join(clip.hypothesis for clip in texts)
            apart = dataclasses.replace(old, hypothesis=joined, detected=texts[0].detected, apart=True)
            assert window == (apart if compression_ratio(old.hypothesis) > limit else old)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (("one two", "not asked for"), "one two"),
        (("ho " * 400, "one ho ho"), "one ho ho"),
        (("ho " * 400, "ho " * 20), "ho " * 20),
        (("ho " * 400, "ho " * 500), "la " * 30),
        (("ho-" * 40, "ho-" * 40), "la " * 30),
        (("eeee" * 90, "e " * 90), "eeee" * 90),
    ],
    ids=["no loop", "ended", "shorter", "longer", "words parted by punctuation", "one word"],
)
def test_what_takes_the_place_of_a_loop(whisper, split, monkeypatch, written, kept):
    model, processor = whisper
    (alone, once), asked = written, []

    def texts(self, features, languages, *, repeats=True):
        asked.append((len(features), repeats))
        if not repeats:
            return [once], [""]
        one = len(features) == 1  # the window first, by itself; then its clips, of which one speaks
        return (["la " * 30] if one else [alone, *[""] * (len(features) - 1)]), [""] * len(features)

    monkeypatch.setattr(Decoder, "texts", texts)
    (window,) = decode_set(model, processor, split, EvaluateConfig(packing=True))

    assert window.hypothesis.strip() == kept.strip()
    assert window.apart == (kept != "la " * 30)
    assert asked == [(1, True), (len(split.clips), True), (1, False)][: 2 if once == "not asked for" else 3]


def test_a_clip_that_has_a_window_to_itself_is_decoded_again_as_well(whisper, split, monkeypatch):
    model, processor = whisper
    monkeypatch.setattr(
        Decoder, "texts", lambda self, features, languages, *, repeats=True: (["la " * 30 if repeats else "la"], [""])
    )

    (packed,), (alone,) = (
        decode_set(model, processor, split, EvaluateConfig(packing=packing, max_clips=1)) for packing in (True, False)
    )

    assert (packed.hypothesis, packed.apart) == ("la", True)
    assert (alone.hypothesis.split(), alone.apart) == (["la"] * 30, False)


def test_a_clip_alone_stays_as_it_was_written(whisper, split):
    model, processor = whisper

    low, none = (decode_set(model, processor, split, EvaluateConfig(compression_ratio_threshold=limit)) for limit in (0.01, None))

    assert low == none


def test_windows_hold_every_clip_once_within_30_seconds(whisper, split):
    _, processor = whisper
    clips = split.clips * 12  # 60 clips of 1 to 3 s

    windows = windows_of(clips, processor.tokenizer, packing=True)

    assert sorted(index for window in windows for index in window) == list(range(len(clips)))
    assert all(sum(clips[i].duration_s for i in window) + 0.3 * (len(window) - 1) <= 30 for window in windows)
    assert len(windows) < len(clips) / 5


def test_max_clips_takes_the_first(whisper, split):
    model, processor = whisper

    assert [item.id for item in decode_set(model, processor, split, EvaluateConfig(max_clips=2))] == [
        clip.id for clip in split.clips[:2]
    ]


def test_long_audio_is_cut_where_it_is_quiet():
    audio = np.random.default_rng(0).standard_normal(70 * SECOND).astype(np.float32)
    audio[25 * SECOND : 26 * SECOND] = 0
    audio[50 * SECOND : int(50.5 * SECOND)] = 0

    pieces = cut_at_quiet(audio)

    np.testing.assert_array_equal(np.concatenate(pieces), audio)
    ends = np.cumsum([len(piece) for piece in pieces]) / SECOND
    assert 25 <= ends[0] <= 26 and 50 <= ends[1] <= 50.5
    assert all(0 < len(piece) <= 30 * SECOND for piece in pieces)


@pytest.mark.parametrize("num_samples", [1, 30 * SECOND - 1, 30 * SECOND])
def test_audio_of_a_window_stays_whole(num_samples):
    assert [len(piece) for piece in cut_at_quiet(np.ones(num_samples, np.float32))] == [num_samples]


def test_one_sample_more_is_cut():
    assert len(cut_at_quiet(np.ones(30 * SECOND + 1, np.float32))) == 2


def test_a_clip_is_transcribed_as_a_test_set_is_decoded(whisper, split):
    model, processor = whisper
    text, language = transcribe_clip(model, processor, split.audio(0), "en")
    assert (text, language) == (decode_set(model, processor, split, EvaluateConfig(max_clips=1))[0].hypothesis, "en")
    detecting = EvaluateConfig(max_clips=1, language="detect")
    (found,) = decode_set(model, processor, split, detecting)
    assert transcribe_clip(model, processor, split.audio(0)) == (found.hypothesis, found.detected)


@pytest.mark.parametrize(
    ("again", "expected"), [("one two", "one two"), ("la " * 10, "la " * 10), ("ho " * 40, "la " * 30)],
    ids=["no loop", "a shorter loop", "a longer loop"],
)  # fmt: skip
def test_transcribe_decodes_a_loop_again_without_repeats(whisper, split, monkeypatch, again, expected):
    model, processor = whisper
    asked = []

    def texts(self, features, languages, *, repeats=True):
        asked.append((languages, repeats))
        return ["la " * 30 if repeats else again], [""]

    monkeypatch.setattr(Decoder, "texts", texts)
    found, language = transcribe_clip(model, processor, split.audio(0), "es")

    assert language == "es" and found.split() == expected.split()
    assert asked == [(["es"], True), (["es"], False)]


def test_without_repeats_is_what_transformers_calls_an_ngram_size_of_four(whisper, split):
    model, processor = whisper
    decoder = Decoder(model, processor)
    features = decoder.features([split.audio(0)])

    (plain,), (once,) = (decoder.texts(features, ["en"], repeats=repeats)[0] for repeats in (True, False))

    (asked,) = decode_set(model, processor, split, EvaluateConfig(max_clips=1, no_repeat_ngram_size=4))
    (greedy,) = decode_set(model, processor, split, EvaluateConfig(max_clips=1))
    assert (once, plain) == (asked.hypothesis, greedy.hypothesis)
    assert once != plain
    assert decoder.texts(features, ["en"])[0] == [plain]  # nothing of it stays
