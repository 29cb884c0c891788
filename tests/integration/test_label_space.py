"""Labels begin with a space because Whisper's own transcripts do: what its real weights say of that."""

from pathlib import Path

import pytest
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.features import Labels, log_mel, window_audio
from wfc_dist.data.sources import open_split

REPO = Path(__file__).parents[2]
WHISPER = REPO / "models" / "whisper-base"
NUM_CLIPS = 4


@pytest.fixture(scope="module")
def model():
    return WhisperForConditionalGeneration.from_pretrained(WHISPER).eval()


@pytest.fixture(scope="module")
def processor():
    return WhisperProcessor.from_pretrained(WHISPER)


@pytest.mark.skipif(not WHISPER.is_dir(), reason="needs models/whisper-base: make models/whisper-base/config.json")
@pytest.mark.parametrize("language", ["en", "es", "ru"])
def test_whisper_expects_a_space_before_the_first_word(language, model, processor):
    source = str(REPO / "examples" / "demo" / "data" / language)
    split = open_split(language, DatasetConfig(source=source, splits={"test": "test.jsonl"}), "test")
    labels, losses = Labels(split.clips, processor.tokenizer), {True: 0.0, False: 0.0}
    for number, clip in enumerate(split.clips[:NUM_CLIPS]):
        features = log_mel(processor.feature_extractor, window_audio(split, (number,), 0))[None]
        with torch.inference_mode():
            heard = model.model.encoder(features)
            ours = list(labels.window((number,)))
            bare = [*ours[:3], *processor.tokenizer(clip.text, add_special_tokens=False).input_ids, ours[-1]]
            for with_space, ids in ((True, ours), (False, bare)):
                losses[with_space] += float(model(encoder_outputs=heard, labels=torch.tensor([ids])).loss) / NUM_CLIPS
    print(f"{language}: loss per token {losses[True]:.2f} with a space before the text, {losses[False]:.2f} without")
    assert losses[False] > 1.2 * losses[True]
