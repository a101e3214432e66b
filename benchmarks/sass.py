"""What nvcc made of each kernel: registers, spills, the loops of its machine code, occupancy.

Reads a library with cuobjdump and nvdisasm, of a CUDA toolkit or of the wheels
nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm. Knows no torch, so that tests/run.py can use it.
"""

import os
import re
import shutil
import subprocess
import sysconfig
from collections import Counter
from pathlib import Path

# Of a multiprocessor, by compute capability: (warps, blocks, bytes of shared memory). 64 K
# registers in all of them, given out to warps by 256; each block takes 1 KB of shared memory more.
MULTIPROCESSORS = {
    80: (64, 32, 164 * 1024),
    86: (48, 16, 100 * 1024),
    89: (48, 24, 100 * 1024),
    90: (64, 32, 228 * 1024),
    100: (64, 32, 228 * 1024),
    120: (48, 24, 100 * 1024),
}
REGISTERS = 65536

# Classes of instructions, by the first part of their names; the rest is "integer".
CLASSES = {
    "global": "LDG STG LD ST ATOMG ATOM RED LDGSTS UBLKCP",
    "shared": "LDS STS ATOMS LDSM STSM",
    "local": "LDL STL",
    "constant": "LDC ULDC LDCU",
    "matrix": "HMMA IMMA DMMA QGMMA HGMMA IGMMA BGMMA",
    "float": "FADD FMUL FFMA FSETP FSEL FMNMX FCHK FSET FSWZADD FADD2 FFMA2 HADD2 HMUL2 HFMA2 "
    "HSETP2 HMNMX2",
    "double": "DADD DMUL DFMA DSETP",
    "special": "MUFU",
    "convert": "F2F F2I I2F F2FP I2FP I2I FRND F2IP",
    "control": "BRA BRX CALL RET EXIT BSSY BSYNC BREAK WARPSYNC BAR BMOV NOP YIELD DEPBAR "
    "LDGDEPBAR MEMBAR ERRBAR CCTL JMP KILL PLOP3 VOTE VOTEU SHFL MATCH REDUX",
}
CLASS_OF = {name: kind for kind, names in CLASSES.items() for name in names.split()}


class MissingTool(Exception):
    """cuobjdump or nvdisasm is not at hand."""


def tools():
    """The environment in which cuobjdump is found and finds nvdisasm; MissingTool otherwise."""
    wheel = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "bin"
    folders = [str(wheel), os.path.join(os.environ.get("CUDA_HOME", ""), "bin")]
    path = os.pathsep.join([os.environ.get("PATH", ""), *folders])
    for tool in ("cuobjdump", "nvdisasm", "c++filt"):
        if shutil.which(tool, path=path) is None:
            raise MissingTool(
                f"{tool} is missing (pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm; "
                "c++filt is of binutils)"
            )
    return {**os.environ, "PATH": path}


def _run(command, environment, **options):
    return subprocess.run(
        [shutil.which(command[0], path=environment["PATH"]), *command[1:]],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        **options,
    ).stdout


def demangle(names):
    """{mangled: as the emulated device names it}, the machine's namespace left out."""
    names = sorted(set(names))
    if not names:
        return {}
    lines = _run(["c++filt"], tools(), input="\n".join(names)).splitlines()
    return {m: line.replace("on_cuda::", "") for m, line in zip(names, lines, strict=True)}


def short_name(kernel):
    """roi_align_forward_kernel<float> of the full signature."""
    rest = kernel.split("tilewright::", 1)[-1]
    depth = 0
    for i, letter in enumerate(rest):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            rest = rest[:i]
            break
    return rest.replace("tilewright::", "")


def kernels(library):
    """The full names of the kernels in a library."""
    usage = _run(["cuobjdump", "--dump-resource-usage", str(library)], tools())
    return set(demangle(re.findall(r"^ Function (\w+):", usage, re.M)).values())


def inner_loops(code):
    """The loops without a loop in them; code: [(address, name, branch target or None)]."""
    loops = {
        (target, address) for address, _, target in code if target is not None and target < address
    }
    inner = [
        loop
        for loop in loops
        if not any(loop != o and loop[0] <= o[0] and o[1] <= loop[1] for o in loops)
    ]
    return [[c for c in code if first <= c[0] <= last] for first, last in sorted(inner)]


def mix(code):
    return Counter(CLASS_OF.get(name, "integer") for _, name, _ in code)


def statements(listing):
    """(address, guard or None, words) of each instruction of a function in nvdisasm's words."""
    for line in re.findall(r"^ +/\*[0-9a-f]{4,}\*/ .*?;", listing, re.M):
        address, text = re.match(r" +/\*([0-9a-f]+)\*/ +(.*);", line).groups()
        guard, text = re.match(r"(?:\{ *)?(@!?U?P\w+ +)?(.*)", text).groups()
        yield int(address, 16), guard, text.split()


def address_in(words):
    """The address that an instruction names last; None without one."""
    addresses = re.findall(r"0x([0-9a-f]+)", " ".join(words))
    return int(addresses[-1], 16) if addresses else None


def instructions(listing):
    """[(address, name, branch target or None)] of a function in nvdisasm's words."""
    code = []
    for address, _, words in statements(listing):
        name = words[0].split(".")[0]
        code.append((address, name, address_in(words) if name in ("BRA", "JMP") else None))
    return code


def analyse(library):
    """{short name: {"sm_80": {registers, stack_bytes, local, inner_local, inner_mix}}}."""
    environment = tools()
    result, demangled = {}, {}
    usage = _run(["cuobjdump", "--dump-resource-usage", str(library)], environment)
    for part in usage.split("Fatbin elf code:")[1:]:
        arch = re.search(r"arch = (sm_\w+)", part)[1]
        for name, registers, stack, shared in re.findall(
            r"Function (\w+):\n +REG:(\d+) STACK:(\d+) SHARED:(\d+)", part
        ):
            result[name, arch] = {
                "registers": int(registers),
                "stack_bytes": int(stack),
                # sm_90 and later count the 1 KB that the system takes
                "static_shared_bytes": max(0, int(shared) - (1024 if int(arch[3:5]) >= 90 else 0)),
            }
    demangled = demangle(name for name, _ in result)
    listing = _run(["cuobjdump", "-sass", str(library)], environment)
    for part in listing.split("Fatbin elf code:")[1:]:
        arch = re.search(r"arch = (sm_\w+)", part)[1]
        for body in part.split("Function : ")[1:]:
            name, code = body.split("\n", 1)[0].strip(), instructions(body)
            loops = inner_loops(code)
            widest = max(loops, key=len, default=[])
            result[name, arch] |= {
                "instructions": len(code),
                "local": mix(code)["local"],
                "inner_loops": len(loops),
                "inner_local": sum(mix(loop)["local"] for loop in loops),
                "inner_mix": dict(mix(widest).most_common()),
            }
    kernels = {}
    for (name, arch), figures in sorted(result.items()):
        kernels.setdefault(short_name(demangled[name]), {})[arch] = figures
    return kernels


def occupancy(arch, registers, threads, shared_bytes):
    """The share of a multiprocessor's warps that are resident; None for unknown architectures."""
    limits = MULTIPROCESSORS.get(int(re.search(r"\d+", arch)[0]))
    if limits is None:
        return None
    most_warps, most_blocks, most_shared = limits
    warps = -(-threads // 32)
    warp_registers = -(-registers * 32 // 256) * 256
    blocks = min(
        most_blocks,
        most_warps // warps,
        REGISTERS // warp_registers // 4 * 4 // warps,
        most_shared // (-(-(shared_bytes + 1024) // 128) * 128),
    )
    return blocks * warps / most_warps
