"""The demo's figures and files on a few modules, and the command line around it."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import fastinfo
from fastinfo import cli, demo, language_model

LIBRARY = Path(sysconfig.get_paths()["stdlib"])
MODULES = ("json/__init__", "json/decoder", "json/encoder", "json/scanner", "json/tool")
MODULES += ("argparse", "optparse", "bz2", "lzma", "gzip", "queue", "heapq", "shelve", "dis")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return a folder with a few modules of the standard library, one broken file and tests."""
    root = tmp_path_factory.mktemp("library")
    for module in MODULES:
        target = root / f"{module}.py"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(LIBRARY / f"{module}.py", target)
    (root / "broken.py").write_text("x = (1,\n")
    (root / "latin.py").write_bytes(b"x = '\xe9'\n")
    (root / "test").mkdir()
    (root / "test" / "test_json.py").write_text("assert True\n")
    return root


@pytest.fixture(scope="module")
def corpus(source):
    """Return the modules of `source` as token streams."""
    return demo.read_corpus(source)


@pytest.fixture(scope="module")
def result(source, tmp_path_factory):
    """Return the report of one run, its text and its folder."""
    out = tmp_path_factory.mktemp("out") / "new"
    lines = []
    report = demo.run(out, source=source, tokens=300, steps=40, shortest=500, say=lines.append)
    return report, "\n".join(lines), out


def dense(model):
    """Return the model's distributions P(next | last) as a square matrix, from its definition."""
    types = model.unigram.size
    joint = np.zeros(types * types)
    joint[model.pairs] = model.bigram
    bigram = joint.reshape(types, types)
    mixed = model.weight * bigram + (1 - model.weight) * model.unigram
    return np.where(bigram.any(axis=1, keepdims=True), mixed, model.unigram)


# --- files to token streams ----------------------------------------------------------------------


def test_modules_are_named_like_imports_and_tests_are_left_out(source):
    names = set(demo.source_files(source))
    assert names == {m.removesuffix("/__init__").replace("/", ".") for m in MODULES} | {
        "broken",
        "latin",
    }


def test_a_file_becomes_token_types(tmp_path):
    path = tmp_path / "module.py"
    path.write_text('# a comment\ndef f(x):\n    """Add 1, twice."""\n    return x + 1\n')
    expected = (
        "def f ( x ) : <newline> <indent> "
        '" " " Add 1 , twice . " " " <newline> '
        "return x + 1 <newline> <dedent> <end>"
    )
    assert demo.read_tokens(path) == expected.split()


def test_types_seen_once_become_the_unknown_one(corpus):
    counts = np.bincount(np.concatenate(corpus.streams), minlength=len(corpus.vocabulary))
    assert corpus.skipped == 2
    assert len(corpus.modules) == len(MODULES)
    assert len(set(corpus.vocabulary)) == len(corpus.vocabulary)
    assert corpus.vocabulary[-1] == demo.UNKNOWN
    assert counts[-1] > 0
    assert counts[:-1].min() >= 2


def test_too_few_files_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="at least 3 readable Python files"):
        demo.read_corpus(tmp_path)


# --- how far apart the modules are ---------------------------------------------------------------


def test_count_rows_are_the_streams(corpus):
    modules, counts = demo.token_counts(corpus, 500)
    lengths = {m: s.size for m, s in zip(corpus.modules, corpus.streams, strict=True)}
    assert counts.shape == (len(modules), len(corpus.vocabulary))
    assert counts.sum(axis=1).tolist() == [lengths[m] for m in modules]
    assert set(modules) == {m for m, length in lengths.items() if length >= 500}


def test_the_matrix_is_the_js_divergence_in_bits(corpus, result):
    counts = demo.token_counts(corpus, 500)[1].astype(np.float64)
    p = counts / counts.sum(axis=1, keepdims=True)

    def entropy(x):
        return -(x * np.log2(x, where=x > 0, out=np.zeros_like(x))).sum(axis=-1)

    expected = entropy((p[:, None] + p) / 2) - (entropy(p)[:, None] + entropy(p)) / 2
    matrix = np.load(result[2] / "js_matrix.npy")
    np.testing.assert_allclose(matrix, expected, rtol=2e-5, atol=1e-12)
    assert (np.diag(matrix) == 0).all()


def test_the_nearest_modules_make_sense(result):
    report, text, out = result
    lines = (out / "nearest.txt").read_text().splitlines()
    nearest = {line.split()[0]: line.split()[1] for line in lines}
    assert len(lines) == report["modules"]["modules"] == len(np.load(out / "js_matrix.npy"))
    assert nearest["json.decoder"] == "json.encoder"
    assert nearest["json.encoder"] == "json.decoder"
    assert nearest["argparse"] == "optparse"
    assert nearest["bz2"] == "lzma"
    assert report["modules"]["nearest"]["json.decoder"][0] == "json.encoder"
    assert "json.encoder" in text


def test_a_row_is_not_its_own_neighbour_and_ties_go_by_index():
    matrix = np.array([[0, 0, 2, 1], [0, 0, 1, 1], [2, 1, 0, 0.5], [1, 1, 0.5, 0]])
    nearest = demo.nearest_modules(matrix, 6)
    assert nearest.tolist() == [[1, 3, 2], [0, 2, 3], [3, 1, 0], [2, 0, 1]]


def test_packages_side_by_side_are_labelled_once():
    modules = ["a.x", "a.y", "a.z", "b", "c.x"] + ["d.x"] * 4
    assert demo.package_labels(modules) == ([1, 3, 4, 6.5], ["a", "b", "c", "d"])


def test_the_heat_map_is_a_picture(result, tmp_path):
    pytest.importorskip("matplotlib")
    matrix = np.load(result[2] / "js_matrix.npy")
    demo.draw_heat_map([f"a.m{i}" for i in range(len(matrix))], matrix, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_without_scipy_rows_stay_and_nothing_is_compared(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.cluster", None)
    monkeypatch.setitem(sys.modules, "scipy.spatial.distance", None)
    assert demo.cluster_order(np.zeros((3, 3))).tolist() == [0, 1, 2]
    assert demo.compare_with_scipy(np.ones((3, 3), np.float32), 1.0) == {}


def test_without_matplotlib_the_rest_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    lines = []
    files = demo.write_comparison(["a", "b"], np.eye(2), ["a", "b"], tmp_path, lines.append)
    assert {Path(file).name for file in files} == {"js_matrix.npy", "nearest.txt"}
    assert all(Path(file).exists() for file in files)
    assert "pip install matplotlib" in lines[0]


# --- what comes next -----------------------------------------------------------------------------


def test_the_split_is_fixed_and_loses_no_token(corpus):
    parts = demo.split(corpus)
    assert all(part.size for part in parts)
    assert sum(part.size for part in parts) == sum(stream.size for stream in corpus.streams)
    for part, again in zip(parts, demo.split(corpus), strict=True):
        np.testing.assert_array_equal(part, again)


def test_logits_are_log_probabilities_of_the_mixture():
    stream = np.array([0, 1, 2, 0, 1, 0, 1, 3])  # nothing follows 3, and 4 never comes
    model = demo.Bigram(stream, 5)
    model.weight = 0.7
    logits = model.logits(np.arange(5), np.empty((5, 5), np.float32))
    np.testing.assert_allclose(model.unigram, np.array([4, 4, 2, 2, 1]) / 13)
    np.testing.assert_allclose(np.exp(logits), dense(model), rtol=1e-6)
    np.testing.assert_allclose(np.exp(logits[1, 2]), 0.7 / 3 + 0.3 * 2 / 13, rtol=1e-6)
    np.testing.assert_allclose(np.exp(logits).sum(axis=1), 1, rtol=1e-6)


def test_the_weight_is_the_most_likely_one(corpus):
    train, tune, _ = demo.split(corpus)
    model = demo.Bigram(train, len(corpus.vocabulary))

    def likelihood(weight):
        model.weight = weight
        return np.log(dense(model)[tune[:-1], tune[1:]]).sum()

    model.tune(tune[:-1], tune[1:])
    best = model.weight
    assert 0.01 < best < 0.99
    assert likelihood(best) > max(likelihood(best - 0.01), likelihood(best + 0.01))


@pytest.mark.parametrize("tokens", [1, demo.BLOCK, demo.BLOCK + 44])
def test_the_score_is_that_of_the_distributions(corpus, tokens):
    train, _, test = demo.split(corpus)
    model = demo.Bigram(train, len(corpus.vocabulary))
    last, targets = test[:tokens], test[1 : tokens + 1]
    report = demo.score(model, last, targets, progress=False)
    p = dense(model)[last]
    target = p[np.arange(tokens), targets]
    # Equal probabilities in float64 may differ in the last bit: ranks are of the logits themselves.
    logits = model.logits(last, np.empty(p.shape, np.float32))
    own = logits[np.arange(tokens), targets][:, None]
    earlier = np.arange(p.shape[1]) < targets[:, None]
    rank = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    assert report["tokens"] == tokens
    assert report["loss"] == pytest.approx(-np.log(target).mean(), rel=2e-5)
    assert report["perplexity"] == pytest.approx(np.exp(report["loss"]))
    assert report["bits_per_token"] == pytest.approx(-np.log2(target).mean(), rel=2e-5)
    assert report["entropy_bits"] == pytest.approx(-(p * np.log2(p)).sum(1).mean(), rel=2e-5)
    assert report["accuracy"] == (rank == 0).mean()
    assert report["top5_accuracy"] == (rank < 5).mean()


def test_the_bigram_beats_the_unigram_and_the_uniform_guess(corpus, result):
    report = result[0]["next_token"]
    train, _, test = demo.split(corpus)
    model = demo.Bigram(train, len(corpus.vocabulary))
    place = np.linspace(1, test.size - 1, 300).astype(int)
    unigram = np.exp(-np.log(model.unigram[test[place]]).mean())
    assert report["tokens"] == 300
    assert report["unigram_perplexity"] == pytest.approx(unigram, rel=1e-4)
    assert 1 < report["perplexity"] < report["unigram_perplexity"] < report["types"]


def test_training_starts_at_the_unigram_and_the_figures_are_told(corpus, result):
    report, text, _ = result
    report, network = report["next_token"], report["next_token"]["network"]
    types = len(corpus.vocabulary)
    first, *_, final = network["perplexity_after"]
    assert first["steps"] == 0
    assert first["perplexity"] == pytest.approx(report["unigram_perplexity"], rel=1e-3)
    assert final == {"steps": 40, "perplexity": network["perplexity"]}
    assert network["perplexity"] < report["unigram_perplexity"]
    assert network["tokens"] == 40 * language_model.BATCH
    assert network["operations"] == 6 * network["tokens"] * types * network["width"]
    assert network["logits_bytes"] == 40 * network["logits_bytes_of_a_step"]
    assert f"{network['perplexity']:.1f} in the end" in text
    if network["peak_memory"] is not None:
        assert 0 < network["peak_memory_before"] <= network["peak_memory"]


# --- the whole, and the command line -------------------------------------------------------------


def test_the_files_are_written_and_named(result):
    report, text, out = result
    names = {Path(file).name for file in report["files"]}
    assert names == set(os.listdir(out)) >= {"js_matrix.npy", "nearest.txt", "report.json"}
    assert all(file in text for file in report["files"])
    assert json.loads((out / "report.json").read_text()) == report


def test_demo_with_json_prints_one_object(source, tmp_path, capsys):
    arguments = ["demo", "--source", str(source), "--out", str(tmp_path), "--steps", "2", "--json"]
    assert cli.main(arguments) == 0
    printed, errors = capsys.readouterr()
    assert json.loads(printed) == json.loads((tmp_path / "report.json").read_text())
    assert errors == ""


def test_info_tells_versions_and_threads(capsys):
    assert cli.main(["info", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["fastinfo"] == fastinfo.__version__
    assert report["numpy"] == np.__version__
    assert report["threads"] == fastinfo.get_num_threads()
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    assert report["processor"] in text
    assert len(text.splitlines()) == len(report)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["dmo"], "invalid choice: 'dmo'"),
        (["demo", "--out"], "expected one argument"),
        (["demo", "--json", "--source", "{file}"], "source must be a folder"),
        (["demo", "--json", "--out", "{file}"], "exists"),
    ],
)
def test_an_error_is_one_line_and_status_2(arguments, message, tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    arguments = [argument.replace("{file}", str(file)) for argument in arguments]
    if "--out" not in arguments and "--json" in arguments:
        arguments += ["--out", str(tmp_path / "out")]
    try:
        status = cli.main(arguments)
    except SystemExit as stop:
        status = stop.code
    printed, errors = capsys.readouterr()
    assert status == 2
    assert printed == ""
    assert message in errors
    assert errors.count("\n") == 1


def test_an_interrupt_ends_with_status_130(monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupted)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr() == ("", "fastinfo: interrupted\n")


def test_a_reader_that_leaves_is_no_error(source, tmp_path):
    command = [sys.executable, "-m", "fastinfo", "demo"]
    command += ["--source", str(source), "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 2
