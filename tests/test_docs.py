"""What documents say of the package, and of each other."""

import re
from pathlib import Path

import pytest

import fastinfo

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
PAGES = [page for page in PAGES if "_build" not in page.parts]


def test_the_version_is_told_alike():
    assert f"version: {fastinfo.__version__}\n" in (ROOT / "docs" / "CITATION.cff").read_text()
    assert f"## {fastinfo.__version__}" in (ROOT / "docs" / "changelog.md").read_text("utf-8")


def test_every_page_is_in_a_table_of_contents():
    docs = ROOT / "docs"
    reached, waiting = set(), [docs / "index.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for block in re.findall(r"```\{toctree\}(.*?)```", page.read_text("utf-8"), re.DOTALL):
            names = [line for line in block.split() if not line.startswith(":")]
            entries = [(page.parent / f"{name}.md").resolve() for name in names]
            waiting += [entry for entry in entries if entry.exists() and entry not in reached]
    assert {page for page in PAGES if docs in page.parents} <= reached


def test_the_reference_has_every_public_name():
    text = (ROOT / "docs" / "reference.md").read_text("utf-8")
    missing = set(fastinfo.__all__) - set(re.findall(r"\w+", text))
    assert not missing
    section = text.split("currentmodule:: fastinfo.gaussian")[1].split("```")[0]
    assert set(fastinfo.gaussian.__all__) <= set(section.split())


def test_pictures_of_the_guide_are_drawn_and_shown():
    source = (ROOT / "docs" / "figures.py").read_text("utf-8")
    drawn = set(re.findall(r'^    "([a-z-]+)": \w+,$', source, re.MULTILINE))
    kept = {path.stem for path in (ROOT / "docs" / "images").glob("guide-*.svg")}
    assert kept == {f"guide-{name}" for name in drawn}
    pages = "".join(page.read_text("utf-8") for page in (ROOT / "docs" / "guide").glob("*.md"))
    assert kept == set(re.findall(r"images/(guide-[a-z-]+)\.svg", pages))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "", text)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"\w+:", target):
            assert (page.parent / target).exists(), target
