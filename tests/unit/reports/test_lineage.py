"""The drawing and the table of a run's lineage."""

import json
import re

import pytest
from scored_runs import make_config, make_full_run, make_run

from wfc_dist.reports.lineage import lineage_section
from wfc_dist.reports.run import write_report
from wfc_dist.runs.handle import Run
from wfc_dist.storage import durable


def put_base(folder, index, adapters):
    facts = {
        "schema": 1,
        "files": {},
        "sha256": f"{index:02d}" * 32,
        "adapters": adapters,
        "weights": dict.fromkeys(adapters, 0.5),
    }
    durable.write_json(folder / f"base-{index:04d}" / "manifest.json", facts if index else facts | {"model": "m"})


def boxes(section):
    return [(box.text, box.below) for part in section.parts if part.drawing for box in part.drawing.boxes]


def test_bases_and_adapters_in_the_order_of_the_rounds(tmp_path):
    folder = make_run(tmp_path / "r", make_config(tmp_path))
    for index, adapters in enumerate(({}, {"cs": "c" * 64, "ar": "a" * 64}, {"zh": "f" * 64})):
        put_base(folder, index, adapters)

    section = lineage_section(Run(folder))

    assert boxes(section) == [
        ("base 0", "00000000"), ("cs", "cccccccc"), ("ar", "aaaaaaaa"), ("base 1", "01010101"), ("zh", "ffffffff"),
        ("base 2", "02020202"),
    ]  # fmt: skip
    drawing = section.parts[0].drawing
    assert "base 0 and 2 adapters (cs, ar) make base 1; base 1 and 1 adapters (zh) make base 2" in drawing.alternative
    assert [len(row) for row in section.parts[-1].table.rows if not isinstance(row, str)] == [4] * 4
    inside = [
        box for box in drawing.boxes if box.x >= 0 and box.x + box.width <= drawing.width and 0 <= box.y <= drawing.height - 42
    ]
    assert len(inside) == len(drawing.boxes)


def test_every_link_leads_to_a_round_of_the_page(tmp_path):
    text = write_report(make_full_run(tmp_path)).read_text()

    links = set(re.findall(r'<a href="#(scores-of-\d+)"', text))
    assert links == {"scores-of-1", "scores-of-2"} and all(f'id="{link}"' in text for link in links)


def test_a_round_that_is_not_finished_is_said_to_be_to_come(tmp_path):
    folder = make_run(tmp_path / "r", make_config(tmp_path))
    put_base(folder, 0, {})
    manifest = {"schema": 1, "files": {}, "sha256": "c" * 64, "hours": 2.0}
    durable.write_json(folder / "round-0001" / "adapters" / "cs" / "manifest.json", manifest)

    section = lineage_section(Run(folder))

    assert boxes(section) == [("base 0", "00000000"), ("cs", "cccccccc"), ("base 1", "to come")]
    assert "not committed yet" in section.parts[0].drawing.alternative


@pytest.mark.parametrize(("number", "drawn"), [(11, 11), (12, 11), (200, 11)])
def test_many_adapters_are_counted_and_all_stand_in_the_table(tmp_path, number, drawn):
    names = [f"a-rather-long-name-{place}" for place in range(number)]
    folder = make_run(tmp_path / "r", make_config(tmp_path))
    put_base(folder, 0, {})
    put_base(folder, 1, dict.fromkeys(names, "d" * 64))

    section = lineage_section(Run(folder))

    texts = [text for text, _ in boxes(section)]
    assert len(texts) == drawn + 2 and (f"{number - 10} more" in texts) == (number > 11)
    assert all(len(text) <= 15 for text in texts)
    assert json.dumps([row[0].text for row in section.parts[-1].table.rows if not isinstance(row, str)][1:]) == json.dumps(names)


def test_many_rounds_stand_in_rows(tmp_path):
    folder = make_run(tmp_path / "r", make_config(tmp_path, rounds=[("cs",), ("ar",), ("zh",)] * 3))
    for index in range(9):
        put_base(folder, index, {"cs": "c" * 64} if index else {})

    drawings = [part.drawing for part in lineage_section(Run(folder)).parts if part.drawing]
    assert len(drawings) == 3 and max(drawing.width for drawing in drawings) <= 1064
    assert [drawing.boxes[0].text for drawing in drawings] == ["base 0", "base 3", "base 6"]


def test_without_a_base_there_is_nothing_to_draw(tmp_path):
    assert "No base" in lineage_section(Run(make_run(tmp_path / "r", make_config(tmp_path)))).parts[0].note
