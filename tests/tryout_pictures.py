"""Makes the pictures of docs/try.md: the page of `wfc try` with a clip of the demo, in both colour schemes.

python tests/tryout_pictures.py RUN [--clip CLIP]     RUN is the demo's, or another run of whisper-base that learned Spanish.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from browser import SCHEMES, chromium, visiting

REPO = Path(__file__).parents[1]
PICTURES = REPO / "docs" / "images"
CLIP = REPO / "examples" / "demo" / "data" / "es" / "audio" / "confbridge-dec-talk-vol-in.opus"
SAID = "Para reducir el volumen de su habla hacia otros participantes..."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--clip", type=Path, default=CLIP)
    parser.add_argument("--said", default=SAID)
    options = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "wfc_dist", "try", options.run, "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served, chromium() as browser:
        assert served.stdout is not None
        address = served.stdout.readline().split()[0]
        for scheme in SCHEMES:
            take(browser, address, scheme, options.clip, options.said)
        served.terminate()


def take(browser: Any, address: str, scheme: str, clip: Path, said: str) -> None:
    """Shows the page with two texts, and writes its picture."""
    with visiting(browser, address, width=1100, scheme=scheme) as visit:
        page = visit.page
        page.locator("#clip input[type=file]").set_input_files(clip)
        page.locator("#clip #waveform, #clip audio").first.wait_for(state="attached", timeout=60_000)
        page.get_by_label("What is spoken").fill(said)
        page.get_by_role("button", name="Transcribe").click()
        page.locator("#texts .wfc-text").nth(1).wait_for(timeout=300_000)
        page.evaluate("document.activeElement.blur(); document.fonts.ready")
        page.mouse.move(0, 0)
        last = page.locator("#texts .wfc-memory").bounding_box()
        path = PICTURES / f"try-{scheme}.png"
        page.screenshot(
            path=path, full_page=True, clip={"x": 0, "y": 0, "width": 1100, "height": last["y"] + last["height"] + 16}
        )
        print(f"{path.relative_to(REPO)}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
