"""Attention's tensor core kernels in bf16 beside FlashAttention-2's, by what the compiler made of
them: registers, local memory, shared memory, occupancy, and what one step of the main loop runs.

    python benchmarks/attention_static.py path/to/flash_attn-2.8.3

The argument is FlashAttention-2's source distribution, unpacked (PyPI, flash-attn); its kernels are
compiled with the nvcc at hand, without dropout, ALiBi, softcap and windows, which are template
parameters there (two minutes each, kept in build/flash_attention). Writes
results/attention_static.json; `python benchmarks/harness.py` puts the table into docs.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import cuda_static
import sass
import sass_steps

BUILT = cuda_static.ROOT / "build" / "flash_attention"
RESULTS = cuda_static.ROOT / "benchmarks" / "results" / "attention_static.json"
ARCHS = ("sm_80", "sm_90")
SIZES = (64, 128, 256)
COLUMNS = [
    *("work", "kernel", "GPU", "registers", "shared KB", "occupancy", "wavefronts"),
    *("local / step", "instructions / step", "tensor cores"),
]
# The traits that FlashAttention-2's launch templates choose, on sm_80 and on sm_90 where unlike.
PEER_TRAITS = {
    ("fwd", 64): ["64, 128, 128, 4, false, false"],
    ("fwd", 128): ["128, 128, 64, 4, false, false"],
    ("fwd", 256): ["256, 128, 64, 8, false, false", "256, 64, 64, 4, false, false"],
    ("bwd", 64): ["64, 128, 128, 8, 4, 4, 4, false, false"],
    ("bwd", 128): ["128, 64, 128, 8, 2, 4, 2, false, false"],
    ("bwd", 256): ["256, 64, 64, 8, 4, 2, 2, false, true", "256, 64, 64, 8, 4, 2, 2, false, false"],
}
# What attention_tiles.h makes of groups and steps, where there is more than one row.
OUR_TILES = {
    ("attention_grad_query_kernel", 128, "sm_80"): "2, 16>",
    ("attention_grad_query_kernel", 128, "sm_90"): "2, 32>",
    ("attention_grad_key_kernel", 256, "sm_80"): "1, 32, 2>",
    ("attention_grad_key_kernel", 256, "sm_90"): "1, 16, 2>",
    ("attention_grad_query_kernel", 256, "sm_80"): "1, 32>",
    ("attention_grad_query_kernel", 256, "sm_90"): "1, 16>",
}
PEER_LOOPS = {"fwd": "flash_fwd_kernel", "bwd": "flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel"}


def listings(binary):
    """{(demangled name, arch): listing} of all kernels in a library or cubin."""
    text = sass._run(["cuobjdump", "-sass", str(binary)], sass.tools())
    found = {}
    for part in re.split(r"(?=^\s*(?:Fatbin elf code:|code for sm_))", text, flags=re.M):
        arch = re.search(r"(?:arch = |code for )(sm_\d+)", part)
        for body in part.split("Function : ")[1:]:
            found[body.split("\n", 1)[0].strip(), arch[1]] = body
    names = sass.demangle(name for name, _ in found)
    return {(names[name], arch): body for (name, arch), body in found.items()}


def registers(binary):
    """{demangled name: registers} of a cubin."""
    usage = sass._run(["cuobjdump", "--dump-resource-usage", str(binary)], sass.tools())
    found = dict(re.findall(r"Function (\w+):\n +REG:(\d+)", usage))
    names = sass.demangle(found)
    return {names[name]: int(count) for name, count in found.items()}


def row(work, kernel, arch, figures, step, wavefronts="-"):
    total = sum(step.values())
    threads, shared, count = figures
    return [
        *(work, kernel, arch, count, round(shared / 1024)),
        f"{sass.occupancy(arch, count, threads, shared):.0%}",
        *(wavefronts, step["local"], total, f"{step['matrix'] / total:.1%}"),
    ]


def our_rows():
    """Plain kernels where there are some: at 256 columns one kernel serves all calls."""
    os.environ["TILEWRIGHT_DEVICE"] = "simt"  # before tilewright is imported
    import launches

    static = sass.analyse(cuda_static.LIBRARY)
    kernels = cuda_static.collect(static, launches.trace())
    code = {
        (sass.short_name(name), arch): body
        for (name, arch), body in listings(cuda_static.LIBRARY).items()
    }
    rows = []
    for direction, bases in (
        ("forward", ["attention_forward_kernel"]),
        ("backward", ["attention_grad_key_kernel", "attention_grad_query_kernel"]),
    ):
        for size in SIZES:
            for base in bases:
                start = f"{base}<__nv_bfloat16, {size}, {'true' if size == 256 else 'false'}"
                for kernel in sorted(k for k in kernels if k.startswith(start)):
                    figures = kernels[kernel]
                    wavefronts = max(
                        m["wavefronts_over_fewest"] for m in figures["memory"].values()
                    )
                    for arch in ARCHS:
                        if not kernel.endswith(OUR_TILES.get((base, size, arch), ">")):
                            continue
                        # multiply_rows() goes around once for each 32 columns.
                        step = sass_steps.main_step(code[kernel, arch], rounds=size // 32)
                        rows.append(
                            row(
                                f"{direction}, {size}",
                                base.removeprefix("attention_").removesuffix("_kernel"),
                                arch,
                                (
                                    figures["block_threads"],
                                    figures["shared_bytes"],
                                    figures[arch]["registers"],
                                ),
                                step,
                                f"{wavefronts:.2f}x",
                            )
                        )
    return rows


def compile_peer(sources, direction, size, arch):
    """The cubin of one of FlashAttention-2's files."""
    cubin = BUILT / f"{direction}_{size}_{arch}.cubin"
    if cubin.exists():
        return cubin
    BUILT.mkdir(parents=True, exist_ok=True)
    import torch.utils.cpp_extension

    number = arch.removeprefix("sm_")
    includes = [
        *(sources / "flash_attn", sources / "flash_attn" / "src", sources / "cutlass" / "include"),
        *torch.utils.cpp_extension.include_paths(),
        sysconfig.get_paths()["include"],
    ]
    features = ("DROPOUT", "ALIBI", "SOFTCAP", "LOCAL")
    types = ("HALF_OPERATORS", "HALF_CONVERSIONS", "HALF2_OPERATORS", "BFLOAT16_CONVERSIONS")
    print(f"compiling {cubin.name}", file=sys.stderr, flush=True)
    subprocess.run(
        [
            *("nvcc", "-std=c++17", "-O3", "-cubin", "--use_fast_math", "-w"),
            *("--expt-relaxed-constexpr", "--expt-extended-lambda"),
            f"-gencode=arch=compute_{number},code={arch}",
            *(f"-U__CUDA_NO_{name}__" for name in types),
            *(f"-DFLASHATTENTION_DISABLE_{name}" for name in features),
            *(f"-I{path}" for path in includes),
            str(sources / "flash_attn/src" / f"flash_{direction}_hdim{size}_bf16_sm80.cu"),
            *("-o", str(cubin)),
        ],
        check=True,
    )
    return cubin


def peer_shared_bytes(sources, chosen):
    """{traits: bytes}, as FlashAttention-2's own headers compute them."""
    lines = []
    for direction, traits in chosen:
        size = "kSmemSize" if direction == "fwd" else "kSmemSize1colblock"
        kind = f"Flash_{direction}_kernel_traits<{traits}, cutlass::bfloat16_t>"
        lines.append(f'  std::printf("%d\\n", int({kind}::{size}));')
    program = BUILT / "shared_bytes.cu"
    program.write_text(
        "#include <algorithm>\n#include <cstdio>\n"
        '#include "kernel_traits.h"\nint main() {\n' + "\n".join(lines) + "\n}\n"
    )
    binary = program.with_suffix("")
    subprocess.run(
        [
            *("nvcc", "-std=c++17", "-arch=sm_80", "-w", "--expt-relaxed-constexpr"),
            f"-I{sources / 'flash_attn' / 'src'}",
            f"-I{sources / 'cutlass' / 'include'}",
            *(str(program), "-o", str(binary)),
        ],
        check=True,
    )
    out = subprocess.run([str(binary)], check=True, capture_output=True, text=True).stdout
    return dict(zip(chosen, map(int, out.split()), strict=True))


def peer_rows(sources):
    chosen = [(d, traits) for (d, _), found in PEER_TRAITS.items() for traits in found]
    rows, shared = [], None
    for (direction, size), found in PEER_TRAITS.items():
        for arch, traits in zip(ARCHS, (found[0], found[-1]), strict=True):
            cubin = compile_peer(sources, direction, size, arch)
            shared = shared or peer_shared_bytes(sources, chosen)
            base = PEER_LOOPS[direction]
            # Neither causal nor ragged: Is_even_MN and Is_even_K, of which 256 columns have the
            # second alone.
            ends = "false, false" if direction == "fwd" else "false"
            variants = [f"false, {even}, true, {ends}>(" for even in ("true", "false")]
            code = listings(cubin)
            name = next(
                name
                for variant in variants
                for name, _ in code
                if base in name and f"traits<{traits}," in name and variant in name
            )
            warps = int(traits.split(", ")[3])
            figures = (32 * warps, shared[direction, traits], registers(cubin)[name])
            work = f"{'forward' if direction == 'fwd' else 'backward'}, {size}"
            step = sass_steps.main_step(code[name, arch])
            rows.append(row(work, "FlashAttention-2", arch, figures, step))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("flash_attention", type=Path, help="the unpacked sources of flash-attn 2")
    sources = parser.parse_args().flash_attention / "csrc"
    if not (sources / "flash_attn").is_dir():
        sys.exit(f"no csrc/flash_attn in {sources.parent}")
    try:
        rows = our_rows() + peer_rows(sources)
    except sass.MissingTool as missing:
        sys.exit(str(missing))
    # Ours stand before the peer's, by GPU.
    ours = {kernel: i for i, kernel in enumerate(("forward", "grad_key", "grad_query"))}
    rows.sort(key=lambda r: (r[0][0] != "f", int(r[0].split()[-1]), ours.get(r[1], 9), r[2]))
    for line in [COLUMNS, *rows]:
        print(" | ".join(map(str, line)))
    nvcc = subprocess.run(["nvcc", "--version"], check=True, capture_output=True, text=True).stdout
    header = {"nvcc": re.search(r"release ([\d.]+)", nvcc)[1], "columns": COLUMNS}
    RESULTS.write_text(json.dumps({**header, "lines": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
