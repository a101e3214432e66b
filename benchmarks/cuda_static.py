"""What can be said about the CUDA kernels without a GPU, and the budgets that tests hold them to.

    python benchmarks/cuda_static.py             # prints; writes results/cuda_static.json
    python benchmarks/cuda_static.py --record    # writes tests/python/cuda_budgets.json as well

For each kernel and architecture of the CUDA build: registers, local memory (spills), shared memory,
occupancy and the instructions of the longest inner loop; beside it, from a representative launch on
the emulated device (launches.py), sectors per global request and shared wavefronts over the fewest.
"""

import argparse
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "build" / "cmake" / "tree" / "lib" / "libtilewright.so"
BUDGETS = ROOT / "tests" / "python" / "cuda_budgets.json"
RESULTS = ROOT / "benchmarks" / "results" / "cuda_static.json"
COMMAND = "python benchmarks/cuda_static.py --record"


def collect(static, traced):
    """{short name: {"shared_bytes": ..., "sm_80": {...}, ..., "memory": {launch: {...}}}}."""
    import sass

    traced = {sass.short_name(kernel): launches for kernel, launches in traced.items()}
    kernels = {}
    for kernel in sorted(static.keys() | traced.keys()):
        memory = traced.get(kernel, {})
        row = {
            "block_threads": max((m["block_threads"] for m in memory.values()), default=0),
            "shared_bytes": max((m["shared_bytes"] for m in memory.values()), default=0),
        }
        for arch, figures in static.get(kernel, {}).items():
            row[arch] = dict(figures)
            if memory:
                row[arch]["occupancy"] = sass.occupancy(
                    arch,
                    figures["registers"],
                    row["block_threads"],
                    row["shared_bytes"] + figures["static_shared_bytes"],
                )
        row["memory"] = memory
        kernels[kernel] = row
    return kernels


def budgets_of(kernels):
    """What is recorded of collect()'s figures."""
    budgets = {}
    for kernel, row in kernels.items():
        budget = {"shared_bytes": row["shared_bytes"]}
        for arch in sorted(key for key in row if key.startswith("sm_")):
            budget[arch] = {key: row[arch][key] for key in ("registers", "local")}
        budget["memory"] = {
            name: {key: m[key] for key in ("sectors_per_request", "wavefronts_over_fewest")}
            for name, m in row["memory"].items()
        }
        budgets[kernel] = budget
    return budgets


def unfinished(kernels):
    """What keeps budgets from being recorded: kernels that are not built, or not launched."""
    unlaunched = [k for k, row in kernels.items() if not row["memory"]]
    if unlaunched:
        return f"no representative launch (add one to benchmarks/launches.py): {unlaunched}"
    unbuilt = [k for k, row in kernels.items() if not any(key.startswith("sm_") for key in row)]
    return f"not in the CUDA build: {unbuilt}" if unbuilt else ""


def show(kernels):
    print(
        f"{'kernel':44} {'arch':6} {'regs':>4} {'local':>5} {'shared':>6} {'occup.':>6}  "
        "longest inner loop"
    )
    for kernel, row in kernels.items():
        for arch in sorted(key for key in row if key.startswith("sm_")):
            f = row[arch]
            mix = ", ".join(f"{n} {kind}" for kind, n in f["inner_mix"].items())
            shared = row["shared_bytes"] + f["static_shared_bytes"]
            occupied = f.get("occupancy")
            print(
                f"{kernel:44} {arch:6} {f['registers']:4} {f['local']:5} {shared:6} "
                f"{'-' if occupied is None else f'{occupied:.0%}':>6}  {mix or '-'}"
            )
    print(
        f"\n{'kernel':44} {'launch':14} {'requests':>8} {'sectors each':>12} {'fewest':>7} "
        f"{'shared requests':>15} {'wavefronts':>10}"
    )
    for kernel, row in kernels.items():
        for name, m in row["memory"].items():
            shared = f"{m['wavefronts_over_fewest']:.2f}x" if m["shared_requests"] else "-"
            print(
                f"{kernel:44} {name:14} {m['global_requests']:8} {m['sectors_per_request']:12.2f} "
                f"{m['fewest_per_request']:7.2f} {m['shared_requests']:15} {shared:>10}"
            )


def write(path, header, kernels):
    """JSON with a line per kernel, so that changes read well."""
    lines = [f"  {json.dumps(kernel)}: {json.dumps(row)}" for kernel, row in kernels.items()]
    head = json.dumps(header, indent=1)[:-2]
    path.parent.mkdir(exist_ok=True)
    path.write_text(head + ',\n "kernels": {\n' + ",\n".join(lines) + "\n }\n}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="record the budgets that tests hold")
    arguments = parser.parse_args()
    os.environ["TILEWRIGHT_DEVICE"] = "simt"  # before tilewright is imported
    import launches
    import sass

    import tilewright

    try:
        static = sass.analyse(LIBRARY)
    except sass.MissingTool as missing:
        sys.exit(str(missing))
    if not static:
        sys.exit("this build has no CUDA kernels; they need nvcc (PATH or CUDA_HOME)")
    kernels = collect(static, launches.trace())
    show(kernels)
    header = {"command": COMMAND, "cuda": tilewright.built_cuda()}
    write(RESULTS, header, kernels)
    if problem := unfinished(kernels):
        sys.exit(problem)
    if arguments.record:
        write(BUDGETS, header, budgets_of(kernels))


if __name__ == "__main__":
    main()
