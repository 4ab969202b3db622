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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "", text)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"\w+:", target):
            assert (page.parent / target).exists(), target
