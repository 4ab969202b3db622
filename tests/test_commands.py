"""The commands on files: figures, pieces, pictures, errors, interruption, memory."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import fastinfo
from fastinfo import cli, commands, files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scored(folder, rng):
    logits, targets = rng.normal(size=(50, 30)).astype(np.float32), rng.integers(0, 30, 50)
    targets[7] = -100
    np.save("logits.npy", logits)
    np.save("targets.npy", targets)
    return logits, targets


def report_of(capsys, *arguments):
    assert cli.main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def error_of(capsys, *arguments):
    assert cli.main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err.removeprefix("fastinfo: error: ").strip()


# loss -----------------------------------------------------------------------------------------


def test_scores(scored, capsys, monkeypatch):
    monkeypatch.setattr(commands, "PIECE", 7 * 30 * 4)
    logits, targets = scored
    report = report_of(capsys, "loss", "logits.npy", "targets.npy", "--temperature", "2")
    kept = targets >= 0
    z = logits.astype(np.float64) / 2
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    own = log_p[kept, targets[kept]]
    rank = (log_p[kept] > own[:, None]).sum(axis=1)
    entropy = -(np.exp(log_p) * log_p).sum(axis=1)[kept]
    expected = {
        "rows": 50, "ignored": 1, "classes": 30, "dtype": "float32", "mean_loss": -own.mean(),
        "perplexity": np.exp(-own.mean()), "bits_per_token": -own.mean() / np.log(2),
        "accuracy": (rank == 0).mean(), "top5_accuracy": (rank < 5).mean(),
        "entropy": entropy.mean(),
    }  # fmt: skip
    for name, value in expected.items():
        assert report[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-5))
    assert report["seconds"] > 0 and report["bytes_per_second"] > 0


def test_scores_are_told(scored, capsys):
    assert cli.main(["loss", "logits.npy", "targets.npy"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("50 rows, 1 of them ignored, 30 classes, float32\nmean loss ")
    assert err == ""  # no bar where there is no terminal


@pytest.mark.parametrize("shape", [(30,), (1, 50, 30), (5, 10, 30)])
@pytest.mark.parametrize("order", "CF")
def test_any_number_of_axes(folder, rng, capsys, shape, order):
    logits, targets = rng.normal(size=shape), rng.integers(0, 30, shape[:-1])
    np.save("logits.npy", np.asarray(logits, order=order))
    np.save("targets.npy", targets)
    report = report_of(capsys, "loss", "logits.npy", "targets.npy")
    expected = fastinfo.softmax_cross_entropy(logits, targets)
    assert report["mean_loss"] == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("dtype", files.WORDS)
def test_words(folder, rng, capsys, dtype):
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16
    logits, targets = rng.normal(size=(20, 9)).astype(kind), rng.integers(0, 9, 20)
    np.save("logits.npy", logits.view(np.uint16))
    np.savez("both.npz", logits=logits.view(np.uint16), targets=targets)
    np.save("targets.npy", targets)
    expected = float(fastinfo.softmax_cross_entropy(logits, targets))
    for names in (("logits.npy", "targets.npy"), ("both.npz:logits", "both.npz:targets")):
        report = report_of(capsys, "loss", *names, "--dtype", dtype)
        assert report["mean_loss"] == pytest.approx(expected, rel=1e-5)
        assert report["dtype"] == dtype
        message = "holds 16-bit words, which are no logits: say what they are, --dtype bfloat16"
        assert message in error_of(capsys, "loss", *names)


def test_float16_is_float16(folder, rng, capsys):
    np.save("logits.npy", np.zeros((2, 4), np.float16))
    np.save("targets.npy", [0, 3])
    report = report_of(capsys, "loss", "logits.npy", "targets.npy", "--dtype", "float16")
    assert report["bits_per_token"] == pytest.approx(2.0)


def test_nan_is_null_and_infinity_a_text(folder, capsys):
    np.save("logits.npy", [[0.0, 0.0], [0.0, -np.inf]])
    for targets, expected in (([-100, -100], None), ([0, 1], "inf")):
        np.save("targets.npy", targets)
        assert report_of(capsys, "loss", "logits.npy", "targets.npy")["mean_loss"] == expected


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"fastinfo {fastinfo.__version__}\n"


# pairs ----------------------------------------------------------------------------------------


@pytest.fixture
def rows(folder, rng):
    x, y = rng.dirichlet(np.ones(12), 40).astype(np.float32), rng.dirichlet(np.ones(12), 5)
    np.save("x.npy", x)
    np.save("y.npy", y)
    return x, y


@pytest.mark.parametrize("other", [[], ["y.npy"]])
def test_matrices(rows, capsys, other):
    x, y = rows
    given = ["--measure", "renyi_divergence", "--alpha", "0.5", "--base", "2"]
    report = report_of(capsys, "pairwise", "x.npy", *other, *given, "--out", "d.npy")
    expected = fastinfo.pairwise(x, y if other else None, "renyi_divergence", alpha=0.5, base=2)
    found = np.load("d.npy")
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    pairs = expected if other else expected[~np.eye(40, dtype=bool)]
    for name, value in (("lowest", pairs.min()), ("highest", pairs.max()), ("mean", pairs.mean())):
        assert report[name] == pytest.approx(float(value), rel=1e-5)
    assert report["out"] == "d.npy" and report["nan"] == 0
    assert sorted(os.listdir()) == ["d.npy", "x.npy", "y.npy"]


def test_a_small_matrix_is_printed(rows, capsys):
    assert cli.main(["pairwise", "y.npy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "js_divergence: 5 x 5, float64"
    printed = np.array([[float(v) for v in line.split()] for line in lines[1:6]])
    np.testing.assert_allclose(printed, fastinfo.pairwise(rows[1]), atol=1e-5)


def test_a_matrix_that_does_not_fit_needs_a_file(rows, capsys, monkeypatch):
    monkeypatch.setattr(commands, "memory_bytes", lambda: 1000)
    message = error_of(capsys, "pairwise", "x.npy")
    assert message.endswith("or go to a file: --out D.npy")


@pytest.mark.parametrize("measure", ["js_divergence", "kl_divergence"])
def test_pictures(rows, capsys, measure):
    pytest.importorskip("matplotlib")
    assert cli.main(["pairwise", "x.npy", "--measure", measure, "--plot", "d.png"]) == 0
    assert Path("d.png").read_bytes()[:4] == b"\x89PNG"
    assert cli.main(["pairwise", "x.npy", "y.npy", "--plot", "e.svg"]) == 0
    assert "<svg" in Path("e.svg").read_text()


def test_a_picture_needs_matplotlib(rows, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    for arguments in (("pairwise", "x.npy", "--plot", "d.png"), ("bench", "--plot", "pictures")):
        assert error_of(capsys, *arguments).endswith('pip install "fastinfo[plot]"')


def test_neighbours(rows, capsys):
    x, y = rows
    report = report_of(capsys, "nearest", "x.npy", "y.npy", "-k", "3", "--out", "n.npz")
    expected = fastinfo.nearest(x, y, 3)
    with np.load("n.npz") as found:
        np.testing.assert_array_equal(found["distances"], expected.distances)
        np.testing.assert_array_equal(found["indices"], expected.indices)
    assert report["k"] == 3 and "indices" not in report
    report = report_of(capsys, "nearest", "x.npy", "-k", "2")
    assert report["indices"] == fastinfo.nearest(x, k=2).indices.tolist()
    assert cli.main(["nearest", "x.npy"]) == 0
    assert capsys.readouterr().out.count("\n") == 13


# errors ---------------------------------------------------------------------------------------


def test_errors_are_one_line(rows, scored, capsys):
    targets = scored[1].copy()
    targets[41] = 30
    np.save("outside.npy", targets)
    np.save("floats.npy", targets.astype(float))
    Path("junk.npy").write_text("hello")
    Path("empty.npy").write_text("")
    Path("zip.npz").write_bytes(b"PK\3\4junk")
    os.mkfifo("pipe")
    np.savez("two.npz", a=np.eye(2), b=np.eye(3))
    np.savez("none.npz")
    np.save("words.npy", np.ones((2, 3), ml_dtypes.bfloat16))
    np.save("no_classes.npy", np.empty((3, 0)))
    np.save("three.npy", [0, 0, 0])
    np.savez("sparse.npz", indices=[0], indptr=[0, 1], format=b"csr", shape=[1, 1], data=[1.0])
    os.symlink("loop", "loop")
    with zipfile.ZipFile("text.zip", "w") as file:
        file.writestr("a.txt", "hello")
    np.savez("damaged.npz", a=np.eye(9))
    whole = bytearray(Path("damaged.npz").read_bytes())
    whole[300] ^= 255
    Path("damaged.npz").write_bytes(whole)
    header = Path("x.npy").read_bytes()
    Path("short.npy").write_bytes(header[:200])
    Path("huge.npy").write_bytes(header.replace(b"(40, 12)", b"(-5, 12)"))
    np.save("no_rows.npy", np.empty((0, 3)))
    np.save("one.npy", np.ones((1, 3)))
    np.save("text.npy", np.array([["a", "b"]]))
    for arguments, message in {
        ("loss", "none.npy", "targets.npy"): "No such file",
        ("loss", "junk.npy", "targets.npy"): "junk.npy must be a .npy or .npz file of numbers",
        ("loss", "empty.npy", "targets.npy"): "empty.npy must be a .npy or .npz file of numbers",
        ("loss", "logits.npy", "x.npy"): "the rows of logits.npy, (50,), got (40, 12)",
        ("loss", "logits.npy", "outside.npy"): "targets must be in [0, 30)",
        ("loss", "logits.npy", "floats.npy"): "must be integers, got float64",
        ("loss", "logits.npy", "targets.npy", "--dtype", "bfloat16"): "must hold 16-bit words",
        ("loss", "logits.npy", "targets.npy", "--temperature", "0"): "temperature must be",
        ("pairwise", "two.npz"): "two.npz must hold one array, got a, b: pass two.npz:NAME",
        ("pairwise", "two.npz:c"): "two.npz holds no array 'c', but a, b",
        ("pairwise", "text.npy"): "x must hold real numbers",
        ("pairwise", "targets.npy"): "x must have two dimensions",
        ("pairwise", "none.npz"): "none.npz must hold an array, got none",
        ("pairwise", "no_rows.npy", "--plot", "d.png"): "a picture must have a pair to show",
        (
            "nearest",
            "one.npy",
        ): "k must be at most the number of other rows, 0, got 10",
        ("pairwise", "logits.npy"): "x must be at least 0",
        ("pairwise", "x.npy", "two.npz:a"): "bins",
        ("pairwise", "x.npy", "--measure", "kl"): "measure must be one of",
        ("pairwise", "x.npy", "--out", "none/d.npy"): "must be a file in a folder that exists",
        ("loss", "zip.npz", "targets.npy"): "zip.npz must be a .npy or .npz file of numbers",
        ("pairwise", "x.npy", "--out", "x.npy"): "x.npy must be a file of its own",
        ("nearest", "two.npz:a", "--out", "two.npz"): "two.npz must be a file of its own",
        ("pairwise", "x.npy", "--out", "d.npz"): "d.npz must end in .npy",
        ("nearest", "x.npy", "--out", "n.npy"): "n.npy must end in .npz",
        ("pairwise", "x.npy", "--out", ""): "'' must be a file in a folder that exists",
        ("pairwise", "x.npy", "--out", "loop"): "loop must be a file in a folder that exists",
        ("pairwise", "text.zip"): "text.zip must hold arrays of numbers, and 'a.txt' is none",
        ("pairwise", "x.npy:a"): "No such file",
        ("pairwise", "damaged.npz"): "damaged.npz must hold arrays of numbers, and 'a' is none",
        ("pairwise", "huge.npy"): "huge.npy must be a .npy or .npz file of numbers, and whole",
        ("pairwise", "short.npy"): "short.npy must be a .npy or .npz file of numbers, and whole",
        ("pairwise", "sparse.npz"): "sparse.npz holds a sparse matrix: commands take dense rows",
        ("pairwise", "words.npy"): "words.npy holds 16-bit words: say what they are, --dtype",
        ("loss", "no_classes.npy", "three.npy"): "must hold rows of logits, got shape (3, 0)",
        (
            "loss",
            "logits.npy",
            "targets.npy",
            "--temperature",
            "1e46",
        ): "temperature must be positive, at least",
        (
            "loss",
            "logits.npy",
            "targets.npy",
            "--softcap",
            "1e39",
        ): "softcap must be positive, at least",
        ("demo", "--steps", "0"): "steps must be at least 1, got 0",
        ("demo", "--source", "none"): "source must be a folder, got none",
        ("pairwise", "x.npy", "--out", "d.png", "--plot", "d.png"): "must be a file of its own",
        ("pairwise", "x.npy", "--plot", "none/d.png"): "must be a file in a folder that exists",
        ("pairwise", "x.npy", "--out", "pipe"): "pipe must be a file in a folder that exists",
        ("nearest", "x.npy", "--out", "none/n.npz"): "must be a file in a folder that exists",
        ("pairwise", "x.npy", "--plot", "d.xyz"): "d.xyz must end in one of ",
        ("nearest", "x.npy", "-k", "40"): "k must be in [1, 39]",
    }.items():
        assert message in error_of(capsys, *arguments), arguments
    assert not list(Path().glob(".*partial*"))


@pytest.mark.parametrize("arguments", [["loss"], ["pairwise"], ["nearest", "x", "-k", "many"]])
def test_wrong_arguments_end_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_is_half_written_has_not_the_final_name(rows, capsys, monkeypatch):
    np.save("d.npy", np.eye(2))

    def interrupted(*given, out, **named):
        out[:] = 1
        raise KeyboardInterrupt

    monkeypatch.setattr(fastinfo, "pairwise", interrupted)
    assert cli.main(["pairwise", "x.npy", "--out", "d.npy"]) == 130
    assert capsys.readouterr().err == "fastinfo: interrupted\n"
    np.testing.assert_array_equal(np.load("d.npy"), np.eye(2))
    assert sorted(os.listdir()) == ["d.npy", "x.npy", "y.npy"]


def run(*arguments, **named):
    command = [sys.executable, "-m", "fastinfo", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **named)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="space is not taken beforehand")
def test_a_file_too_large_for_its_disk_is_told(folder, rng):
    np.save("x.npy", rng.dirichlet(np.ones(4), 2000))
    process = run(
        "pairwise", "x.npy", "--out", "d.npy",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 24,) * 2),
    )  # fmt: skip
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"d.npy cannot be written: File too large\n" in err and err.count(b"\n") == 1
    assert os.listdir() == ["x.npy"]


def test_an_output_keeps_its_mode(rows, capsys):
    np.save("d.npy", np.eye(2))
    os.chmod("d.npy", 0o600)
    assert report_of(capsys, "pairwise", "x.npy", "--out", "d.npy")["out"] == "d.npy"
    assert os.stat("d.npy").st_mode & 0o777 == 0o600


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_nothing(folder, rng, number):
    np.save("x.npy", rng.dirichlet(np.ones(2000), 6000))
    # what a shell puts into the background ignores interrupts, and so would its children
    process = run(
        "pairwise", "x.npy", "--out", "d.npy",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    until = time.monotonic() + 60
    while not list(folder.glob(".d*partial*")) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    # Python ends by SIGINT itself if it came in code made of a string; shells call both 130
    assert process.returncode in (128 + number, -number)
    assert err == (b"fastinfo: interrupted\n" if number == signal.SIGINT else b"")
    assert os.listdir() == ["x.npy"]


@pytest.mark.skipif(sys.platform != "linux", reason="a limit that counts no file's pages")
def test_files_larger_than_memory(folder, rng):
    """Logits, and a matrix, of more bytes than a process may have."""
    limit = 700 << 20
    np.lib.format.open_memmap("logits.npy", "w+", np.float32, (3000, 65536)).flush()
    np.save("targets.npy", np.arange(3000))
    np.save("x.npy", rng.random((13700, 3), np.float32))

    def limited():
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    for arguments, size in (
        (["loss", "logits.npy", "targets.npy"], 3000 * 65536 * 4),
        (["pairwise", "x.npy", "--measure", "total_variation", "--out", "d.npy"], 13700**2 * 4),
    ):
        assert size > limit
        process = run(*arguments, "--json", preexec_fn=limited)
        out, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, b"")
        report = json.loads(out)
    assert report["lowest"] >= 0 and report["nan"] == 0
    x = np.load("x.npy")
    np.testing.assert_array_equal(
        np.load("d.npy", mmap_mode="r")[:3], fastinfo.pairwise(x[:3], x, "total_variation")
    )


# bench and info -------------------------------------------------------------------------------


def test_bench(folder, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    from fastinfo import speed

    monkeypatch.setattr(speed, "CLASSES", 500)
    monkeypatch.setattr(speed, "PAIRS", 40)
    monkeypatch.setattr(speed, "ceiling_bytes", lambda: 1 << 16)
    monkeypatch.setattr(speed, "measure", lambda cases, *_: measured(cases))
    from fastinfo.bench import measure

    def measured(cases):
        return measure(cases, 1, 0.1, 0.0)

    report = report_of(capsys, "bench", "--quick", "--plot", "pictures")
    assert {row["call"] for row in report["rows"]} >= {"loss", "loss + gradient", "KL of all pairs"}
    errors = [row["error"] for row in report["rows"] if row["error"] is not None]
    assert len(errors) >= 2 and max(errors) < 2e-5
    assert sorted(os.listdir("pictures")) == ["all-pairs-of-rows.svg", "rows-of-logits.svg"]


def test_info_names_devices(capsys):
    report = report_of(capsys, "info")
    assert report["cuda_devices"] is None or isinstance(report["cuda_devices"], list)
