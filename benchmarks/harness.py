"""Times contenders against each other: interleaved in one process, medians and ratios, memory, JSON
and a plot. As a program, writes the recorded tables into README.md and docs/."""

import ctypes
import json
import platform
import statistics
import time
from pathlib import Path

import torch

import tilewright

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent


def machine():
    """What a reader needs to know to compare figures."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": name,
        "kernels": tilewright._C.cpu_instruction_set(),
        "torch": torch.__version__,
        "gpu": gpu,
    }


def measure(contenders, seconds=3.0, most=25, device="cpu", least=None):
    """Milliseconds of each contender: {name: function} -> {name: list of times}, taken in turns.

    As many rounds as fit into `seconds`, up to `most`; but no fewer than `least`, or nine (five
    where a round takes more than three seconds), or the medians of a virtual machine are noise.
    """

    def once(function):
        start = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    warm = {name: once(function) for name, function in contenders.items()}  # also sizes the loop
    round_seconds = max(sum(warm.values()), 1e-9)
    least = least or (9 if round_seconds < 3 else 5)
    rounds = min(most, max(least, int(seconds / round_seconds)))
    times = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, function in contenders.items():
            times[name].append(1e3 * once(function))
    return times


def resident(field):
    """MB of this process: VmRSS now, VmHWM at most since the last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return None


def peak_memory(function):
    """MB that a call takes beyond what was there before, its result included; None where the
    system does not tell."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
        before = resident("VmRSS")
        function()
        return resident("VmHWM") - before
    except (OSError, AttributeError, TypeError):
        return None


class Table:
    """Rows of "peer against ours", printed as they come, written as JSON and drawn at the end."""

    def __init__(self, name, peer):
        self.name, self.peer, self.rows = name, peer, []
        print(json.dumps(machine()))
        print(
            f"{'work':58} {'threads':>7} {peer:>18} {'tilewright':>12} {'ratio':>7}"
            f" {'extra MB, peer / ours':>22}"
        )

    def add(self, work, threads, contenders, device="cpu", **options):
        """contenders: {"peer": f, "ours": g}, or {"ours": g} where the peer has nothing like it."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            times = measure(contenders, device=device, **options)
            memory = {f"{name}_mb": peak_memory(f) for name, f in contenders.items()}
        finally:
            torch.set_num_threads(before)
        ours = statistics.median(times["ours"])
        peer = statistics.median(times["peer"]) if "peer" in times else None
        row = {"work": work, "threads": threads, "ours_ms": ours, "peer_ms": peer}
        row |= {"ratio": peer / ours if peer else None, "repeats": len(times["ours"])}
        for name, taken in times.items():
            row |= {f"{name}_min_ms": min(taken), f"{name}_max_ms": max(taken)}
        if device == "cpu":
            row |= memory
        self.rows.append(row)
        shown = (
            f"{peer:16.2f}ms {ours:10.2f}ms {peer / ours:6.1f}x"
            if peer
            else f"{'-':>18} {ours:10.2f}ms {'':7}"
        )
        memory = [row.get(name) for name in ("peer_mb", "ours_mb")]
        shown += " {:>12} / {:>7}".format(*("-" if m is None else f"{m:.1f}" for m in memory))
        print(f"{work:58} {threads:7} {shown}", flush=True)

    def save(self):
        RESULTS.mkdir(exist_ok=True)
        data = {"machine": machine(), "peer": self.peer, "rows": self.rows}
        (RESULTS / f"{self.name}.json").write_text(json.dumps(data, indent=1) + "\n")
        self._draw()

    def _draw(self):
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        rows = [row for row in self.rows if row["ratio"]]
        works = list(dict.fromkeys(row["work"] for row in rows))
        threads = sorted({row["threads"] for row in rows})
        figure, axes = plt.subplots(figsize=(9, 0.45 * len(works) + 1.5))
        height = 0.8 / len(threads)
        for i, count in enumerate(threads):
            ratio = {row["work"]: row["ratio"] for row in rows if row["threads"] == count}
            places = [w + i * height for w in range(len(works))]
            bars = axes.barh(
                places, [ratio.get(w, 0) for w in works], height, label=f"{count} threads"
            )
            labels = [f"{ratio[w]:.1f}x" if w in ratio else "" for w in works]
            axes.bar_label(bars, labels, padding=2, fontsize=8)
        axes.set_yticks([w + 0.4 - height / 2 for w in range(len(works))], works, fontsize=8)
        axes.invert_yaxis()
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xlabel(f"times faster than {self.peer} ({machine()['cpu']})")
        axes.legend(fontsize=8)
        axes.margins(x=0.08, y=0.01)
        figure.tight_layout()
        figure.savefig(RESULTS / f"{self.name}.png", dpi=120)


def markdown(name):
    """The table of a results file: its lines as they are, or of timed rows the medians at the most
    threads and the ratios at each count."""
    data = json.loads((RESULTS / f"{name}.json").read_text())
    if "columns" in data:
        rows = [data["columns"], ["---"] * len(data["columns"]), *data["lines"]]
        return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
    works = {}
    for row in data["rows"]:
        works.setdefault(row["work"], {})[row["threads"]] = row
    counts = sorted({row["threads"] for row in data["rows"]})
    most = counts[-1]
    lines = [
        f"| work | {data['peer']}, {most} threads | tilewright, {most} threads | "
        f"faster, {' / '.join(map(str, counts))} threads |",
        "|---|---|---|---|",
    ]
    for work, rows in works.items():
        row = rows[max(rows)]
        peer = "" if row["peer_ms"] is None else f"{_digits(row['peer_ms'])} ms"
        ratios = [f"{rows[c]['ratio']:.1f}x" for c in counts if c in rows and rows[c]["ratio"]]
        lines.append(f"| {work} | {peer} | {_digits(row['ours_ms'])} ms | {' / '.join(ratios)} |")
    return "\n".join(
        [f"{data['machine']['cpu']}, {data['machine']['kernels']} kernels:", "", *lines]
    )


def _digits(value):
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}"


def with_tables(text):
    """`text` with what stands between `<!-- table NAME -->` and `<!-- end -->` made anew."""
    parts = text.split("<!-- table ")
    for i, part in enumerate(parts[1:], 1):
        name, rest = part.split(" -->", 1)
        after = rest.split("<!-- end -->", 1)[1]
        parts[i] = f"{name} -->\n{markdown(name)}\n<!-- end -->{after}"
    return "<!-- table ".join(parts)


if __name__ == "__main__":
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        page.write_text(with_tables(page.read_text()))
