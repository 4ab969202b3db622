"""`fastinfo demo`: the main job on real input, the source files of Python's standard library.

Files become streams of token types. First the token distribution of each module, their JS matrix,
nearest modules and heat map; then a bigram model's predictions for held-out tokens, scored over
the whole vocabulary; then a network trained to predict them better.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import platform
import re
import sysconfig
import time
import tokenize
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastinfo
from fastinfo import language_model
from fastinfo.bench import peak_memory
from fastinfo.language_model import BATCH, STEPS, Bigram, LanguageModel, Stream

Say = Callable[[str], None]
Report = dict[str, Any]

NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
UNKNOWN = "<unknown>"
END = "<end>"
LAYOUT = {
    tokenize.NEWLINE: "<newline>",
    tokenize.INDENT: "<indent>",
    tokenize.DEDENT: "<dedent>",
    tokenize.ENDMARKER: END,
}
SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING}
# Python 3.12 and 3.14 hand out the text of f- and t-strings apart from what is between the braces.
LITERAL = {
    getattr(tokenize, name)
    for name in ("STRING", "FSTRING_MIDDLE", "TSTRING_MIDDLE")
    if hasattr(tokenize, name)
}
WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")

# Modules whose neighbours a reader can judge; all of them go to the file.
WELL_KNOWN = ("json.decoder", "json.encoder", "argparse", "bz2", "http.client", "threading")
NEIGHBOURS = 6
SAMPLE = 24  # rows on each side for SciPy, which takes about 8 ns a bin: 0.2 s
BLOCK = 256  # rows of logits at a time
LOOKS = 8  # at the held-out perplexity during training


# --- files to token streams ----------------------------------------------------------------------


class Corpus(NamedTuple):
    """Modules as streams of token types; the last type of the vocabulary is the unknown one."""

    modules: list[str]
    streams: list[NDArray[np.int64]]
    vocabulary: list[str]
    skipped: int


def source_files(root: Path) -> dict[str, Path]:
    """Return the module name and path of each Python file under `root`, tests left out."""
    files = {}
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(set(subfolders) - NOT_LIBRARY)
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix == ".py":
                parts = path.relative_to(root).with_suffix("").parts
                package = parts[:-1] if parts[-1] == "__init__" else parts
                files[".".join(package) or root.name] = path
    return files


def read_tokens(path: Path) -> list[str]:
    """Return the token types of a file: its tokens, layout included and comments left out.

    A string literal is read as its words and marks: as one token, almost each would be a type of
    its own, and its words say what the module is about.
    """
    types = []
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type in LITERAL:
                types += WORD_OR_MARK.findall(token.string)
            elif token.type not in SILENT:
                types.append(LAYOUT.get(token.type, token.string))
    return types


def read_corpus(root: Path, progress: bool = False) -> Corpus:
    """Read the modules under `root`; types seen once in all of them become the unknown one."""
    texts = {}
    files = source_files(root)
    for module, path in progress_bar(files.items(), "reading", progress):
        try:
            texts[module] = read_tokens(path)
        except (tokenize.TokenError, SyntaxError, UnicodeDecodeError, OSError):
            continue
    if len(texts) < 3:
        raise ValueError(f"at least 3 readable Python files are needed, {root} has {len(texts)}")
    counts = Counter(token for text in texts.values() for token in text)
    vocabulary = [token for token, count in counts.items() if count > 1]
    number = {token: i for i, token in enumerate(vocabulary)}
    unknown = len(vocabulary)
    streams = [np.array([number.get(token, unknown) for token in t]) for t in texts.values()]
    return Corpus(list(texts), streams, [*vocabulary, UNKNOWN], len(files) - len(texts))


# --- how far apart the modules are ---------------------------------------------------------------


def token_counts(corpus: Corpus, shortest: int) -> tuple[list[str], NDArray[np.float32]]:
    """Return the modules of at least `shortest` tokens, and a row of token counts for each."""
    chosen = [i for i, stream in enumerate(corpus.streams) if stream.size >= shortest]
    if len(chosen) < 2:
        raise ValueError(f"at least 2 files of {shortest} tokens are needed, found {len(chosen)}")
    rows = np.empty((len(chosen), len(corpus.vocabulary)), np.float32)
    for row, i in zip(rows, chosen, strict=True):
        row[:] = np.bincount(corpus.streams[i], minlength=row.size)
    return [corpus.modules[i] for i in chosen], rows


def nearest_modules(matrix: NDArray[Any], k: int) -> NDArray[np.intp]:
    """Return the indices of the `k` nearest other rows of each row, the nearest first."""
    others = matrix.copy()
    np.fill_diagonal(others, np.inf)
    return np.argsort(others, axis=1, kind="stable")[:, : min(k, len(matrix) - 1)]


def describe_neighbours(
    modules: list[str], matrix: NDArray[Any], nearest: NDArray[np.intp]
) -> list[str]:
    """Return one line a module: its name, and its nearest ones with their divergence in bits."""
    return [
        f"{module:<26}  " + ", ".join(f"{modules[j]} {matrix[i, j]:.2f}" for j in nearest[i])
        for i, module in enumerate(modules)
    ]


def cluster_order(matrix: NDArray[Any]) -> NDArray[np.intp]:
    """Return the rows in the order of a hierarchical clustering; as they are without SciPy."""
    try:
        from scipy.cluster import hierarchy
    except ImportError:
        return np.arange(len(matrix))
    distances = np.sqrt(matrix[np.triu_indices(len(matrix), 1)].astype(np.float64))
    tree = hierarchy.linkage(distances, "average", optimal_ordering=True)
    return np.asarray(hierarchy.leaves_list(tree))


def package_labels(modules: list[str]) -> tuple[list[float], list[str]]:
    """Return centre and name of the runs of one package, those with room for a line of text."""
    room = len(modules) / 80
    centres, labels = [-room], [""]
    start = 0
    for package, run_of in itertools.groupby(modules, lambda module: module.partition(".")[0]):
        length = len(list(run_of))
        centre = start + (length - 1) / 2
        if length >= room / 2 and centre - centres[-1] >= room:
            centres.append(centre)
            labels.append(package)
        start += length
    return centres[1:], labels[1:]


def draw_heat_map(modules: list[str], matrix: NDArray[Any], path: Path) -> None:
    """Write the matrix as a picture, similar modules side by side. Needs matplotlib."""
    from matplotlib.figure import Figure

    order = cluster_order(matrix)
    figure = Figure(figsize=(10, 8.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    brightest = np.quantile(matrix, 0.7)  # a few modules resemble no other: they would wash out all
    image = axes.imshow(matrix[np.ix_(order, order)], cmap="magma", vmin=0, vmax=brightest)
    axes.set_yticks(*package_labels([modules[i] for i in order]), fontsize=7)
    axes.set_xticks([])
    axes.set_title(f"JS divergence of the token distributions of {len(modules)} Python modules")
    figure.colorbar(image, label="bits", extend="max", shrink=0.6)
    figure.savefig(path, bbox_inches="tight")


def compare_with_scipy(counts: NDArray[np.float32], seconds_a_pair: float) -> Report:
    """Time SciPy's `cdist` on a sample of the pairs; an empty report without SciPy."""
    try:
        from scipy.spatial.distance import cdist
    except ImportError:
        return {}
    first, second = counts[:SAMPLE], counts[-SAMPLE:]
    began = time.perf_counter()
    distances = cdist(first, second, "jensenshannon")
    seconds = time.perf_counter() - began
    difference = np.abs(fastinfo.pairwise(first, second) - distances**2).max()
    return {
        "pairs": distances.size,
        "times_slower": seconds / distances.size / seconds_a_pair,
        "largest_difference": float(difference),
    }


def compare_modules(corpus: Corpus, out: Path, shortest: int, say: Say) -> Report:
    """Part 1: the JS matrix of the modules, their nearest ones, and the heat map."""
    modules, counts = token_counts(corpus, shortest)
    n, types = counts.shape
    say(f"\n2. How far apart are the modules? {n} of them have {shortest:,} tokens and more")
    began = time.perf_counter()
    fastinfo.pairwise(counts[:2], base=2)
    ready = time.perf_counter() - began
    say(f"   Kernel ready in {ready:.1f} s (compiled once on this machine, then kept)")
    began = time.perf_counter()
    matrix = fastinfo.pairwise(counts, measure="js_divergence", base=2)
    seconds = time.perf_counter() - began
    pairs = n * (n - 1) // 2
    say(f"   JS divergence of {pairs:,} pairs of distributions over {types:,} types:")
    say(f"   {seconds:.2f} s, {pairs * types / seconds / 1e9:.1f} billion bins a second")
    report: Report = {
        "modules": n,
        "types": types,
        "pairs": pairs,
        "seconds": seconds,
        "bins_per_second": pairs * types / seconds,
    }
    if scipy := compare_with_scipy(counts, seconds / pairs):
        report["scipy_cdist"] = scipy
        say(
            f"   SciPy's cdist, in float64 on one thread, takes {scipy['times_slower']:.0f} times "
            f"longer a pair;\n   largest difference of {scipy['pairs']} pairs: "
            f"{scipy['largest_difference']:.0e} nats"
        )
    nearest = nearest_modules(matrix, NEIGHBOURS)
    lines = describe_neighbours(modules, matrix, nearest)
    shown = [modules.index(m) for m in WELL_KNOWN if m in modules] or range(min(6, n))
    say("   Nearest modules (0 bits: the same distribution; 1 bit: nothing in common):")
    for i in shown:
        say("     " + ", ".join(lines[i].split(", ")[:4]))
    report["nearest"] = {modules[i]: [modules[j] for j in nearest[i]] for i in shown}
    report["files"] = write_comparison(modules, matrix, lines, out, say)
    return report


def write_comparison(
    modules: list[str], matrix: NDArray[Any], lines: list[str], out: Path, say: Say
) -> list[str]:
    """Write the matrix, the nearest modules in the order of its rows, and the heat map."""
    files = [out / "js_matrix.npy", out / "nearest.txt", out / "heat_map.png"]
    np.save(files[0], matrix)
    files[1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        draw_heat_map(modules, matrix, files[2])
    except ImportError:
        say("   No heat map: it needs matplotlib (pip install matplotlib)")
        files.pop()
    return [str(file) for file in files]


# --- what comes next: held-out tokens scored over the whole vocabulary ---------------------------


def split(corpus: Corpus) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return three streams: 80 % of the files to train, 10 % to tune, 10 % to test.

    Files stand in the order of a hash of their names, the same in every run.
    """
    order = sorted(range(len(corpus.modules)), key=lambda i: zlib.crc32(corpus.modules[i].encode()))
    tenth = max(1, len(order) // 10)
    parts = (order[: -2 * tenth], order[-2 * tenth : -tenth], order[-tenth:])
    train, tune, test = (np.concatenate([corpus.streams[i] for i in part]) for part in parts)
    return train, tune, test


def score(
    model: Bigram, last: NDArray[np.int64], targets: NDArray[np.int64], progress: bool
) -> Report:
    """Score `targets` after `last` by the model, block by block; only the scoring is timed."""
    block = np.empty((min(BLOCK, targets.size), model.unigram.size), np.float32)
    seconds = np.zeros(2)
    totals = np.zeros(4)
    starts = [0, *range(0, targets.size, BLOCK)]  # the first block twice: it loads the kernels
    for turn, lo in enumerate(progress_bar(starts, "scoring", progress)):
        y = targets[lo : lo + BLOCK]
        logits = model.logits(last[lo : lo + BLOCK], block[: y.size])
        began = time.perf_counter()
        loss = fastinfo.softmax_cross_entropy(logits, y, reduction="sum")
        between = time.perf_counter()
        statistics = fastinfo.softmax_statistics(logits, y)
        ended = time.perf_counter()
        if turn:
            rank = statistics.target_rank
            seconds += between - began, ended - between
            totals += loss, statistics.entropy.sum(), (rank == 0).sum(), (rank < 5).sum()
    loss, entropy, accuracy, top5 = (totals / targets.size).tolist()
    logits_bytes = targets.size * block[0].nbytes
    return {
        "tokens": targets.size,
        "types": model.unigram.size,
        "loss": loss,
        "perplexity": math.exp(loss),
        "bits_per_token": loss / math.log(2),
        "entropy_bits": entropy / math.log(2),
        "accuracy": accuracy,
        "top5_accuracy": top5,
        "softmax_cross_entropy": speed(seconds[0], targets.size, logits_bytes),
        "softmax_statistics": speed(seconds[1], targets.size, logits_bytes),
    }


def speed(seconds: float, rows: int, read: int) -> Report:
    """Return the time of a scoring function, its rows and bytes a second."""
    return {
        "seconds": float(seconds),
        "rows_per_second": rows / seconds,
        "gigabytes_per_second": read / seconds / 1e9,
    }


def predict_tokens(corpus: Corpus, tokens: int, steps: int, say: Say, progress: bool) -> Report:
    """Parts 2 and 3: perplexity on held-out tokens of a bigram model, and of a trained network."""
    train, tune, test = split(corpus)
    types = len(corpus.vocabulary)
    say("\n3. What comes next? A bigram model interpolated with the unigram")
    model = Bigram(train, types)
    model.tune(tune[:-1], tune[1:])
    say(f"   Trained on {train.size:,} tokens ({model.pairs.size:,} different pairs);")
    say(f"   weight of the bigram {model.weight:.2f}, tuned on {tune.size:,} tokens of other files")
    place = np.linspace(1, test.size - 1, min(tokens, test.size - 1)).astype(np.int64)
    targets = test[place]
    say(f"   Scoring {place.size:,} tokens out of {test.size:,} of yet other files,")
    say(f"   each over {types:,} logits, {BLOCK} rows ({BLOCK * types * 4 / 1e6:.0f} MB) at a time")
    report = score(model, test[place - 1], targets, progress)
    # One row of logits, repeated with stride 0: no memory, whatever the number of tokens.
    unigram = np.broadcast_to(np.log(model.unigram).astype(np.float32), (place.size, types))
    report["unigram_perplexity"] = float(fastinfo.perplexity(unigram, targets))
    report["weight"] = model.weight
    describe_score(report, say)
    say("\n4. The same tokens by a network with one hidden layer, trained by linear_cross_entropy")
    stream = Stream(np.concatenate([train, test]), types - 1)
    network = LanguageModel(model.unigram)
    report["network"] = train_network(network, stream, train.size, train.size + place, steps, say)
    describe_training(report["network"], report, say)
    return report


def describe_score(report: Report, say: Say) -> None:
    """Print what the scoring found, and how fast it was."""
    loss, statistics = report["softmax_cross_entropy"], report["softmax_statistics"]
    say(
        f"   Perplexity {report['perplexity']:.1f} ({report['bits_per_token']:.2f} bits a token); "
        f"the unigram's {report['unigram_perplexity']:.1f}; a uniform guess {report['types']:,}"
    )
    say(
        f"   Accuracy {report['accuracy']:.1%}, among the first five {report['top5_accuracy']:.1%}"
        f"; the model expected {report['entropy_bits']:.2f} bits a token (its entropy)"
    )
    for name, measured in (("loss", loss), ("loss, entropy, rank", statistics)):
        say(
            f"   {name + ':':<21}{measured['rows_per_second']:>9,.0f} rows a second, "
            f"{measured['gigabytes_per_second']:.1f} GB/s, one reading of the logits"
        )


def train_network(
    model: LanguageModel, stream: Stream, end: int, held_out: NDArray[Any], steps: int, say: Say
) -> Report:
    """Train on what is before `end`; look at the perplexity at the `held_out` places on the way."""
    types, width = model.parameters["embedding"].shape
    say(f"   {types:,} embeddings of width {width}; {steps} steps of Adam, {BATCH:,} tokens each")
    before, began = peak_memory(), time.perf_counter()
    path = [(0, language_model.perplexity(model, stream, held_out))]
    say(f"   Perplexity {path[0][1]:>6.1f} before the first step")
    for step in language_model.train(model, stream, end, steps):
        if step % math.ceil(steps / LOOKS) == 0 or step == steps:
            path.append((step, language_model.perplexity(model, stream, held_out)))
            say(f"   {path[-1][1]:>17.1f} after {step} steps, {time.perf_counter() - began:.0f} s")
    tokens = steps * BATCH
    return {
        "steps": steps,
        "tokens": tokens,
        "width": width,
        "operations": 6 * tokens * types * width,
        "seconds": time.perf_counter() - began,
        "perplexity": path[-1][1],
        "perplexity_after": [{"steps": step, "perplexity": value} for step, value in path],
        "peak_memory_before": before,
        "peak_memory": peak_memory(),
        "logits_bytes_of_a_step": 4 * BATCH * types,
        "logits_bytes": 4 * tokens * types,
    }


def describe_training(network: Report, bigram: Report, say: Say) -> None:
    """Print where training ended, and what it took."""
    say(
        f"   {network['perplexity']:>17.1f} in the end; the bigram's {bigram['perplexity']:.1f}, "
        f"the unigram's {bigram['unigram_perplexity']:.1f}"
    )
    say(
        f"   {network['tokens']:,} tokens in {network['seconds']:.0f} s, "
        f"{network['operations']:.1e} operations in the products with the embeddings"
    )
    step, every = network["logits_bytes_of_a_step"] / 1e9, network["logits_bytes"] / 1e9
    say(f"   The logits never were in memory: {step:.2f} GB a step, {every:.0f} GB in all")
    if network["peak_memory"] is not None:
        peak, before = network["peak_memory"] / 1e9, network["peak_memory_before"] / 1e9
        say(f"   Peak memory of the process {before:.2f} GB before training, {peak:.2f} GB after")


# --- the whole -----------------------------------------------------------------------------------


def progress_bar(items: Iterable[Any], label: str, show: bool) -> Iterable[Any]:
    """Return `items`, with a bar on a terminal if asked for and tqdm is installed."""
    if not show:
        return items
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    return tqdm(items, desc=f"   {label}", leave=False, disable=None)


def run(
    out: str | Path = "fastinfo-demo",
    *,
    source: str | Path | None = None,
    tokens: int = 8192,
    steps: int | None = None,
    shortest: int = 1000,
    say: Say = print,
    progress: bool = False,
) -> Report:
    """Run the demo on the Python files under `source`, the standard library by default.

    Parameters
    ----------
    out : path
        Folder of the files written; made if need be.
    source : path, optional
        Folder of Python files.
    tokens : int
        Largest number of held-out tokens to score.
    steps : int, optional
        Steps of training, 160 by default.
    shortest : int
        Modules of fewer tokens are not compared.
    say : callable
        Takes each line of text.
    progress : bool
        Whether to show bars on a terminal.

    Returns
    -------
    dict
        What was found, how long it took, and the paths of the files.
    """
    began = time.perf_counter()
    root = Path(source or sysconfig.get_paths()["stdlib"])
    if not root.is_dir():
        raise ValueError(f"source must be a folder, got {root}")
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    threads = fastinfo.get_num_threads()
    say(f"fastinfo {fastinfo.__version__}, Python {platform.python_version()}, {threads} threads")
    say(f"\n1. Reading {root}")
    corpus = read_corpus(root, progress)
    size = sum(stream.size for stream in corpus.streams)
    types = len(corpus.vocabulary)
    seconds = time.perf_counter() - began
    say(f"   {len(corpus.modules):,} files, {size:,} tokens in {seconds:.1f} s;")
    say(f"   {types - 1:,} token types seen at least twice, and one for the unknown")
    report: Report = {
        "fastinfo": fastinfo.__version__,
        "python": platform.python_version(),
        "threads": threads,
        "corpus": {
            "source": str(root),
            "files": len(corpus.modules),
            "files_skipped": corpus.skipped,
            "tokens": size,
            "types": types,
            "seconds": seconds,
        },
        "modules": compare_modules(corpus, out, shortest, say),
        "next_token": predict_tokens(corpus, tokens, steps or STEPS, say, progress),
    }
    report["files"] = [*report["modules"].pop("files"), str(out / "report.json")]
    report["seconds"] = time.perf_counter() - began
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    say("\n   ".join([f"\n5. Done in {report['seconds']:.0f} s. Files written:", *report["files"]]))
    return report
