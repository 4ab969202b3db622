"""Tables, plots and JSON of a run, and the pages of documentation they are written into."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import goals
from benchmarks.processes import Figure
from fastinfo.bench import Row, Timing, markdown_table, optional, quantity, rate_of, rows_table
from fastinfo.pictures import bars

DTYPE = re.compile(r"bfloat16|float16|float32|float64")
MARKED = re.compile(r"(<!-- benchmark: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass
class Run:
    """What one run measured, by section."""

    facts: dict[str, Any]
    titles: dict[str, str]
    rows: dict[str, list[Row]] = field(default_factory=dict)
    figures: dict[str, list[Figure]] = field(default_factory=dict)
    goals: Sequence[goals.Goal] = goals.GOALS

    @property
    def missing(self) -> list[str]:
        """The peers that were not installed: those without a version."""
        return [name for name, found in self.facts["versions"].items() if not found]

    def outcomes(self) -> list[goals.Outcome]:
        """Every goal, measured or not."""
        return [goals.judge(goal, self.rows, self.figures) for goal in self.goals]


# --------------------------------------------------------------------------------- tables


def figures_table(figures: Sequence[Figure]) -> str:
    """Single numbers."""
    return markdown_table(
        ["what", "value", "remarks"],
        [[figure.name, _figure(figure), figure.note] for figure in figures],
    )


def _figure(figure: Figure) -> str:
    if figure.unit == "s":
        return quantity(figure.value, "s")
    return f"{figure.value:.3f} {figure.unit}"


def _side(side: Row | Figure | None) -> str:
    if side is None:
        return "not measured"
    return _figure(side) if isinstance(side, Figure) else f"{rate_of(side)} ({side.name})"


def reach_table(outcomes: Sequence[goals.Outcome]) -> str:
    """Every goal: both sides, their ratio, the bound, and whether it is reached."""

    def cells(outcome: goals.Outcome) -> list[str]:
        goal, value = outcome.goal, outcome.value
        bound = f"{'≥' if goal.is_ratio else '≤'} {goal.bound:g}"
        verdict = "" if value is None else "yes" if goal.reached(value) else "**no**"
        sides = [_side(outcome.ours), _side(outcome.other) if goal.is_ratio else ""]
        return [goal.what, *sides, optional(value, ".3g"), bound, verdict]

    header = ["what", "fastinfo", "the other side", "ratio", "to reach", "reached"]
    return markdown_table(header, [cells(outcome) for outcome in outcomes])


def speed_table(outcomes: Sequence[goals.Outcome]) -> str:
    """Tabulate the goals that were measured, without their bounds."""
    return markdown_table(
        ["what", "fastinfo", "ratio"],
        [
            [
                outcome.goal.what,
                _figure(outcome.ours)
                if isinstance(outcome.ours, Figure)
                else rate_of(outcome.ours),
                f"{outcome.value:.3g} x" if outcome.goal.is_ratio else "",
            ]
            for outcome in outcomes
            if outcome.value is not None and outcome.ours is not None
        ],
    )


def accuracy_table(run: Run) -> str:
    """Largest error against float64 of everything that was compared, peers among them."""
    return markdown_table(
        ["call", "data", "largest error"],
        [
            [row.name, run.titles[section], f"{row.error:.1e}"]
            for section, rows in run.rows.items()
            for row in rows
            if row.error is not None
        ],
    )


def worst_table(run: Run) -> str:
    """Of each library and dtype the call with the largest error."""
    worst: dict[tuple[str, str], tuple[Row, str]] = {}
    for section, rows in run.rows.items():
        for row in rows:
            kind = DTYPE.search(row.name)
            if row.error is None or kind is None:
                continue
            key = row.name.split()[0].strip(",") if row.peer else "fastinfo", kind[0]
            if key not in worst or row.error > (worst[key][0].error or 0.0):
                worst[key] = row, run.titles[section]
    return markdown_table(
        ["library", "dtype", "worst call", "data", "largest error"],
        [
            [library, kind, row.name, title, f"{row.error:.1e}"]
            for (library, kind), (row, title) in sorted(worst.items(), key=_ours_first)
        ],
    )


def _ours_first(entry: tuple[tuple[str, str], Any]) -> tuple[bool, str, str]:
    (library, kind), _ = entry
    return library != "fastinfo", library, kind


def machine_table(run: Run) -> str:
    """Tabulate the machine, with the versions and the peers that are missing."""
    facts = dict(run.facts)
    versions = facts.pop("versions")
    facts["versions"] = ", ".join(f"{name} {found}" for name, found in versions.items() if found)
    facts["peers not installed"] = ", ".join(run.missing) or "none"
    return markdown_table(["fact", "value"], [[name, _fact(name, facts[name])] for name in facts])


def _fact(name: str, value: Any) -> str:
    if name == "memory":
        return f"{value / 2**30:.0f} GiB"
    if name == "caches":
        return ", ".join(f"{level} {size / 1024:.0f} KiB" for level, size in value.items())
    return " ".join(value) if isinstance(value, list) else str(value)


def tables(run: Run) -> dict[str, str]:
    """Every table by the name it has in the markers of the documentation."""
    outcomes = run.outcomes()
    return {
        **{name: rows_table(rows) for name, rows in run.rows.items()},
        **{name: figures_table(figures) for name, figures in run.figures.items()},
        "machine": machine_table(run),
        "reach": reach_table(outcomes),
        "speed": speed_table(outcomes),
        "accuracy": accuracy_table(run),
        "worst": worst_table(run),
    }


# --------------------------------------------------------------------------------- files


def write_json(run: Run, path: Path) -> None:
    """Write all samples, with the machine's facts and the outcome of every goal."""
    rows = {
        section: [dataclasses.asdict(row) | {"rate": row.rate} for row in rows]
        for section, rows in run.rows.items()
    }
    reached = [
        {
            "what": outcome.goal.what,
            "value": outcome.value,
            "bound": outcome.goal.bound,
            "reached": None if outcome.value is None else outcome.goal.reached(outcome.value),
        }
        for outcome in run.outcomes()
    ]
    figures = {name: [dataclasses.asdict(f) for f in found] for name, found in run.figures.items()}
    document = {"machine": run.facts, "reach": reached, "rows": rows, "figures": figures}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path, titles: dict[str, str], asked: Sequence[goals.Goal] = goals.GOALS) -> Run:
    """Return the run that `write_json` wrote."""
    document = json.loads(path.read_text("utf-8"))

    def row(found: dict[str, Any]) -> Row:
        timing = Timing(tuple(found["timing"]["samples"]))
        return Row(**{k: v for k, v in found.items() if k != "rate"} | {"timing": timing})

    return Run(
        document["machine"],
        titles,
        {name: [row(found) for found in rows] for name, rows in document["rows"].items()},
        {name: [Figure(**f) for f in found] for name, found in document["figures"].items()},
        asked,
    )


def file_name(*parts: str) -> str:
    """Name results by what was measured, and how, so that a new run replaces the old one."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-") + ".json"


def fill_markers(text: str, found: dict[str, str]) -> str:
    """Put each table between the markers of its name; markers of other names stay as they are."""

    def fill(match: re.Match[str]) -> str:
        name = match[2]
        return f"{match[1]}\n{found[name]}\n\n{match[3]}" if name in found else match[0]

    return MARKED.sub(fill, text)


def write_docs(run: Run, root: Path) -> list[Path]:
    """Fill the markers of the README and of the pages that have some."""
    found = tables(run)
    written = []
    for path in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        text = path.read_text("utf-8")
        if (filled := fill_markers(text, found)) != text:
            path.write_text(filled, encoding="utf-8")
            written.append(path)
    return written


# --------------------------------------------------------------------------------- plots


def plot(run: Run, folder: Path) -> list[Path]:
    """Draw the rates of each section as bars; nothing without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        print("skipped: plots: matplotlib is not installed")
        return []
    folder.mkdir(parents=True, exist_ok=True)
    return [bars(run.titles[name], rows, folder / f"{name}.svg") for name, rows in run.rows.items()]
