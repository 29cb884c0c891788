"""The card of a base that is handed on: its errors, and results in the form of the hub."""

from pathlib import Path

from huggingface_hub import ModelCard
from scored_runs import make_scored_run

from wfc_dist.exporting.full_card import error_table, full_card
from wfc_dist.runs.handle import Run


def test_the_card_has_the_errors_of_the_base_and_of_base_0_with_intervals(tmp_path: Path) -> None:
    run = Run(make_scored_run(tmp_path))
    card = ModelCard(full_card(run, 2, ["- Format: x."]))
    scores = run.scores_of(2)
    assert scores is not None
    low, high = (100 * scores.sets["zh"][key] for key in ("low", "high"))
    assert "| test set | metric | clips | units | base 0 | base 2 |" in card.text
    assert "| zh | wer | 20 | 20 | 50.0 [" in card.text and f" | 20.0 [{low:.1f}, {high:.1f}] |" in card.text
    assert card.text.index("## Error by test set") < card.text.index("## This copy") < card.text.index("## Lineage")
    results = {item.dataset_name: item.metric_value for item in card.data.eval_results or ()}
    assert results == {name: round(100 * score["rate"], 2) for name, score in scores.sets.items()}


def test_base_0_stands_alone_and_a_base_without_scores_has_no_table(tmp_path: Path) -> None:
    run = Run(make_scored_run(tmp_path))
    assert "| test set | metric | clips | units | base 0 |\n|---|---|---|---|---|\n" in full_card(run, 0)
    for path in run.paths.all_scores():
        path.unlink()
    card = ModelCard(full_card(run, 2))
    assert "## Error by test set" not in card.text and card.data.eval_results is None


def test_a_set_that_base_0_was_not_scored_on_and_a_score_without_interval_are_marked() -> None:
    score = {"metric": "cer", "rate": 0.125, "low": None, "high": None, "num_clips": 3}
    assert error_table({"new": score}, {"old": score}, 1)[-1] == "| new | cer | 3 | - | - | 12.5 |", (
        "scores of earlier versions do not say how many units they have"
    )
