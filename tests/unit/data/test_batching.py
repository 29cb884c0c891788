import logging
import pickle
from collections import Counter

import numpy as np
import pytest
import soundfile as sf
import tiny
import torch
from transformers import WhisperFeatureExtractor, WhisperProcessor

from wfc_dist.config.training import SpecAugmentConfig, TrainConfig
from wfc_dist.data.audio_files import AudioFile
from wfc_dist.data.batching import DevWindows, TrainingWindows
from wfc_dist.data.features import Labels, spec_augment, window_audio
from wfc_dist.data.packing import OPEN_WINDOWS, WINDOW_SAMPLES, ClipSize, pack
from wfc_dist.data.sources import Clip, Split
from wfc_dist.errors import InputError

torch.set_num_threads(1)
FRAME_TOKENS = 5  # start, language, task, no timestamps, end


@pytest.fixture(scope="module")
def processor():
    return WhisperProcessor(WhisperFeatureExtractor(feature_size=80), tiny.make_tokenizer())


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    path = tmp_path_factory.mktemp("noise") / "noise.wav"
    sf.write(path, 0.1 * np.random.default_rng(0).standard_normal(31 * 16_000), 16_000)
    return str(path)


def make_split(noise: str, durations_s: list[float], texts: list[str] | None = None, languages: list[str] | None = None) -> Split:
    texts = texts or [f"clip {index}" for index in range(len(durations_s))]
    languages = languages or ["en"] * len(durations_s)
    facts = zip(texts, languages, durations_s, strict=True)
    clips = [Clip(f"{index}", text, language, seconds) for index, (text, language, seconds) in enumerate(facts)]
    return Split("noise", "train", clips, [AudioFile(noise, 0.0, seconds) for seconds in durations_s])


def train_config(**changes) -> TrainConfig:
    return TrainConfig(
        **{"max_steps": 10, "warmup_steps": 0, "batch_size": 2, "gradient_accumulation": 2, "packing": True, **changes}
    )


@pytest.fixture
def windows(noise, processor):
    durations = [round(float(seconds), 3) for seconds in np.random.default_rng(1).uniform(2, 14, 23)]
    split = make_split(noise, durations, languages=["en", "es"] * 11 + ["en"])
    return TrainingWindows(split, train_config(spec_augment=SpecAugmentConfig()), processor, seed=7)


def assert_same(batches, others) -> None:
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert torch.equal(batch["labels"], other["labels"]) and torch.equal(batch["input_features"], other["input_features"])


@pytest.mark.parametrize("packing", [False, True])
def test_every_epoch_has_every_clip_once_in_another_order(noise, processor, packing):
    split = make_split(noise, [3.0 + index % 9 for index in range(40)])
    windows = TrainingWindows(split, train_config(packing=packing), processor, seed=1)
    plans = [windows.plan(epoch) for epoch in range(4)]
    for plan in plans:
        assert Counter(index for window in plan for index in window) == Counter(range(40))
    assert len({tuple(plan) for plan in plans}) == 4
    assert (
        windows.plan(0) == plans[0]
        and TrainingWindows(split, train_config(packing=packing), processor, seed=2).plan(0) != plans[0]
    )
    sequence = [windows.window(index) for index in range(sum(map(len, plans)))]
    assert sequence == [window for plan in plans for window in plan]


def test_packed_windows_keep_to_one_language_and_thirty_seconds(windows):
    plan = windows.plan(0)
    assert len(plan) < 23
    for window in plan:
        clips = [windows.split.clips[index] for index in window]
        assert len({clip.language for clip in clips}) == 1
        assert sum(clip.duration_s for clip in clips) + 0.3 * (len(clips) - 1) <= 30


def test_batches_are_a_function_of_position(windows, noise, processor):
    first = [windows.batch(step, micro, 0, 2) for step in range(3) for micro in range(2)]
    again = pickle.loads(pickle.dumps(windows))
    assert_same([again.batch(2, 1, 0, 2)], first[-1:])
    assert_same([batch for step in (1, 2) for batch in again.micro_batches(step, 0, 2)], first[2:])


def test_features_do_not_depend_on_threads(windows):
    alone = windows.batch(0, 0, 0, 1)
    torch.set_num_threads(2)
    try:
        assert_same([windows.batch(0, 0, 0, 1)], [alone])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_ranks_see_one_stretch_of_the_sequence(windows):
    def seen(world_size: int, accumulation: int, step: int) -> list[bytes]:
        changed = pickle.loads(pickle.dumps(windows))
        changed._train = windows._train.model_copy(update={"gradient_accumulation": accumulation})
        batches = [changed.batch(step, micro, rank, world_size) for micro in range(accumulation) for rank in range(world_size)]
        return [row.numpy().tobytes() for batch in batches for row in batch["input_features"]]

    assert seen(2, 1, 1) == seen(1, 2, 1)


@pytest.mark.parametrize("world_size", [1, 3])
def test_label_and_speech_counts_are_of_the_whole_step(windows, world_size):
    for step in range(3):
        batches = [windows.batch(step, micro, rank, world_size) for micro in range(2) for rank in range(world_size)]
        assert windows.num_label_tokens(step, world_size) == sum(int((batch["labels"] != -100).sum()) for batch in batches)
    count = 4 * world_size
    expected = sum(windows.split.clips[clip].duration_s for index in range(count, 2 * count) for clip in windows.window(index))
    assert windows.seconds(1, world_size) == pytest.approx(expected)
    assert windows.hours == pytest.approx(sum(clip.duration_s for clip in windows.split.clips) / 3600)


def test_labels_are_those_of_whisper_without_the_start_token(noise, processor):
    windows = TrainingWindows(make_split(noise, [2.0, 3.0], ["hello", "you"]), train_config(batch_size=1), processor, seed=1)
    window = windows.window(0)
    words = " ".join(windows.split.clips[index].text for index in window)
    labels = windows.batch(0, 0, 0, 1)["labels"][0].tolist()
    assert processor.tokenizer.decode(labels) == f"<|en|><|transcribe|><|notimestamps|> {words}<|endoftext|>"


def test_languages_without_spaces_begin_without_one(processor):
    clips = [Clip("a", "你好", "zh", 1.0), Clip("b", "再见", "zh", 1.0)]
    text = processor.tokenizer.decode(Labels(clips, processor.tokenizer).window((1, 0)))
    assert text == "<|zh|><|transcribe|><|notimestamps|>再见 你好<|endoftext|>"


def test_label_limit_is_kept_to_the_token(noise, processor, caplog):
    fits = "x" * (448 - FRAME_TOKENS - 1)  # the byte tokenizer gives one token a letter, and one for the space in front
    split = make_split(noise, [1.0, 1.0, 1.0], [fits, fits + "x", "short"])
    with caplog.at_level(logging.INFO, logger="wfc_dist"):
        windows = TrainingWindows(split, train_config(batch_size=1, gradient_accumulation=1), processor, seed=1)
    assert windows.usable == [0, 2]
    assert "1 of 3 clips left out (1 over 448 label tokens)" in caplog.text
    assert sorted(windows.plan(0)) == [(0,), (2,)], "nothing fits beside a clip that fills the label"
    assert max(windows.batch(step, 0, 0, 1)["labels"].shape[1] for step in range(2)) == 447  # without the start token


def test_packed_labels_straddle_the_limit(noise, processor):
    half = (448 - FRAME_TOKENS) // 2
    for extra, num_windows in ((0, 1), (1, 1), (2, 2)):
        texts = ["x" * (half - 1), "y" * (half - 1 + extra)]
        windows = TrainingWindows(make_split(noise, [1.0, 1.0], texts), train_config(), processor, seed=1)
        assert len(windows.plan(0)) == num_windows


def test_packed_seconds_straddle_thirty(noise, processor):
    for seconds, num_windows in ((14.7, 1), (14.701, 2)):
        windows = TrainingWindows(make_split(noise, [15.0, seconds]), train_config(), processor, seed=1)
        assert len(windows.plan(0)) == num_windows
        assert all(len(window_audio(windows.split, window, 4800)) <= WINDOW_SAMPLES for window in windows.plan(0))


def test_thirty_seconds_are_used_and_more_are_left_out(noise, processor):
    windows = TrainingWindows(make_split(noise, [30.0, 30.0001, 0.5, 0.4999]), train_config(packing=False), processor, seed=1)
    assert windows.usable == [0, 2]
    assert len(window_audio(windows.split, (0,), 4800)) == WINDOW_SAMPLES


def test_a_split_without_usable_clips_is_refused(noise, processor):
    split = make_split(noise, [0.1, 31.0, 1.0, 1.0], ["a", "b", "", "c" * 500])
    message = "1 longer than 30 s, 1 over 448 label tokens, 1 shorter than 0.5 s, 1 without text"
    with pytest.raises(InputError, match=f"noise/train: none of 4 clips is usable .{message}"):
        TrainingWindows(split, train_config(), processor, seed=1)


def test_a_language_the_tokenizer_lacks_is_refused(noise, processor):
    with pytest.raises(InputError, match=r"no <\|xx\|>; use a multilingual Whisper"):
        TrainingWindows(make_split(noise, [1.0], languages=["xx"]), train_config(), processor, seed=1)


def test_window_audio_puts_silence_between_clips(noise):
    split = make_split(noise, [1.0, 0.5, 2.0])
    samples = window_audio(split, (1, 0), 4800)
    assert len(samples) == 8_000 + 4_800 + 16_000
    np.testing.assert_array_equal(samples[:8_000], split.audio(1))
    assert not samples[8_000:12_800].any()
    np.testing.assert_array_equal(samples[12_800:], split.audio(0))


def test_audio_shorter_than_stated_leaves_silence(tmp_path):
    sf.write(tmp_path / "a.wav", np.full(16_000, 0.5), 16_000)
    clips = [Clip("a", "a", "en", 1.5), Clip("b", "b", "en", 1.0)]
    split = Split("s", "train", clips, [AudioFile(str(tmp_path / "a.wav"), 0, 1.5), AudioFile(str(tmp_path / "a.wav"))])
    samples = window_audio(split, (0, 1), 0)
    assert len(samples) == 40_000 and samples[:16_000].all() and not samples[16_000:24_000].any() and samples[24_000:].all()


def test_features_are_those_of_the_processor(noise, processor):
    windows = TrainingWindows(make_split(noise, [4.0]), train_config(batch_size=1), processor, seed=1)
    expected = processor(windows.split.audio(0), sampling_rate=16_000, return_tensors="pt").input_features
    assert torch.equal(windows.batch(0, 0, 0, 1)["input_features"], expected)


def test_spec_augment_is_pure_bounded_and_inside_the_speech():
    features, config = torch.ones(80, 3000), SpecAugmentConfig(time_masks=2, time_width=30, frequency_masks=0, frequency_width=10)
    masked = [spec_augment(features, 100 * 160, config, (1, seed)) for seed in range(50)]
    assert torch.equal(masked[3], spec_augment(features, 100 * 160, config, (1, 3))) and bool(features.all())
    frames = torch.stack([(mask == 0).all(0) for mask in masked])
    assert not frames[:, 100:].any() and 0 < int(frames.sum(1).max()) <= 60
    rows = [(spec_augment(features, 1600, SpecAugmentConfig(time_masks=0), (seed,)) == 0).all(1).sum() for seed in range(50)]
    assert 0 < max(rows) <= 60


def test_masks_differ_between_epochs_and_seeds(noise, processor):
    split, config = (
        make_split(noise, [4.0]),
        train_config(batch_size=1, gradient_accumulation=1, spec_augment=SpecAugmentConfig()),
    )
    windows, other = (TrainingWindows(split, config, processor, seed=seed) for seed in (1, 2))
    first, second, third = (w.batch(step, 0, 0, 1)["input_features"] for w, step in ((windows, 0), (windows, 1), (other, 0)))
    assert not torch.equal(first, second) and not torch.equal(first, third)


def test_packing_closes_the_oldest_window_when_none_has_room():
    sizes = [ClipSize(6, 1, "en") for _ in range(OPEN_WINDOWS + 1)] + [ClipSize(3, 1, "en")]
    windows = pack(range(len(sizes)), sizes, gap_samples=1, max_tokens=10, max_samples=10)
    assert windows[0] == (0,), "closed before the small clip came"
    assert windows[1] == (1, OPEN_WINDOWS + 1), "the oldest window that was still open"
    assert len(windows) == OPEN_WINDOWS + 1


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_dev_windows_give_every_rank_as_many_batches_and_every_label_once(noise, processor, world_size):
    windows = DevWindows(make_split(noise, [12.0, 13.0, 14.0, 9.0, 8.0, 28.0, 20.0]), train_config(), processor)
    assert sorted(index for window in windows.windows for index in window) == list(range(7))
    batches = [
        windows.batch(index, 2, rank, world_size)
        for index in range(windows.num_batches(2, world_size))
        for rank in range(world_size)
    ]
    assert sum(int((batch["labels"] != -100).sum()) for batch in batches) == windows.num_label_tokens
    assert all(batch["input_features"].shape == (2, 80, 3000) for batch in batches)
