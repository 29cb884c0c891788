"""The analysis of run directories that were put together by hand: finished, unfinished, damaged, none."""

import json
import math
import re

import pytest
from adapter_runs import MODULES, make_run_with_adapters, put_adapter
from scored_runs import make_config, make_run

from wfc_dist.analysis.run import analyze_run, as_tree
from wfc_dist.errors import InputError
from wfc_dist.reports.analysis import analysis_page, verdict_table, write_analysis
from wfc_dist.runs.handle import Run
from wfc_dist.weights import adapter_config, base_chain, peft_folder


@pytest.fixture
def run(tmp_path):
    return make_run_with_adapters(tmp_path)


def test_page_and_numbers(run):
    page, numbers = write_analysis(run, analyze_run(Run(run)))
    text, tree = page.read_text(), json.loads(numbers.read_text())

    assert page == run / "report" / "analysis" / "index.html" and numbers.name == "analysis.json"
    # both rounds: densities, QQ, kurtosis, factors, variance, norms, prior; the one with two adapters: pairs, signs, overlap
    assert text.count("<svg") == 2 * 7 + 3
    assert not re.search(r"<script|<link|<img|@import|url\((?!#)", text)
    assert not re.search(r'(src|href)="(?!#)', text.replace("xlink:href", "href"))
    assert "left out" not in text and "bootstrap" not in text
    first, second = tree["rounds"]
    assert first["adapters"] == ["cs", "ar"] and list(first["modules"]) == sorted(MODULES)
    assert first["variance"]["ratio"] == pytest.approx(0.5, abs=0.05)
    assert first["own"]["cosine"] == pytest.approx(1) and second["own"] is None
    assert second["variance"]["mean_cosine"] is None and second["sign_agreement"] == [[1]]
    assert second["verdicts"][0]["word"] == "cannot be told"
    assert set(first["prior"]) == {"cs", "ar"} and len(first["verdicts"]) == 3


def test_everything_is_deterministic(run):
    first = [path.read_bytes() for path in write_analysis(run, analyze_run(Run(run)))]
    assert [path.read_bytes() for path in write_analysis(run, analyze_run(Run(run)))] == first


def test_what_is_missing_is_noted_and_the_rest_stands(run):
    (run / "round-0001" / "adapters" / "ar").rename(run / "round-0001" / "adapters" / "ar.tmp-1")

    analysis = analyze_run(Run(run))

    assert analysis.notes[0] == "round 1 is not finished: 1 of 2 adapters"
    assert "norms are not compared with the weights: base 0 is not committed" in analysis.notes
    assert all(note in analysis_page(analysis) for note in analysis.notes)
    assert as_tree(analysis)["rounds"][0]["modules"][MODULES[0]]["weight_norm"] is None


def test_adapters_that_are_zero_or_of_other_ranks(tmp_path):
    other = make_run(tmp_path / "other", make_config(tmp_path, rounds=(("cs", "ar"), ("zh",), ("zh",))))
    put_adapter(other, 1, "cs", 1)
    put_adapter(other, 1, "ar", 2, lora_r=6)
    put_adapter(other, 2, "zh", 1, zero=True)

    analysis = analyze_run(Run(other))
    page = analysis_page(analysis)
    tree = json.loads(json.dumps(as_tree(analysis), allow_nan=False))

    assert "differ in r" in page and list(tree["rounds"][0]["pooled"]) == ["updates"]
    assert tree["rounds"][1]["variance"]["ratio"] is None
    assert tree["rounds"][1]["verdicts"][1]["word"] == "cannot be told"


def test_opposite_adapters_cancel_to_an_average_of_nothing(tmp_path):
    run = make_run(tmp_path / "r", make_config(tmp_path))
    put_adapter(run, 1, "cs", 1)
    put_adapter(run, 1, "ar", 1)
    place = run / "round-0001" / "adapters" / "ar"
    factors = peft_folder.read_factors(place)
    state = {f"base_model.model.{name}.lora_A.weight": item.a_RI for name, item in factors.items()}
    state |= {f"base_model.model.{name}.lora_B.weight": -item.b_OR for name, item in factors.items()}
    peft_folder.write_peft(place, state, adapter_config.read_config(place))

    analysis = analyze_run(Run(run))

    found = analysis.rounds[0].measures
    assert found.variance.ratio == pytest.approx(0, abs=1e-9) and found.sign_agreement[0][1] == 0
    assert math.isclose(found.cosines["updates"][0][1], -1) and "<svg" in analysis_page(analysis)


def test_console_table_has_every_verdict(run):
    table = verdict_table(analyze_run(Run(run)))
    assert table.row_count == 6 and [column.header for column in table.columns][-1] == "verdict"


def test_no_run_no_adapter_no_update(run, tmp_path):
    with pytest.raises(InputError, match="not a run directory"):
        analyze_run(Run(tmp_path))
    with pytest.raises(InputError, match="no adapter yet"):
        analyze_run(Run(make_run(tmp_path / "empty", make_config(tmp_path))))
    with pytest.raises(InputError, match="base 0 is not committed; leave --line out"):
        analyze_run(Run(run), num_points=3)
    (run / "round-0001" / "delta" / base_chain.DELTA).unlink()
    with pytest.raises(InputError, match="no round has its update yet"):
        analyze_run(Run(run), num_points=3)
