"""The docs site builds without a warning, holds every plugin, and needs no network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.registry import DATASETS, METHODS, REPORTS

REPO = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TEXTS = [
    path for folder in (".", "docs", "docs/pages", "docs/pages/reference") for path in (REPO / folder).glob("*.md")
]
GENERATED = {"commands.md", "datasets.md", "ledger.md", "methods.md"}
"""Pages that docs/generate.py makes."""


def shown(path):
    """Return what a page shows: pieces of the README in place, blocks of code left out."""
    text = path.read_text(encoding="utf-8")
    for file, name in re.findall(r'--8<-- "([^:"]+):?(\w*)"', text):
        piece = (REPO / file).read_text(encoding="utf-8")
        if name:
            piece = piece.partition(f"[start:{name}]")[2].partition(f"[end:{name}]")[0]
        text = text.replace(f'--8<-- "{file}:{name}"' if name else f'--8<-- "{file}"', piece)
    return re.sub(r"(?ms)^```.*?^```$", "", text)


def anchors(path):
    """Return the places of a page that can be linked to."""
    plain = [re.sub(r"[^\w\s-]", "", heading) for heading in re.findall(r"(?m)^#+ (.+)$", shown(path))]
    return {re.sub(r"[-\s]+", "-", heading.strip().lower()) for heading in plain}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(REPO)))
def test_links_within_the_repository_lead_somewhere(path):
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", shown(path))):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if link.startswith(("http:", "https:", "mailto:")) or (target.name in GENERATED and not target.exists()):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert not dead


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the folder of the built site."""
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "docs/mkdocs.yml", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.full
def test_every_plugin_has_its_place(site):
    for page, kind in {"methods": METHODS, "datasets": DATASETS, "ledger": METHODS}.items():
        text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
        anchor = "<td>{}</td>" if page == "ledger" else 'id="{}"'
        assert not [name for name in kind.known() if anchor.format(name) not in text]


@pytest.mark.full
def test_every_report_that_the_pages_name_exists(site):
    source = (REPO / "docs/pages/tables.md").read_text(encoding="utf-8")
    table = source.partition("| question | report |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([a-z]+)`", table))
    assert named
    assert named <= set(REPORTS.known())


@pytest.mark.full
def test_no_page_loads_anything_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img)[^>]+src=\"([^\"]+)\"|<link rel=\"stylesheet\" href=\"([^\"]+)\"", text)
        assert not [one for pair in loaded for one in pair if one.startswith(("http:", "https:", "//"))]


@pytest.mark.full
def test_the_contract_comes_from_its_docstrings(site):
    text = (site / "reference" / "method.html").read_text(encoding="utf-8")
    assert "Train on one batch, with any number of optimizer steps." in text
    assert "train_batches" in text


@pytest.mark.full
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")
def test_no_table_is_wider_than_its_page(site):
    from playwright.sync_api import sync_playwright

    wide = """() => [...document.querySelectorAll("article table")]
      .filter(table => table.scrollWidth > table.closest("article").clientWidth).length"""
    with sync_playwright() as started:
        page = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page(
            viewport={"width": 1280, "height": 800}
        )
        found = {}
        for path in site.rglob("*.html"):
            page.goto(path.as_uri())
            found[path.name] = page.evaluate(wide)
        assert len(found) > len(GENERATED)
        assert not {name: count for name, count in found.items() if count}
