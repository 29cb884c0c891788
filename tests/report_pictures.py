"""Makes the pictures of docs/report.md from the report of a run, which has the audio of the worst utterances.

python tests/report_pictures.py RUN     RUN is the demo's: make demo, then wfc report runs/demo --audio 3
"""

import argparse
import io
from pathlib import Path
from typing import Any

from browser import chromium, visiting
from PIL import Image

REPO = Path(__file__).parents[1]
PICTURES = REPO / "docs" / "images"
SHOWN = {
    "report-top": (1100, "light", "body", "section >> nth=0"),
    "report-utterances": (1100, "dark", "section:has-text('The upper line is what was said') >> h2", ".utterance >> nth=1"),
    "report-lineage": (1100, "light", "section:has(svg.drawing)", "section:has(svg.drawing)"),
    "report-phone": (390, "dark", "body", ".figures"),
}
"""Name -> width of the window, colour scheme, the element where the picture begins, and the one where it ends."""
MARGIN_PX = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    page = parser.parse_args().run / "report" / "index.html"
    with chromium() as browser:
        for name, (width, scheme, first, last) in SHOWN.items():
            with visiting(browser, page, width=width, scheme=scheme) as visit:
                path = PICTURES / f"{name}.png"
                path.write_bytes(small(taken(visit.page, width, first, last)))
                print(f"{path.relative_to(REPO)}: {path.stat().st_size / 1e3:.0f} kB")


def taken(page: Any, width: int, first: str, last: str) -> bytes:
    """Returns the picture of a page from the top of one element to the bottom of another."""
    page.evaluate("document.fonts.ready")
    begin, end = (page.locator(selector).first.bounding_box() for selector in (first, last))
    top, bottom = max(begin["y"] - MARGIN_PX, 0), end["y"] + end["height"] + MARGIN_PX
    picture: bytes = page.screenshot(full_page=True, clip={"x": 0, "y": top, "width": width, "height": bottom - top})
    return picture


def small(picture: bytes) -> bytes:
    """Returns a PNG with few colours, which is a third as large."""
    file = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE).save(file, "PNG", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    main()
