"""Write the figures of the documentation from ``benchmarks/results/``; ``--check`` only says whether they are right.

    python tools/make_tables.py

A page has a table between ``<!-- table: KIND ARGUMENTS -->`` and ``<!-- end -->``; `TABLES` has the kinds. Bars and
rooflines are drawn of the same files. After a benchmark with ``--record`` nothing needs to be edited by hand.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import PROCESSORS, RESULTS, ROOT, folder_of
from benchmarks.peers import PEERS
from benchmarks.plots import check_plot, save_bars, save_kernels
from tests.documentation import TEXTS
from tests.support.pages import by_this_matplotlib, filled, same_picture

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
#: Processors by their folders.
TITLES = {folder_of({"processor": name}): title for name, title in PROCESSORS.items()}
#: The caches of a machine whose file does not name them.
CACHES = {"L2": 2**20, "L3": 2**25}
#: The layers of a network, which are convolutions, and those of all other ops.
CONVOLUTIONS, OTHERS = "kernels_resnet_v2_50_224", "kernels_ops"


def read(name: str) -> dict[str, Any]:
    """A result, for instance ``zen4/peers_resnet_v2_50_224_1_2``."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def results_of(folder: str, benchmark: str) -> dict[str, dict[str, Any]]:
    """All results of a benchmark on a processor, by the names of their files."""
    return {path.stem: read(f"{folder}/{path.stem}") for path in sorted((RESULTS / folder).glob(f"{benchmark}_*.json"))}


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]]) + "\n"


def word(count: int) -> str:
    """A number as a sentence has it."""
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def threads_of(case: Mapping[str, Any]) -> str:
    """For instance "two threads"."""
    return f"{word(case['threads'])} thread{'s' if case['threads'] > 1 else ''}"


def cores_of(folder: str, about: Mapping[str, Any]) -> str:
    """For instance "Zen 4 cores with AVX-512"."""
    vectors = "AVX-512" if "avx512f" in about["features"] else "AVX2" if "avx2" in about["features"] else "SSE"
    if "target" in about:
        vectors = f"kernels for {about['target']}"
    title = TITLES.get(folder.partition("_for_")[0], about["cpu"])
    return f"{title} cores with {vectors}" if "asimd" not in about["features"] else f"{title} cores"


def when(results: Iterable[Mapping[str, Any]]) -> str:
    """The days and the commits of some results, for instance "2026-11-27, revision `16a69f2`"."""
    days: dict[str, dict[str, None]] = {}
    for about in (result["machine"] for result in results):
        days.setdefault(about["date"], {})[f"`{about['revision']}`"] = None
    return "; ".join(
        f"{day}, revision{'s' if len(days[day]) > 1 else ''} {' and '.join(days[day])}" for day in sorted(days)
    )


def small(value: float) -> str:
    """An error, for instance 2.0e-7."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def three_digits(value: float) -> str:
    """Three significant digits, also where the last ones are 0."""
    return f"{value:#.3g}".rstrip(".")


def seconds(value: float) -> str:
    """A time with two digits, or more if it has more before the point."""
    return f"{value:.2f} s" if value < 1 else f"{value:.1f} s"


def engine_title(title: str, versions: Mapping[str, str | None]) -> str:
    """An engine with its version, without the last part."""
    package = next(peer.package for peer in PEERS.values() if peer.title == title)
    version = ".".join(str(versions.get(package)).split("+")[0].split(".")[:2])
    name, bracket, rest = title.partition(" (")
    if package == "refnet":
        return "**refnet**"
    return f"{name}, TensorFlow {version}" if package == "tensorflow" else f"{name} {version}{bracket}{rest}"


def case_label(case: Mapping[str, Any]) -> str:
    """A case in the first column of a table."""
    parts = [f"{case['size']}" if case["network"] == "resnet_v2_50" else f"{case['network']}, {case['size']}"]
    parts += [f"batch {case['batch']}"] if case["batch"] > 1 else []
    parts += [f"output stride {case['output_stride']}, dense"] if case["output_stride"] is not None else []
    parts += [] if case["threads"] == 2 else [threads_of(case)]
    return ", ".join(parts)


def order(case: Mapping[str, Any]) -> tuple[int, ...]:
    """Where a case stands among others."""
    depth = int(case["network"].rpartition("_")[2])
    return depth, case["size"], -(case["output_stride"] or 0), case["batch"], -case["threads"]


def pair(row: Mapping[str, Any]) -> str:
    """The minimum and the median in ms."""
    return f"{row['ms']['min']:.1f} / {row['ms']['median']:.1f}"


def about(name: str) -> str:
    """What a result of `bench_peers` was measured of, and where and when."""
    result = read(name)
    case, where = result["case"], result["machine"]
    size = f"{case['size']} x {case['size']}"
    return (
        f"{case['network']}, {size}, batch {case['batch']}, {threads_of(case)} on {word(where['cores'])} "
        f"{cores_of(name.partition('/')[0], where)} ({when([result])}).\n"
    )


def peers(name: str) -> str:
    """All engines in one case."""
    result = read(name)
    head = ["engine", "ms, min / median", "error of the logits", "start to first output", "peak memory"]
    rows = []
    for title, row in result["rows"].items():
        ours = title == "refnet"
        cells = [engine_title(title, result["machine"]["versions"]), f"**{pair(row)}**" if ours else pair(row)]
        cells += [small(row["error"]), seconds(row["first_output_s"]), f"{row['peak_rss_mb']:.0f} MiB"]
        rows.append([*cells, "yes" if ours else "no"])
    return markdown([*head, "the same bits for any threads and batch"], rows)


def fastest_other(result: Mapping[str, Any], kind: str) -> float:
    """The time of the fastest engine but refnet."""
    return min(float(row["ms"][kind]) for title, row in result["rows"].items() if title != "refnet")


def cases(folder: str) -> str:
    """All engines in each case on a processor."""
    results = list(results_of(folder, "peers").values())
    results.sort(key=lambda result: order(result["case"]))
    titles = [peer.title for peer in PEERS.values() if any(peer.title in result["rows"] for result in results)]
    rows = []
    for result in results:
        times = [pair(result["rows"][title]) if title in result["rows"] else "-" for title in titles]
        ratio = " / ".join(
            f"{result['rows']['refnet']['ms'][kind] / fastest_other(result, kind):.2f}" for kind in ("min", "median")
        )
        times[0] = f"**{times[0]}**"
        rows.append([case_label(result["case"]), *times, f"{result['floor_ms']['min']:.1f}", ratio])
    head = ["case", *(title.partition(" (")[0] for title in titles), "all products in registers"]
    return markdown([*head, "refnet / the fastest other"], rows)


def version_of(folder: str) -> str:
    """When the cases of a processor were measured, and whether that version left out products with zeros."""
    results = list(results_of(folder, "peers").values())
    zeros = all("zeros" in result for result in results)
    what = "leaves out products with zeros" if zeros else "still computed all products"
    cores = cores_of(folder, results[0]["machine"])
    number = word(results[0]["machine"]["cores"])
    return f"{number.capitalize()} {cores}, by the version that {what} ({when(results)}).\n"


def processor(folder: str) -> str:
    """A section of a processor: the engines in the first case, then all cases."""
    first = read(f"{folder}/peers_resnet_v2_50_224_1_2")
    title = f"{first['case']['network']}, 224 x 224, batch 1, {threads_of(first['case'])}:"
    label = "All cases in ms, min / median, with two threads unless the row says one:"
    return "\n".join(
        [version_of(folder), f"{title}\n", peers(f"{folder}/peers_resnet_v2_50_224_1_2"), f"{label}\n", cases(folder)]
    )


def share_of_zeros(name: str) -> str:
    """The share of products with zeros, and the time of all of them."""
    result = read(name)
    return (
        f"In the network of the tables these are {result['zeros']:.0%} of all products, as a ReLU comes before each "
        f"convolution but the first. All products, except those outside the image, take the "
        f"{TITLES[name.partition('/')[0]]} cores {result['floor_ms']['min']:.1f} ms in registers alone.\n"
    )


def convolutions(folder: str) -> str:
    """All convolutions of a network, by themselves, with some shares of zeros."""
    rows, found = [], []
    for result in results_of(folder, "kernels").values():
        layers = [row for row in result["rows"].values() if row["op"] == "conv"]
        if layers:
            found.append(result)
            ms = sum(row["times"] * row["ms"]["min"] for row in layers)
            gflops = sum(row["times"] * row["flop"] for row in layers) / ms / 1e6
            case = result["case"]
            network = case["shapes"].replace("_os", ", output stride ")
            name, _, size = network.rpartition("_")
            rows.append((f"{name}, {size}", case.get("zeros", 0), ms, gflops, gflops / result["peak_gflops"]))
    cells = [
        [name, f"{zeros:.0%}", f"{ms:.1f}", f"{gflops:.0f}", f"{share:.0%}"]
        for name, zeros, ms, gflops, share in sorted(rows)
    ]
    text = f"One of the {cores_of(folder, found[0]['machine'])} ({when(found)}):\n\n"
    return text + markdown(["network", "zeros", "ms", "GFLOP/s", "of the peak of multiply-adds"], cells)


def price(name: str) -> str:
    """What the contract costs."""
    result = read(name)
    layers = {key: row for key, row in result["rows"].items() if "times" in row}
    root = next(key for key in layers if key.startswith("conv 7x7"))
    shown = {
        "the root, 7 x 7": layers[root],
        "all convolutions, in the caches": result["rows"]["all convolutions"],
        "the whole network": result["rows"]["resnet_v2_50"],
    }
    rows = [
        [label, three_digits(row["ms"]["min"]), three_digits(row["without"]["min"]),
         *(f"{row['price'][kind]:.1%}" for kind in ("min", "median"))]
        for label, row in shown.items()
    ]  # fmt: skip
    prices = [row["price"]["min"] for row in layers.values()]
    folder, case = name.partition("/")[0], result["case"]
    clock = "processor time" if case["threads"] == 1 else "time"
    return (
        f"resnet_v2_50, {case['size']} x {case['size']}, {threads_of(case)} on {cores_of(folder, result['machine'])}, "
        f"all products computed, {clock} in ms, the best of {result['rounds']} rounds ({when([result])}):\n\n"
        + markdown(["", "by the contract", "without it", "price by the minima", "by the medians"], rows)
        + f"\nA layer costs {min(prices):.1%} to {max(prices):.1%}.\n"
    )


def cuda(name: str) -> str:
    """A GPU beside PyTorch."""
    result = read(name)
    about, found = result["machine"], result["rows"]
    rows, batches = [], sorted({int(key.partition(",")[0].removeprefix("batch ")) for key in found})

    def median(batch: int, *kinds: str) -> str:
        return f"{min(found[f'batch {batch}, {kind}']['ms']['median'] for kind in kinds):.2f}"

    for batch in batches:
        device = median(batch, "device")
        graph = median(batch, "PyTorch NHWC, graph", "PyTorch NCHW, graph")
        launches = median(batch, "PyTorch NHWC", "PyTorch NCHW")
        rows.append([f"{batch}", median(batch, "NumPy"), f"**{device}**", graph, launches])
    torch, last = ".".join(about["versions"]["torch"].split(".")[:2]), batches[-1]
    return (
        f"{result['case']['network']}, {result['case']['size']} x {result['case']['size']}, on an {about['device']}, "
        f"medians in ms, beside PyTorch {torch} with cuDNN and cuBLAS in binary32 ({when([result])}):\n\n"
        + markdown(
            ["batch", "refnet, NumPy in and out", "refnet, on the device", "PyTorch, graph",
             "PyTorch, launch by launch"], rows,
        )
        + f"\nOn the device, the network runs at {found[f'batch {last}, device']['tflops']:.1f} TFLOP/s with a batch "
        f"of {last}.\n"
    )  # fmt: skip


class Place(NamedTuple):
    """Layers of a kind that the same limit binds, in a network.

    ``bound_ms`` is the time that they would take at that limit.
    """

    kind: str
    limit: str
    layers: int
    ms: float
    flop: int
    bytes: int
    bound_ms: float

    @property
    def cells(self) -> list[str]:
        """The row of a table."""
        work = [f"{self.flop / self.bytes:.2g}", f"{self.flop / self.ms / 1e6:.1f}"] if self.flop else ["-", "-"]
        share = f"{self.bound_ms / self.ms:.0%}"
        gb_per_s = f"{self.bytes / self.ms / 1e6:.1f}"
        return [self.kind, f"{self.layers}", three_digits(self.ms), *work, gb_per_s, self.limit, share]


def limits_of(row: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, float]:
    """The ms that a layer takes at each of the machine's limits."""
    caches = result["machine"].get("caches", CACHES)
    level = next((name for name in ("L2", "L3") if row["bytes"] <= caches.get(name, CACHES[name])), "DRAM")
    memory = {"L2": "copies in L2", "L3": "copies in L3", "DRAM": "copies in memory"}[level]
    bandwidth = result["gb_per_s"][level]
    return {"multiply-adds": row["flop"] / result["peak_gflops"] / 1e6, memory: row["bytes"] / bandwidth / 1e6}


def layers_of(folder: str) -> list[dict[str, Any]]:
    """The result of a network's convolutions, and that of all other ops, each with these layers only."""
    found = []
    for name in (CONVOLUTIONS, OTHERS):
        result = read(f"{folder}/{name}")
        rows = {key: row for key, row in result["rows"].items() if (row["op"] == "conv") == (name == CONVOLUTIONS)}
        found.append(result | {"rows": rows})
    return found


def places(results: Iterable[Mapping[str, Any]], ops: Sequence[str]) -> list[Place]:
    """The places of some ops, or of all, under the roofline."""
    found: dict[tuple[str, str], Place] = {}
    for result in results:
        for row in result["rows"].values():
            if not ops or row["op"] in ops:
                limits, times = limits_of(row, result), row["times"]
                limit = max(limits, key=lambda name: limits[name])
                kind = f"{row['op']} {row['kernel']}".rstrip()
                was = found.get((kind, limit), Place(kind, limit, 0, 0, 0, 0, 0))
                found[kind, limit] = Place(
                    kind, limit, was.layers + times, was.ms + times * row["ms"]["min"], was.flop + times * row["flop"],
                    was.bytes + times * row["bytes"], was.bound_ms + times * limits[limit],
                )  # fmt: skip
    kinds = list(dict.fromkeys(kind for kind, _ in found))
    return sorted(found.values(), key=lambda place: kinds.index(place.kind))


def roofline(folder: str, *ops: str) -> str:
    """The place of ops under the roofline: how near to the limit that binds them."""
    head = ["layers", "how many", "ms in all", "FLOP per byte", "GFLOP/s", "GB/s", "nearest limit", "share of it"]
    results = [
        result for result in layers_of(folder) if not ops or {row["op"] for row in result["rows"].values()} & {*ops}
    ]
    commands = [f"python benchmarks/bench_kernels.py --shapes benchmarks/shapes/{result['case']['shapes']}.txt"
                for result in results]  # fmt: skip
    text = f"One thread on {cores_of(folder, results[0]['machine'])} ({when(results)}), the layers of a network, by\n\n"
    text += "\n".join(["```", *commands, "```\n\n"])
    return text + markdown(head, [place.cells for place in places(results, ops)])


def norms(folder: str) -> str:
    """Group norms beside copies."""
    result = read(f"{folder}/{OTHERS}")
    rows = []
    for name, row in result["rows"].items():
        if row["op"] == "group_norm":
            shape = name.removeprefix("group_norm ").rpartition("x")[0]
            numbers = math.prod(map(int, shape.split("x")))
            ns = 1e6 * row["ms"]["min"]
            _, (level, ms) = limits_of(row, result).items()
            copy = row["bytes"] / ms / 1e6
            cells = [shape.replace("x", " x "), f"{ns / 1e3:.0f}", f"{ns / numbers:.2f}", f"{16 * numbers / ns:.0f}"]
            rows.append([*cells, f"{copy:.0f} ({level.removeprefix('copies in ')})"])
    text = f"One thread on {cores_of(folder, result['machine'])}, operands in the caches ({when([result])}):\n\n"
    head = ["images", "us", "ns per number", "GB/s of the three reads and the write", "GB/s of a copy"]
    return text + markdown(head, rows)


#: What can stand between markers, by its first word.
TABLES: dict[str, Callable[..., str]] = {
    "about": about,
    "peers": peers,
    "processor": processor,
    "zeros": share_of_zeros,
    "convolutions": convolutions,
    "price": price,
    "cuda": cuda,
    "roofline": roofline,
    "norms": norms,
}
#: The pictures, by their files.
PICTURES: dict[str, Callable[[Path], None]] = {
    "zen4/peers_resnet_v2_50_224_1_2.png": lambda path: save_bars([read("zen4/peers_resnet_v2_50_224_1_2")], path),
    "zen4/roofline_resnet_v2_50_224.png": lambda path: save_kernels(layers_of("zen4"), path),
}


def table(words: str) -> str:
    """The text of a marker, in lines of at most 120 characters but for tables and commands."""
    kind, *arguments = words.split()
    parts = TABLES[kind](*arguments).strip().split("\n\n")
    return "\n\n".join(part if part.startswith(("|", "```")) else textwrap.fill(part, 120) for part in parts)


def page(text: str) -> str:
    """A page with its tables as the results have them."""
    return filled(text, "table", table)


def main() -> int:
    """Write the tables and the pictures, or compare them; 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; the exit code is 1 if something differs")
    options = parser.parse_args()
    differing = []
    for name, text in TEXTS.items():
        if page(text) != text:
            differing.append(name)
            if not options.check:
                (ROOT / name).write_text(page(text), encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        for name, draw in PICTURES.items():
            kept, drawn = RESULTS / name, Path(folder) / Path(name).name
            check_plot(parser, drawn)
            # Another version of matplotlib may draw otherwise.
            if not kept.exists() or not options.check or by_this_matplotlib(kept):
                draw(drawn)
                if not kept.exists() or not same_picture(kept, drawn):
                    differing.append(str(kept.relative_to(ROOT)))
                    if not options.check:
                        kept.write_bytes(drawn.read_bytes())
    for name in differing:
        text = "is out of date: run python tools/make_tables.py" if options.check else "is written"
        print(f"{name} {text}", file=sys.stderr)
    return 1 if options.check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
