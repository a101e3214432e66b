"""``python -m tilewright info`` says what this build is, and which machines each operator runs on;
``python -m tilewright train`` learns from images without labels."""

import argparse
import platform
import sys

import torch

import tilewright
from tilewright import _C
from tilewright.train import command

_KEYS = {
    "CPU": "CPU",
    "CUDA": "CUDA",
    "Meta": "Meta",
    "Autograd": "Autograd",
    "Autocast": "AutocastCPU",
    "Composite": "CompositeImplicitAutograd",
}


def operators():
    """(name, the keys of _KEYS that it has kernels for) of every registered operator, by name."""
    names = sorted(
        schema.name
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("tilewright::")
    )
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    table = []
    for name in dict.fromkeys(names):
        keys = [column for column, key in _KEYS.items() if has(name, key)]
        if "Composite" in keys:  # runs wherever ATen does, and is differentiated through
            keys = ["Composite"]
        elif (
            "Meta" not in keys
            and torch._library.simple_registry.singleton.find(name).fake_impl.kernel is not None
        ):
            keys.append("Meta")
        table.append((name, keys))
    return table


def info():
    """The text of ``python -m tilewright info``."""
    lines = [
        f"tilewright {tilewright.__version__}, built against torch {_C.built_torch_version()}",
        f"torch      {torch.__version__}, Python {platform.python_version()}",
        f"CPU        {_C.cpu_instruction_set()} kernels, {torch.get_num_threads()} threads",
    ]
    cuda = tilewright.built_cuda()
    if not cuda:
        lines.append("CUDA       not in this build")
    else:
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU here"
        lines.append(f"CUDA       {cuda}; {gpu}")
    table = operators()
    width = max(len(name) for name, _ in table)
    lines += ["", f"{'operator':{width}}  " + "  ".join(_KEYS)]
    for name, keys in table:
        marks = "  ".join(("yes" if key in keys else "-").ljust(len(key)) for key in _KEYS)
        lines.append(f"{name:{width}}  {marks}".rstrip())
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="python -m tilewright", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("info", help="what this build is, and where each operator runs")
    training = commands.add_parser("train", help="train a model of images without labels")
    command.add_arguments(training)
    arguments = parser.parse_args()
    if arguments.command == "train":
        return command.run(arguments, training)
    print(info())
    return 0


if __name__ == "__main__":
    sys.exit(main())
