import json
import re

import numpy as np
import pytest
from scored_runs import BASES, MODULES, hypotheses_with, make_config, make_run, put

from wfc_dist.errors import InputError
from wfc_dist.evaluation.hypotheses import SCHEMA_VERSION, Hypothesis, write_hypotheses
from wfc_dist.reports.pieces import heat
from wfc_dist.reports.plots import running_mean
from wfc_dist.reports.run import write_report
from wfc_dist.storage import durable


@pytest.fixture
def run(tmp_path):
    config = make_config(tmp_path)
    folder = make_run(tmp_path / "r", config)
    for index, rates in BASES.items():
        put(folder, config, max(1, index), f"base-{index:04d}", rates)
    put(folder, config, 1, "cs", BASES[0] | {"cs": 1})
    curve = folder / "round-0001" / "training-curves" / "cs.jsonl"
    curve.parent.mkdir()
    rows = [{"step": step, "loss": 3 / step, "lr": 1e-3} for step in range(1, 20)] + [{"step": 10, "dev_loss": 0.5}]
    curve.write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = {"exactness_gap": 0.3612, "update_loss": 1e-3, "gap_per_module": dict.fromkeys(MODULES, 0.36), "method": "mean"}
    durable.write_json(folder / "base-0001" / "manifest.json", {"schema": 1, "files": {}, "sha256": "1" * 64, **facts})
    durable.append_line(folder / "ledger.jsonl", json.dumps({"time": "t", "event": "base", "round": 1, "sha256": "ab" * 32}))
    return folder


def test_report_is_one_self_contained_file_with_every_section(run):
    path = write_report(run)
    text = path.read_text()

    assert path == run / "report" / "index.html"
    assert text.count("<svg") == 5  # changes, errors, bases, one round's curves, gaps
    assert not re.search(r"<script|<link|<img|@import|url\((?!#)", text)
    assert not re.search(r'(src|href)="(?!#)', text.replace("xlink:href", "href"))
    for piece in ("3 improved", "mean_j (R[t_j][j] - R[T][j])", "0.3612", "abababababab", "1:cs", "encoder self"):
        assert piece in text
    assert "left out" not in text


def test_errors_of_base_0_of_the_last_base_and_of_adapters_are_explained(run):
    text = write_report(run).read_text()
    tree = json.loads((run / "report" / "errors.json").read_text())

    assert "80.0 % = 80.0 substitutions, 0.0 deletions, 0.0 insertions; 100 % of the clips have a hallucination" in text
    assert set(tree["sets"]) == {"zh", "cs", "ar", "en", "fr"}
    assert set(tree["sets"]["cs"]) == {"base 0", "base 2", "1:cs"}
    assert tree["sets"]["cs"]["base 0"]["figures"]["substitutions"]["value"] == pytest.approx(0.4)
    scores = json.loads((run / "round-0001" / "evaluation" / "base-0000" / "scores.json").read_text())["sets"]["cs"]
    assert [tree["sets"]["cs"]["base 0"]["figures"]["rate"][key] for key in ("low", "high")] == [scores["low"], scores["high"]]


def test_switches_languages_and_loops_have_their_tables(run):
    path = run / "round-0002" / "evaluation" / "base-0002" / "cs.jsonl"
    marked = Hypothesis("x", ("hi que tal",), "hi que" + " vale" * 9, "es", 1.0, "de", (("en", "es", "es"),))
    write_hypotheses(path, {"schema": SCHEMA_VERSION, "model_sha256": "another"}, [*hypotheses_with(3), marked])

    text = write_report(run).read_text()

    for piece in (
        "Words at a change of language",
        "WER at a switch",
        "Sets of several languages",
        "language mistaken",
        "vale&#34; x 9",
    ):
        assert piece in text
    assert "left out" not in text


def test_run_without_hypotheses_is_told_so_and_a_damaged_file_leaves_the_chapter_out(run):
    path = run / "round-0001" / "evaluation" / "cs" / "cs.jsonl"
    path.write_text("{")
    assert "is damaged" in write_report(run).read_text()

    for found in run.glob("round-*/evaluation/*/*.jsonl"):
        found.unlink()
    assert "No hypotheses are on disk" in write_report(run).read_text()


def test_curvature_and_fits_are_not_called_idle(run):
    folder = run / "round-0001" / "logs" / "attempt-1"
    folder.mkdir(parents=True)
    for process, name, seconds in (("gang-0-rank-0", "curvature", 7), ("coordinator", "fit", 8)):
        events = [{"time_s": 0, "event": f"{name}.start"}, {"time_s": seconds, "event": f"{name}.end"}]
        (folder / f"events-{process}.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))

    text = write_report(run).read_text()

    assert '<th scope="col">curvature</th><th scope="col">fitting</th><th scope="col">idle</th>' in text
    assert '<th scope="row">coordinator</th><td>-</td><td>8.0</td><td>-</td>' in text
    assert '<th scope="row">gang-0-rank-0</th><td>7.0</td><td>-</td><td>1.0</td>' in text


def test_report_is_deterministic(run):
    first = write_report(run).read_text()

    assert write_report(run).read_text() == first


def test_run_without_anything_but_its_configuration(tmp_path):
    folder = make_run(tmp_path / "r", make_config(tmp_path))

    text = write_report(folder).read_text()

    for note in ("No model has been scored yet", "No learning curves", "No round has been merged", "The ledger is empty"):
        assert note in text


def test_damaged_piece_is_noted_and_the_rest_stands(run):
    (run / "round-0001" / "training-curves" / "cs.jsonl").write_text("no json\n")

    text = write_report(run).read_text()

    assert text.count("left out") == 1
    assert "0.3612" in text


def test_names_and_texts_are_escaped(run):
    durable.append_line(run / "ledger.jsonl", json.dumps({"time": "t", "event": "<script>alert(1)</script>"}))

    assert "<script>" not in write_report(run).read_text()


def test_other_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a run directory"):
        write_report(tmp_path)


def test_colours_run_from_better_to_worse():
    assert (heat(0), heat(-0.25), heat(0.25)) == (0, -0.5, 0.5)
    assert (heat(-0.5), heat(-3), heat(0.5), heat(9)) == (-1, -1, 1, 1)


def test_of_many_rounds_the_last_are_drawn_and_the_others_stand_in_a_table(run):
    tree = json.loads((run / "config.json").read_text())
    tree["config"]["rounds"] = [["cs"]] * 30
    (run / "config.json").write_text(json.dumps(tree))
    first = run / "round-0001" / "training-curves" / "cs.jsonl"
    before = write_report(run).read_text().count("<svg")
    for index in range(2, 31):
        path = run / f"round-{index:04d}" / "training-curves" / "cs.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(first.read_text())

    text = write_report(run).read_text()

    assert text.count("<svg") == before + 11, "12 rounds instead of one"
    assert "18 rounds that are not drawn" in text and "from 3 at step 1 to 0.158 at step 19" in text
    assert ">Round 30<" in text and ">Round 18<" not in text


def test_running_mean_by_hand():
    assert running_mean(np.array([1.0, 3.0, 5.0, 7.0]), 2).tolist() == [1, 2, 4, 6]


def test_the_page_names_the_metric_of_every_set_where_sets_differ(run):
    assert "(WER)" not in write_report(run).read_text()
    tree = json.loads((run / "config.json").read_text())
    tree["config"]["datasets"]["cs"]["metric"] = "cer"
    (run / "config.json").write_text(json.dumps(tree))
    (run / "round-0001" / "evaluation" / "cs" / "scores.json").unlink()

    text = write_report(run).read_text()
    errors = json.loads((run / "report" / "errors.json").read_text())

    assert errors["metric"] == dict.fromkeys(("zh", "ar", "en", "fr"), "wer") | {"cs": "cer"}
    assert errors["sets"]["cs"]["base 0"]["figures"]["rate"]["value"] == pytest.approx(20 * 4 / (20 * 19))
    assert text.count("WER (CER: cs) in percent, corpus level") == 2 and "WER (CER: cs), in percent of the" in text
    assert "a mean of error rates, CER and WER" in text
    assert '<th scope="row">cs (CER)</th>' in text and '<th scope="row">en (WER) (protected)</th>' in text
    assert text.count(">cs (CER)<") >= 5, "the tables of changes, matrix and errors, and the plots"


def test_the_share_of_waiting_for_data_stands_above_the_curves(run):
    path = run / "round-0001" / "training-curves" / "cs.jsonl"
    assert "waited for data" not in write_report(run).read_text(), "a log that does not say"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    timed = [{**row, "step_s": 0.9, "data_wait_s": 0.1} if "loss" in row else row for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in timed))

    assert "share of the time that a trainer waited for data: cs 10%" in write_report(run).read_text()
