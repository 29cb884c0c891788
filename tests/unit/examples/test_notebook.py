"""The example notebook runs from its first cell to its last, on a tiny model."""

import json
import re
from pathlib import Path

import nbformat
import pytest
import tiny
from nbclient import NotebookClient

REPO = Path(__file__).parents[3]
NOTEBOOK = REPO / "examples" / "notebook" / "round.ipynb"


@pytest.mark.process
def test_every_cell_runs_and_says_what_the_text_promises(tmp_path: Path) -> None:
    tiny.make_whisper(tmp_path / "model", taciturn=True)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source = f"MODEL, RUNS, TOP = {str(tmp_path / 'model')!r}, {str(tmp_path / 'runs')!r}, {str(REPO)!r}"
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(REPO)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.text for output in shown if output.output_type == "stream" and output.name == "stdout")
    assert "base-0001" in text and "mean: norm" in text and "agent-alreadyon.opus |" in text
    assert sum("image/png" in output.get("data", {}) for output in shown) == 2
    assert (tmp_path / "runs" / "notebook" / "by-hand" / "ties-model" / "model.safetensors").is_file()


def test_it_is_small_and_names_no_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    cells = nbformat.reads(text, as_version=4).cells
    assert len(text) < 100_000 and all(cell.source.count("\n") < 24 for cell in cells)
    said = "".join(cell.source + json.dumps([output.get("text") for output in cell.get("outputs", [])]) for cell in cells)
    assert re.findall(r"(?<![\w.])/(?:work|home|root|tmp|Users)/", said) == []
