"""What the checks of pages find: each check must be able to fail."""

import pytest
from browser import VIEWS

GOOD = (
    "<!doctype html><html lang=en><title>t</title><meta name=viewport content='width=device-width'>"
    "<main><h1>A page</h1>{}</main></html>"
)


@pytest.fixture
def shown(visit, tmp_path):
    def show(body, *view):
        path = tmp_path / "page.html"
        path.write_text(GOOD.format(body))
        return visit(path, *view)

    return show


@pytest.mark.process
@pytest.mark.parametrize("view", VIEWS)
def test_a_good_page_passes_at_every_width_in_both_schemes(shown, view):
    scheme = "matchMedia('(prefers-color-scheme: dark)').matches"
    found = shown("<p>Nothing is wrong here.</p>", *view)

    found.check()
    assert found.page.evaluate(f"[innerWidth, {scheme}]") == [view[0], view[1] == "dark"]


@pytest.mark.process
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<img alt=a src='http://192.0.2.1/a.png'>", "request to http://192.0.2.1/a.png"),
        ("<script>new WebSocket('ws://192.0.2.1/a')</script>", "web socket to ws://192.0.2.1/a"),
        ("<script>console.error('no good')</script>", "console: no good"),
        ("<script>throw new Error('thrown')</script>", "uncaught: thrown"),
        ("<p style='width: 2000px'>wide</p>", "wider than the window"),
        ("<p style='position: absolute; left: -50px; width: 3000px'>wide</p>", "wider than the window"),
        ("<p style='color: #ddd'>pale</p>", "color-contrast"),
        ("<img src='data:,'>", "image-alt"),
    ],
)
def test_every_kind_of_problem_is_found(shown, body, said):
    with pytest.raises(AssertionError, match=said.replace("(", r"\(")):
        found = shown(body)
        found.page.wait_for_load_state("networkidle")
        found.check()


@pytest.mark.process
def test_what_scrolls_on_its_own_is_not_wider_than_the_window(shown):
    scrolled = "<div style='overflow-x: auto' tabindex=0 role=region aria-label=wide><p style='width: 2000px'>wide</p></div>"

    shown(scrolled, 390).check()
