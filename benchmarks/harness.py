"""Times contenders against each other: interleaved in one process, medians and ratios, JSON and a
plot."""

import json
import platform
import statistics
import time
from pathlib import Path

import torch

import tilewright

RESULTS = Path(__file__).parent / "results"


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


def measure(contenders, seconds=3.0, most=25, device="cpu"):
    """Milliseconds of each contender: {name: function} -> {name: list of times}, taken in turns."""

    def once(function):
        start = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    warm = {name: once(function) for name, function in contenders.items()}  # also sizes the loop
    rounds = max(3, min(most, int(seconds / max(sum(warm.values()), 1e-9))))
    times = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, function in contenders.items():
            times[name].append(1e3 * once(function))
    return times


class Table:
    """Rows of "peer against ours", printed as they come, written as JSON and drawn at the end."""

    def __init__(self, name, peer):
        self.name, self.peer, self.rows = name, peer, []
        print(json.dumps(machine()))
        print(f"{'work':58} {'threads':>7} {peer:>12} {'tilewright':>12} {'ratio':>7}")

    def add(self, work, threads, contenders, device="cpu", **options):
        """contenders: {"peer": f, "ours": g}, or {"ours": g} where the peer has nothing like it."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        times = measure(contenders, device=device, **options)
        torch.set_num_threads(before)
        ours = statistics.median(times["ours"])
        peer = statistics.median(times["peer"]) if "peer" in times else None
        row = {"work": work, "threads": threads, "ours_ms": ours, "peer_ms": peer}
        row |= {"ratio": peer / ours if peer else None, "repeats": len(times["ours"])}
        self.rows.append(row)
        shown = (
            f"{peer:10.2f}ms {ours:10.2f}ms {peer / ours:6.1f}x"
            if peer
            else f"{'-':>12} {ours:10.2f}ms"
        )
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
            axes.bar_label(bars, fmt="%.1fx", padding=2, fontsize=8)
        axes.set_yticks([w + 0.4 - height / 2 for w in range(len(works))], works, fontsize=8)
        axes.invert_yaxis()
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xlabel(f"times faster than {self.peer} ({machine()['cpu']})")
        axes.legend(fontsize=8)
        axes.margins(x=0.08)
        figure.tight_layout()
        figure.savefig(RESULTS / f"{self.name}.png", dpi=120)
