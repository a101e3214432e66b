"""tilewright: PyTorch operators in C++ and CUDA, usable from Python, C++ and exported programs.

Importing the package loads the operators into ``torch.ops.tilewright``; the functions here are
argument sugar over them. In an environment with ``TILEWRIGHT_DEVICE=simt`` the CUDA kernels run on
an emulated device in place of the CPU kernels (for tests).
"""

from tilewright._library import built_cuda, cmake_prefix_path, load

load()

from tilewright import (  # noqa: E402
    amp,
    attention,
    attention_modules,
    augmentations,
    boxes,
    contrastive,
    data,
    deform,
    deform_pooling,
    density,
    distributed,
    dropin,
    models,
    mutual_information,
    pooling,
    sampled_losses,
    suppression,
)
from tilewright._C import version as _version  # noqa: E402
from tilewright.attention import *  # noqa: E402, F403
from tilewright.attention_modules import *  # noqa: E402, F403
from tilewright.augmentations import *  # noqa: E402, F403
from tilewright.boxes import *  # noqa: E402, F403
from tilewright.contrastive import *  # noqa: E402, F403
from tilewright.deform import *  # noqa: E402, F403
from tilewright.deform_pooling import *  # noqa: E402, F403
from tilewright.density import *  # noqa: E402, F403
from tilewright.dropin import *  # noqa: E402, F403
from tilewright.pooling import *  # noqa: E402, F403
from tilewright.sampled_losses import *  # noqa: E402, F403
from tilewright.suppression import *  # noqa: E402, F403

__version__ = _version()

__all__ = [
    "__version__",
    "built_cuda",
    "cmake_prefix_path",
    "amp",
    "data",
    "distributed",
    "models",
    "mutual_information",
    *attention.__all__,
    *attention_modules.__all__,
    *augmentations.__all__,
    *boxes.__all__,
    *contrastive.__all__,
    *deform.__all__,
    *deform_pooling.__all__,
    *density.__all__,
    *dropin.__all__,
    *pooling.__all__,
    *sampled_losses.__all__,
    *suppression.__all__,
]
