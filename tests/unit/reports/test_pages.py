"""Every page in Chromium, on screens of every width and on paper: nothing is cut, and axe-core finds nothing serious."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import yaml
from adapter_runs import make_run_with_adapters
from browser import VIEWS
from scored_runs import make_full_run

from wfc_dist.analysis.run import analyze_run
from wfc_dist.compare import settings
from wfc_dist.compare.results import SystemRow, Value
from wfc_dist.compare.sweep import load as load_sweep
from wfc_dist.evaluation.continual import FIGURES
from wfc_dist.reports import comparison
from wfc_dist.reports.analysis import write_analysis
from wfc_dist.reports.run import write_report
from wfc_dist.reports.sweep import swept
from wfc_dist.reports.theme import DARK, LIGHT
from wfc_dist.runs.handle import Run

pytestmark = pytest.mark.process
DATA = {name: {"source": name, "splits": {"train": "t", "test": "e"}} for name in ("x", "y", "a-data-set-with-a-long-name")}


def system(name: str, number: int) -> SystemRow:
    at = 0.1 * number - 0.15
    values = {
        figure: Value(at, at - 0.05, at + 0.05, None, None, None, None, 0.01, 0.2, 20, ("better", "same", "worse")[number % 3])
        for figure in FIGURES
    }
    return SystemRow(name, "", [1, 2], 2, 1.0 + number, values)


def comparison_page(folder: Path) -> Path:
    systems = {"mean-2": {"every": 2}, "sequential": {}, "a-system-with-a-rather-long-name": {"every": 3}}
    compare = {"seeds": [1, 2], "reference": "mean-2", "systems": systems}
    protected = {"p": {"source": "p", "splits": {"test": "e"}}}
    tree = {"run": {"name": "s", "dir": str(folder)}, "base": {"model": "m"}, "datasets": DATA, "compare": compare}
    (folder / "c.yaml").write_text(yaml.safe_dump(tree | {"evaluate": {"protected": protected}}))
    loaded = settings.load(folder / "c.yaml")
    rows = [system(name, number) for number, name in enumerate(["untouched", *systems])]
    return comparison.write(loaded, rows, {"sequential-seed2": "base 1 is not finite; see /a/long/path/" + "x" * 120})


def sweep_page(folder: Path) -> Path:
    tree = {"run": {"name": "s", "dir": str(folder)}, "base": {"model": "m"}, "datasets": DATA,
            "sweep": {"over": {"every": [1, 2], "lora.r": [4, 8]}}}  # fmt: skip
    (folder / "s.yaml").write_text(yaml.safe_dump(tree))
    sweep = load_sweep(folder / "s.yaml")
    names = ["untouched", *(f"every-{every}_r-{rank}" for every, rank in itertools.product((1, 2), (4, 8)))]
    rows = [system(name, number) for number, name in enumerate(names)]
    found = swept(sweep, rows)
    return comparison.write(sweep.comparison, found.rows, {}, found)


def analysis_page(run_dir: Path) -> Path:
    return write_analysis(run_dir, analyze_run(Run(run_dir)))[0]


PAGES = {
    "report": lambda folder: write_report(make_full_run(folder)),
    "comparison": comparison_page,
    "sweep": sweep_page,
    "analysis": lambda folder: analysis_page(make_run_with_adapters(folder)),
}


@pytest.fixture(scope="module", params=PAGES)
def page(request, tmp_path_factory):
    return PAGES[request.param](tmp_path_factory.mktemp("pages"))


@pytest.mark.parametrize("view", VIEWS)
def test_every_page_at_every_width_in_both_schemes(page, view, visit):
    visit(page, *view).check()


def test_headings_regions_and_names(page, visit):
    shown = visit(page).page

    levels = [int(tag[1]) for tag in shown.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => h.tagName)")]
    assert levels.count(1) == 1 and levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert shown.evaluate("document.documentElement.lang") == "en"
    assert shown.locator("svg:not([role=img], .drawing)").count() == 0 and shown.locator("svg").count() > 0
    assert all(len(text) > 30 for text in shown.locator("svg > desc").all_text_contents())
    assert shown.locator("table").count() == shown.locator("table > caption").count() > 0
    assert shown.locator("th:not([scope])").count() == 0
    names = shown.evaluate("[...document.querySelectorAll('[role=region],[role=group]')].map(r => r.getAttribute('aria-label'))")
    assert len(names) == len(set(names)) > 0
    ids = shown.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_the_keyboard_skips_to_the_content_and_reaches_what_scrolls(page, visit):
    shown = visit(page, 390).page
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.className") == "skip"
    assert shown.evaluate("document.activeElement.getBoundingClientRect().left") >= 0, "it can be seen"
    shown.keyboard.press("Enter")
    assert shown.evaluate("document.activeElement.id") == "content"

    scrolled = """[...document.querySelectorAll('*')].filter(element => element.scrollWidth > element.clientWidth + 1
        && ['auto', 'scroll'].includes(getComputedStyle(element).overflowX) && element.tabIndex < 0).length"""
    assert shown.evaluate(scrolled) == 0


def test_a_phone_shows_what_is_said_of_a_table_without_scrolling(page, visit):
    shown = visit(page, 390).page
    cut = """[...document.querySelectorAll('.still')].filter(element => element.getClientRects().length
        && element.getBoundingClientRect().right > document.documentElement.clientWidth).map(element => element.textContent)"""
    assert shown.locator(".still").count() > 0 and shown.evaluate(cut) == []
    assert (
        shown.evaluate("""[...document.querySelectorAll('pre')].filter(pre => pre.scrollWidth > pre.clientWidth + 1).length""")
        == 0
    )


def test_plots_follow_the_scheme(page, visit):
    text = "getComputedStyle(document.querySelector('svg:not(.painted, .drawing) text')).fill"
    fills = {scheme: visit(page, 800, scheme).page.evaluate(text) for scheme in ("light", "dark")}
    assert fills == {scheme: rgb(colours["ink"]) for scheme, colours in (("light", LIGHT), ("dark", DARK))}


def rgb(color: str) -> str:
    return "rgb({}, {}, {})".format(*(int(color[at : at + 2], 16) for at in (1, 3, 5)))


def test_on_paper_nothing_is_cut_and_what_is_folded_is_open(page, visit):
    shown = visit(page, 688).page  # A4 without its margins
    shown.emulate_media(media="print", color_scheme="dark")
    cut = """[...document.querySelectorAll('main *')].filter(element => !element.closest('.unseen') &&
        element.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(element => element.textContent)"""
    assert shown.evaluate(cut) == []
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    heights = "[...document.querySelectorAll('details > :not(summary)')].map(element => element.getBoundingClientRect().height)"
    assert all(height > 0 for height in shown.evaluate(heights))

    assert shown.pdf(format="A4").count(b"/Type /Page\n") > 1


def luminance(color):
    channels = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722]), linear


BLINDNESS = {
    "none": np.eye(3),
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
"""Kind -> matrix on linear RGB. Source: Machado, Oliveira and Fernandes 2009, severity 1."""
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(linear):
    xyz = TO_XYZ @ np.clip(linear, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_differ_for_every_kind_of_colour_blindness(colours, kind):
    for group in ([f"series-{number}" for number in range(8)], ["substitution", "deletion", "insertion", "loop"]):
        seen = [lab(np.array(BLINDNESS[kind]) @ luminance(colours[name])[1]) for name in group]
        assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)) > 7


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_stand_out_from_the_page(colours):
    paper = luminance(colours["paper"])[0]
    ratios = {
        name: (max(paper, other) + 0.05) / (min(paper, other) + 0.05)
        for name, color in colours.items() if color.startswith("#")
        for other in [luminance(color)[0]]
    }  # fmt: skip
    texts = ("ink", "soft", "link", "substitution", "deletion", "insertion", "loop")
    assert min(ratios[name] for name in texts) > 4.5
    assert min(ratio for name, ratio in ratios.items() if name.startswith("series") or name == "grey") > 3
