"""The benchmark program on tiny shapes: that it runs, checks and reports. No timing is asserted."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastinfo
from benchmarks import __main__ as program
from benchmarks import cuda, goals, kernels, memory, peers, processes, reference, report, shapes
from fastinfo import bench

PLAN = kernels.make_plan(shrink=64)
CHEAP_PEERS = {"scipy", "sklearn", "simsimd", "numkong"}


@pytest.fixture
def cheap_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the peers that compile."""

    def installed(module: str) -> bool:
        return module in CHEAP_PEERS and importlib.util.find_spec(module) is not None

    monkeypatch.setattr(peers, "_installed", installed)


@pytest.fixture(scope="module")
def measured() -> report.Run:
    """Two sections and a figure, measured once."""
    run = program.run(
        ["ceilings", "gpt2", "products-double"], PLAN, program.Effort((), 1, 1.0, 1, 1)
    )
    run.figures["start"] = [processes.Figure("import fastinfo, beyond import numpy", 0.5, "s")]
    return run


# --------------------------------------------------------------------------------- the run loop


@pytest.fixture(autouse=True)
def one_call_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SHORT", 1e-9)


def test_interleave_alternates_and_turns_round() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    before = {"a": lambda: order.append("ready"), "b": lambda: None}
    timings = bench.interleave(calls, 3, before=before, pause=0)
    assert order == ["ready", "a", "b", "b", "ready", "a", "ready", "a", "b"]
    assert [len(timing.samples) for timing in timings.values()] == [3, 3]


def test_interleave_leaves_out_what_has_spent_its_budget() -> None:
    calls = {"slow": lambda: time.sleep(0.02), "fast": lambda: None}
    timings = bench.interleave(calls, 3, budget=0.015, pause=0)
    assert [len(timing.samples) for timing in timings.values()] == [1, 3]


def test_timing_and_ratio() -> None:
    slow, fast = bench.Timing((2.0, 4.0, 9.0)), bench.Timing((1.0, 1.0, 3.0))
    assert slow.median == 4.0
    assert slow.quartiles == (3.0, 6.5)
    assert bench.ratio(slow, fast) == 3.0


def test_a_peer_that_fails_is_skipped_and_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise RuntimeError("no compiler")

    works = bench.Case("works", lambda: 1.0, work=8, scale=2.0, error=lambda found: found)
    rows = bench.measure([bench.Case("broken", fail, work=1, peer=True), works], 1, pause=0)
    assert [(row.name, row.error) for row in rows] == [("works", 1.0)]
    assert "skipped: broken: RuntimeError: no compiler" in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="no compiler"):
        bench.measure([bench.Case("broken", fail, work=1)], 1, pause=0)


def test_share_is_of_the_fastest_of_the_group() -> None:
    def row(name: str, seconds: float, **names: Any) -> bench.Row:
        blank = {"group": "", "ceiling": "", "share": None, "error": None, "recomputed": None}
        timing = bench.Timing((seconds,))
        return bench.Row(name, timing, work=6, unit="B", peer=False, note="", **blank | names)

    rows = [row("one", 3.0, group="read"), row("two", 1.0, group="read"), row("loss", 2.0)]
    best = bench.fastest(rows, "read")
    assert best is rows[1]
    assert rows[2].speed_over(best) == 0.5
    assert bench.fastest(rows, "copy") is None


@pytest.mark.parametrize("loop", ["compiled sum", "compiled sum, four streams"])
def test_compiled_sums_read_everything(loop: str) -> None:
    x = np.arange(11, dtype=np.float64)
    assert bench._plain_loops()[loop](x) == x.sum()


@pytest.mark.parametrize(
    ("value", "text"),
    [(4.7e10, "47 GB/s"), (0.5, "500 mB/s"), (1.0, "1 B/s"), (0.0, "0 B/s"), (1e20, "1e+08 TB/s")],
)
def test_quantity(value: float, text: str) -> None:
    assert bench.quantity(value, "B/s") == text


def test_words_are_counted() -> None:
    for value, text in ((0.93, "0.93 pairs/s"), (380.0, "380 pairs/s"), (2e6, "2 M pairs/s")):
        assert bench.quantity(value, " pairs/s") == text


def test_machine_facts_name_the_versions() -> None:
    facts = bench.machine_facts(["not-a-package"])
    assert facts["threads"] == PLAN.workers.threads
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["versions"]["not-a-package"] is None


# --------------------------------------------------------------------------------- cases


@pytest.mark.parametrize("name", kernels.SECTIONS)
def test_every_case_runs_and_is_right(name: str, cheap_peers: None) -> None:
    cases = [*kernels.SECTIONS[name].cases(PLAN), *program._peers(name, PLAN)]
    assert len({case.name for case in cases}) == len(cases)
    for row in bench.measure(cases, repeats=1, pause=0):
        if row.error is not None and not row.peer:
            assert row.error < (4.1e-3 if "16" in row.name else 2e-5), row.name
        assert (row.share is not None) == bool(row.ceiling)


@pytest.mark.parametrize("goal", goals.GOALS, ids=lambda goal: goal.what)
def test_goals_name_cases_that_exist(goal: goals.Goal) -> None:
    if not goal.is_ratio:
        return
    cases = [*kernels.SECTIONS[goal.section].cases(PLAN), *program._peers(goal.section, PLAN)]
    names = {case.name for case in cases} | {case.group for case in cases}
    assert goal.ours in names
    if goal.other not in names:
        assert not all(map(bench.version, peers.PEERS.values()))


def test_shapes_shrink_to_at_least_four() -> None:
    assert shapes.Shapes(64).rows("gpt2") == (32, 785)
    assert shapes.Shapes(10**6).rows("one row of 1M") == (1, 4)
    assert shapes.Shapes().rows("gpt2") == (2048, 50257)


@pytest.mark.parametrize("kind", shapes.KINDS)
def test_distributions_sum_to_one(kind: str) -> None:
    rows = shapes.distributions((5, 16), kind, 1, "float64")
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-15)


def test_reference_errors() -> None:
    exact = np.array([0.0, np.inf, 2.0])
    assert reference.relative_error(np.array([0.0, np.inf, 2.0]), exact) == 0
    assert reference.relative_error(np.array([0.0, np.inf, 3.0]), exact) == 0.5
    assert reference.relative_error(np.array([1e-30, np.inf, 2.0]), exact) == np.inf


def test_the_share_of_pairs_computed_again() -> None:
    x = shapes.distributions((6, 64), "Dirichlet(1)", 1)
    y = shapes.distributions((4, 64), "Dirichlet(1)", 2)
    for measure in ("kl_divergence", "js_divergence", "hellinger_distance"):
        assert kernels.share_recomputed(x, y, measure) == 0
        assert kernels.share_recomputed(x, x[:3], measure) == 3 / 18  # the pairs of equal rows


@pytest.mark.parametrize("noise", [0.1, 0.03])
@pytest.mark.parametrize(
    ("measure", "parameters"),
    [
        ("kl_divergence", {}),
        ("jeffreys_divergence", {}),
        ("hellinger_distance", {}),
        ("bhattacharyya_distance", {}),
        ("renyi_divergence", {"alpha": 2.0}),
        ("js_divergence", {}),
    ],
)
def test_float64_rows_near_each_other_are_not_computed_again(
    rng: np.random.Generator, noise: float, measure: str, parameters: dict[str, float]
) -> None:
    x, y = rng.dirichlet(np.ones(300)) * np.exp(noise * rng.normal(0, 1, (2, 40, 300)))
    assert kernels.share_recomputed(x, y, measure, **parameters) == 0
    exact = getattr(fastinfo, measure)(x[:, None], y[None], **parameters)
    found = fastinfo.pairwise(x, y, measure, **parameters)
    np.testing.assert_allclose(found, exact, rtol=1e-12)


# --------------------------------------------------------------------------------- reports


def test_tables_plots_and_json(measured: report.Run, tmp_path: Path) -> None:
    tables = report.tables(measured)
    assert set(tables) == {
        "ceilings", "gpt2", "products-double", "start", "machine", "reach", "speed", "accuracy",
        "worst",
    }  # fmt: skip
    assert (
        "| import fastinfo, beyond import numpy (s) | 500 ms |  | 0.5 | ≤ 0.03 | **no** |"
        in (tables["reach"])
    )
    assert "not measured" in tables["reach"]
    path = tmp_path / "results" / "machine.json"
    report.write_json(measured, path)
    document = json.loads(path.read_text("utf-8"))
    assert document["machine"]["threads"] == PLAN.workers.threads
    assert len(document["reach"]) == len(goals.GOALS)
    assert {"name", "timing", "rate", "share", "error"} <= set(document["rows"]["gpt2"][0])
    if importlib.util.find_spec("matplotlib"):
        plots = report.plot(measured, tmp_path / "images")
        assert [plot.name for plot in plots] == ["ceilings.svg", "gpt2.svg", "products-double.svg"]
        assert all(plot.stat().st_size for plot in plots)


def test_markers_are_filled_and_others_left_alone(measured: report.Run, tmp_path: Path) -> None:
    text = "a\n<!-- benchmark: {} -->\nold\n<!-- end -->\nz\n"
    (tmp_path / "README.md").write_text(text.format("machine") + text.format("pairs"), "utf-8")
    assert report.write_docs(measured, tmp_path) == [tmp_path / "README.md"]
    written = (tmp_path / "README.md").read_text("utf-8")
    table = report.machine_table(measured)
    assert written == text.format("machine").replace("old", f"\n{table}\n") + text.format("pairs")
    report.write_docs(measured, tmp_path)
    assert (tmp_path / "README.md").read_text("utf-8") == written


def test_the_command_line_writes_results(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cheap_peers: None,
) -> None:
    monkeypatch.setattr(kernels, "make_plan", lambda: PLAN)
    program.main(["--quick", "--only", "ten", "--out", str(tmp_path)])
    (path,) = tmp_path.iterdir()
    assert path.name.endswith("-quick-ten.json")
    assert "## What it must reach" in capsys.readouterr().out


# --------------------------------------------------------------------------------- processes


def test_start_and_memory_run_in_new_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(processes.FIRST_LOSS, {})
    assert float(capsys.readouterr().out) > 0
    monkeypatch.setattr(processes, "FIRST_LOSS", processes.IMPORT)  # which compiles nothing
    assert [figure.unit for figure in processes.start(repeats=1)] == ["s"] * 3
    if memory.RESET_PEAK.exists():
        names = [figure.name for figure in processes.extra_memory(["loss, float32"], rows=8)]
        assert names == ["loss, float32", "largest extra memory of a loss"]


@pytest.mark.parametrize("name", memory.CASES)
def test_every_memory_case_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CLASSES", 64)
    probe = memory.CASES[name]
    probe.call(*memory._data(probe, 8))


def test_a_run_read_back_gives_the_same_tables(measured: report.Run, tmp_path: Path) -> None:
    report.write_json(measured, tmp_path / "run.json")
    again = report.read_json(tmp_path / "run.json", measured.titles)
    assert report.tables(again) == report.tables(measured)
    report.write_json(again, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (tmp_path / "run.json").read_text()


# --------------------------------------------------------------------------------- a device


def fabricated() -> report.Run:
    """Return a run with every row and figure that a goal asks for, at twice its bound."""
    about = {"date": "2026-01-01", "GPU": "none", "memory": 80 << 30, "versions": {"quack": None}}
    done = report.Run(about, cuda.TITLES, goals=cuda.GOALS)
    blank = {"unit": "B", "ceiling": "", "share": None, "error": 1e-7, "recomputed": None}
    for goal in cuda.GOALS:
        if not goal.is_ratio:
            figure = processes.Figure(goal.ours, goal.bound * 2, "MiB")
            done.figures.setdefault(goal.section, []).append(figure)
            continue
        rows = done.rows.setdefault(goal.section, [])
        for name, seconds in ((goal.ours, 1.0), (goal.other, 2.0)):
            timing = bench.Timing((seconds,) * 3)
            rows.append(bench.Row(name, timing, 8.0, group="", peer=False, note="", **blank))
    return done


def test_no_device_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if reason := cuda.why_not():
        with pytest.raises(SystemExit) as stopped:
            program.main(["--device", "cuda", "--quick", "--out", str(tmp_path)])
        assert stopped.value.code == 2
        assert capsys.readouterr() == ("", reason + "\n")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "need torch, which is not installed" in str(cuda.why_not())
    with pytest.raises(SystemExit):
        program.main(["--device", "cuda", "--only", "loss"])
    assert "no section 'loss' of cuda: there are ceilings, bfl" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_on_a_device_is_written_and_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = fabricated()
    report.write_json(done, tmp_path / "run.json")
    out = tmp_path / "again"
    program.main(["--device", "cuda", "--read", str(tmp_path / "run.json"), "--out", str(out)])
    assert "skipped: quack is not installed" in capsys.readouterr().out
    written = out / "run.json"
    assert written.read_text() == (tmp_path / "run.json").read_text()
    again = report.read_json(written, cuda.TITLES, cuda.GOALS)
    assert cuda.text(again) == cuda.text(done)
    reach = json.loads(written.read_text())["reach"]
    assert [(one["value"] == 2.0, one["reached"]) for one in reach[:-2]] == [(True, True)] * 11
    assert [one["reached"] for one in reach[-2:]] == [False, False]


def test_results_of_a_device_are_named_by_it() -> None:
    about = {"GPU": "NVIDIA H100 80GB HBM3"}
    options = program.parse(["--device", "cuda", "--quick", "--only", "js", "--only", "kl"])
    assert cuda.file_name(about, options) == "cuda-nvidia-h100-80gb-hbm3-quick-js-kl.json"
    assert cuda.file_name(about, program.parse(["--device", "cuda"])).endswith("hbm3.json")


def test_what_nvidia_smi_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert set(cuda._told("8f").values()) == {"unknown"}
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")

    def answers(asked: list[str], **options: Any) -> Any:
        given = {"--id=GPU-8f": (0, "580.1, 1980 MHz, 2619 MHz, 700.00 W\n")}
        return subprocess.CompletedProcess(asked, *given.get(asked[-1], (6, "No devices\n")))

    monkeypatch.setattr(subprocess, "run", answers)
    assert cuda._told("8f") == {
        "driver": "580.1", "highest clock": "1980 MHz", "highest clock of memory": "2619 MHz",
        "power limit": "700.00 W",
    }  # fmt: skip
    assert set(cuda._told("none").values()) == {"unknown"}


def test_tables_of_a_device_fill_their_markers(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("a\n<!-- benchmark: cuda-device -->\nnothing\n<!-- end -->\nz\n", "utf-8")
    cuda.write_docs(fabricated(), page)
    filled = page.read_text("utf-8")
    assert "nothing" not in filled and filled.endswith("<!-- end -->\nz\n")
    assert "| memory | 80 GiB |" in filled
    assert f"### {cuda.TITLES['js']}" in filled
    assert "| JS, bins against logarithms |" in filled
    real = (program.ROOT / "docs" / "performance.md").read_text("utf-8")
    assert "<!-- benchmark: cuda-device -->" in real


def stand_ins(torch: Any) -> dict[str, Any]:
    """Modules of peers that compute by torch what those do."""
    functional = torch.nn.functional

    def linear(w: Any, h: Any, y: Any) -> Any:
        return functional.cross_entropy(h @ w.T, y)

    def at_once(x: Any, y: Any, return_dx: bool) -> tuple[Any, Any]:
        x = x.detach().requires_grad_()
        loss = functional.cross_entropy(x, y, reduction="none")
        loss.sum().backward()
        return loss, x.grad

    liger = SimpleNamespace(
        LigerCrossEntropyLoss=torch.nn.CrossEntropyLoss,
        LigerFusedLinearCrossEntropyLoss=lambda: linear,
    )
    quack = SimpleNamespace(cross_entropy=functional.cross_entropy, cross_entropy_fwd=at_once)
    flash = SimpleNamespace(CrossEntropyLoss=torch.nn.CrossEntropyLoss)
    return {
        "liger_kernel.transformers": liger,
        "quack.cross_entropy": quack,
        "flash_attn.losses.cross_entropy": flash,
    }


def test_cases_of_a_device_run_and_are_what_goals_ask_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On tensors of the processor, with its clock; kernels of the ceilings cannot run there."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("numba_cuda")
    from benchmarks import cuda_cases, cuda_ceilings, cuda_peers

    def no_kernels(*given: Any) -> None:
        raise RuntimeError("no device")

    def seconds(call: Any, before: Any = None) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    monkeypatch.setattr(cuda_ceilings, "_run", no_kernels)
    monkeypatch.setattr(cuda_ceilings, "sum_by_kernel", no_kernels)
    monkeypatch.setattr(cuda, "seconds", seconds)
    monkeypatch.setattr(cuda, "host_time", seconds)
    monkeypatch.setattr(cuda, "extra_memory", lambda call: int(seconds(call)))
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(cuda_peers, "installed", lambda module: module != "cupy")
    for name, module in stand_ins(torch).items():
        monkeypatch.setitem(sys.modules, name, module)
    about = fabricated().facts
    done = cuda.run(cuda_cases.Plan("cpu", 512), 1, about)
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("failed")]
    assert {line.split(":")[1].split(",")[0] for line in failed} <= {
        " a kernel that adds", " lg2.approx"
    }  # fmt: skip
    missing = [found.goal.what for found in done.outcomes() if found.value is None]
    assert all("logarithms" in what for what in missing)
    assert set(done.rows) | set(done.figures) == set(cuda.TITLES) == {*cuda.NAMES, "memory"}
    for row in (row for rows in done.rows.values() for row in rows if not row.peer):
        assert row.error is None or row.error < (1e-2 if "bfloat16" in row.name else 1e-5)
    for row in (row for rows in done.rows.values() for row in rows if row.peer):
        # torch rounds log-probabilities to bfloat16
        assert row.error is not None and row.error < (0.2 if "bfloat16" in row.name else 1e-4), row
    alone = cuda.run(cuda_cases.Plan("cpu", 512), 1, about, ["kl", "host"])
    assert (set(alone.rows), set(alone.figures)) == ({"kl"}, {"memory", "host"})
