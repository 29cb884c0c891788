"""`wfc try` in a real Chromium, with real speech and whisper-base: texts side by side, and what the page refuses."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import tiny
import yaml
from browser import Visit, browser, visit  # noqa: F401
from processes import kill_tree, wfc

pytest.importorskip("gradio")
REPO = Path(__file__).parents[2]
WHISPER, DATA = REPO / "models" / "whisper-base", REPO / "examples" / "demo" / "data"
servers: dict[int | None, subprocess.Popen[str]] = {}
"""Port -> the process that serves there."""
CLIP, SAID = DATA / "es" / "audio" / "conf-roll-callcomplete.opus", "Rol de llamadas completo."
pytestmark = pytest.mark.skipif(not WHISPER.is_dir(), reason="needs models/whisper-base: make models/whisper-base/config.json")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Returns a run of whisper-base with one adapter, trained for one step, and a tiny model that writes nothing."""
    root = tmp_path_factory.mktemp("tryout")
    splits = {name: f"{name}.jsonl" for name in ("train", "dev", "test")}
    tree = {
        "run": {"name": "short", "dir": str(root)},
        "base": {"model": str(WHISPER)},
        "datasets": {"es": {"source": str(DATA / "es"), "language": "es", "splits": splits, "max_clips": 4}},
        "rounds": [["es"]],
        "lora": {"r": 4, "alpha": 8},
        "train": {"max_steps": 1, "warmup_steps": 0, "batch_size": 1, "gradient_accumulation": 1, "packing": False},
        "cluster": {"backend": "in_process"},
        "evaluate": {"max_clips": 1},
    }
    config = root / "config.yaml"
    config.write_text(yaml.safe_dump(tree, sort_keys=False))
    wfc("run", config, "--plain")
    return [root / "short", tiny.make_whisper(root / "tiny", taciturn=True)]


@contextmanager
def served(*arguments: object, errors: int | None = None, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Starts `wfc try` on a free port; yields the process and the first line it writes.

    Its errors go where those of the tests go: a pipe that nobody reads would fill, and stop it.
    """
    command = [sys.executable, "-m", "wfc_dist", "try", *map(str, arguments), "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **environment})
    try:
        line = process.stdout.readline()
        yield process, line or pytest.fail("wfc try ended before it wrote its address")
    finally:
        kill_tree(process)


@pytest.fixture(scope="module")
def address(models: list[Path]) -> Iterator[str]:
    with served(*models, PYTHONFAULTHANDLER="1") as (process, line):
        servers[urlsplit(line.split()[0]).port] = process
        yield line.split()[0]


@pytest.fixture
def opened(visit: Callable[..., Visit], address: str) -> Callable[..., Visit]:  # noqa: F811
    """Opens the page, and waits until it works."""

    def go(**options: object) -> Visit:
        opened = visit(address, **options)
        opened.page.get_by_role("button", name="Transcribe").wait_for(timeout=120_000)
        return opened

    return go


def pick(page, *titles: str) -> None:
    """Picks models as a user of the keyboard does."""
    field = page.get_by_label("Models")
    field.click()
    for _ in range(2):
        page.keyboard.press("Backspace")
    for title in titles:
        field.fill(title)
        page.get_by_role("option", name=title).first.wait_for()
        page.keyboard.press("Enter")
    page.keyboard.press("Escape")


def drop(page, path: Path) -> None:
    page.locator("#clip input[type=file]").set_input_files(path)
    page.locator("#clip audio, #clip #waveform").first.wait_for(state="attached", timeout=60_000)


def transcribed(page, number: int) -> list[str]:
    """Presses the button, and returns the texts of the cards when all have one.

    A page that lacks some is printed, and its server tells where it is, and ends.
    """
    page.get_by_role("button", name="Transcribe").click()
    try:
        page.locator("#texts .wfc-text").nth(number - 1).wait_for(timeout=300_000)
    except Exception:
        try:
            print(page.locator("body").inner_text())
        finally:
            servers[urlsplit(page.url).port].send_signal(signal.SIGABRT)
        raise
    page.locator("#texts .wfc-memory").wait_for()
    return [card.inner_text() for card in page.locator("#texts .wfc-card").all()]


@pytest.mark.slow
def test_the_texts_of_models_stand_side_by_side_with_marked_words(opened) -> None:
    shown = opened(width=1400, scheme="light")
    page = shown.page
    drop(page, CLIP)
    page.get_by_label("What is spoken").fill(SAID)
    cards = transcribed(page, 2)
    assert [card.splitlines()[0] for card in cards] == ["short: base 0 (whisper-base)", "short: base 1"]
    for card in cards:
        assert "Language: Spanish, detected" in card and re.search(r"Time: \d+\.\d s for 2\.2 s of audio", card)
        assert "completo" in card and re.search(r"WER \d+\.\d %, \d errors? in 4 words", card) and "Beside the reference" in card
    first = page.locator("#texts .wfc-card").first
    assert first.locator("mark del").all_text_contents() == ["instead of rol", "instead of llamadas"], first.inner_html()
    assert first.locator("mark ins").count() == 2 and first.locator("p[lang=es]").count() == 2
    assert "In memory: 2 models" in page.locator("#texts").inner_text()
    shown.check()


@pytest.mark.slow
def test_without_a_reference_models_are_compared_with_the_first_also_on_a_phone(opened) -> None:
    shown = opened(width=390, scheme="dark")
    page = shown.page
    drop(page, CLIP)
    pick(page, "short: round 1: es", "tiny")
    page.get_by_label("Language").click()
    page.get_by_label("Language").fill("Spanish")
    page.keyboard.press("Enter")
    adapter, silent = transcribed(page, 2)
    assert adapter.startswith("short: round 1: es") and "Language: Spanish, chosen" in adapter and "Beside" not in adapter
    assert "(no words)" in silent and "4 differences in 4 words" in silent and "Beside short: round 1: es" in silent
    assert page.locator("#texts .wfc-card").nth(1).locator("del").count() == 1
    shown.check()


@pytest.mark.slow
def test_what_cannot_be_done_is_said_on_the_page(opened, tmp_path: Path) -> None:
    page = opened().page
    page.get_by_role("button", name="Transcribe").click()
    page.get_by_role("alert").filter(has_text="there is no clip").wait_for(timeout=60_000)
    noise = tmp_path / "notes.wav"
    noise.write_text("no audio")
    page.locator("#clip input[type=file]").set_input_files(noise)
    page.wait_for_timeout(500)  # the name of an upload is not shown; the button waits for it anyway
    page.get_by_role("button", name="Transcribe").click()
    page.get_by_role("alert").filter(has_text="notes.wav cannot be read as audio").wait_for(timeout=60_000)
    assert "Traceback" not in page.content()


def asked(address: str, path: str, body: object = None, **headers: str) -> tuple[int, str]:
    """Returns status and text of an answer."""
    data = None if body is None else json.dumps(body).encode()
    lines = {"content-type": "application/json", **headers}
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, data, lines), timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.slow
def test_a_request_cannot_make_the_page_read_other_files_or_ask_other_servers(address: str, tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_text("my secret")
    calls = [item for item in json.loads(asked(address, "config")[1])["dependencies"] if len(item["inputs"]) == 4]
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.1)
        url = f"http://127.0.0.1:{other.getsockname()[1]}/a.wav"
        for number, place in enumerate([str(tmp_path / "secret.wav"), "/etc/passwd", url]):
            for is_stream in (False, True):
                session = f"s{number}{is_stream}"
                clip = {"path": place, "url": place, "meta": {"_type": "gradio.FileData"}, "is_stream": is_stream}
                call = {"fn_index": calls[0]["id"], "session_hash": session, "data": [clip, [], "auto", ""]}
                assert asked(address, "gradio_api/queue/join", call)[0] == 200
                told = asked(address, f"gradio_api/queue/data?session_hash={session}")[1]
                assert "process_completed" in told and ('"success":false' in told or "was not uploaded here" in told), told
                assert "my secret" not in told and "root:" not in told and "Traceback" not in told
        with pytest.raises(TimeoutError):
            other.accept()
    assert asked(address, f"gradio_api/file={tmp_path}/secret.wav")[0] == 404
    assert asked(address, "config", Host="evil.example")[0] == 403


@pytest.mark.slow
def test_a_token_guards_an_address_that_others_reach_and_stands_in_no_log(models: list[Path], tmp_path: Path) -> None:
    with served(models[1], "--host", "0.0.0.0", errors=subprocess.PIPE, TMPDIR=str(tmp_path)) as (process, line):
        (secret,) = tmp_path.glob("wfc-try-*.address")
        assert str(secret) in line and secret.stat().st_mode & 0o777 == 0o600
        port, token = re.search(r":(\d+)/\?token=(\S+)", secret.read_text()).groups()
        here = f"http://127.0.0.1:{port}/"
        for _ in range(600):
            try:
                status = asked(here, "")[0]
                break
            except OSError:
                time.sleep(0.1)
        assert status == 401 and asked(here, "config")[0] == 401
        assert asked(here, "", Cookie=f"wfc-try={token}")[0] == 200
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert token not in line + output + errors and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_ends_the_page_at_once_while_a_model_is_loaded(models: list[Path], tmp_path: Path) -> None:
    with served(models[0], errors=subprocess.PIPE, TMPDIR=str(tmp_path)) as (process, line):
        address = line.split()[0]
        calls = [item for item in json.loads(asked(address, "config")[1])["dependencies"] if len(item["inputs"]) == 4]
        (folder,) = tmp_path.glob("wfc-try-*")
        (folder / "clip.opus").write_bytes(CLIP.read_bytes())
        clip = {"path": str(folder / "clip.opus"), "meta": {"_type": "gradio.FileData"}}
        call = {"fn_index": calls[0]["id"], "session_hash": "s", "data": [clip, ["base 0 (whisper-base)"], "auto", ""]}
        asked(address, "gradio_api/queue/join", call)
        begun_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0 and time.monotonic() - begun_s < 5
        assert process.stderr.read() == "" and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_keeps_the_page_from_starting_is_one_line(models: list[Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = wfc("try", models[1], "--port", taken.getsockname()[1], check=False)
    assert done.returncode == 2 and re.fullmatch(
        r"wfc: cannot listen on port \d+ of 127.0.0.1 \(.*\); choose another.*\n", done.stderr
    )
    done = wfc("try", models[1].parent / "none", check=False)
    assert done.returncode == 2 and "is neither a run, nor a folder with a model" in done.stderr
