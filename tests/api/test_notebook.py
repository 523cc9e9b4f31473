"""The notebook of the docs runs from its first cell to its last."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

REPO = Path(__file__).parents[2]


@pytest.mark.full
def test_the_notebook_runs_and_shows_its_tables_and_pictures(tmp_path):
    notebook = nbformat.read(REPO / "docs" / "python.ipynb", as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = "".join(output.get("data", {}).get("text/html", "") for output in outputs)
    assert "<caption>dialpad, unified" in shown
    assert "data:image/png;base64," in shown
    assert not [cell for cell in nbformat.read(REPO / "docs" / "python.ipynb", 4).cells if cell.get("outputs")]
