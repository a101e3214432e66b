"""Models built from the operators.

Models that LibTorch users need exist twice, with the same parameter names: in C++ (here under names
that end in ``Cpp``) and as a thin Python module that can be scripted and exported.
"""

from tilewright._C import FasterRCNN as FasterRCNNCpp
from tilewright.models.checkpoint import read_checkpoint
from tilewright.models.faster_rcnn import FasterRCNN
from tilewright.models.resnet import ResNetBackbone
from tilewright.models.resnet_fpn import ResNetFpnBackbone

__all__ = ["FasterRCNN", "FasterRCNNCpp", "ResNetBackbone", "ResNetFpnBackbone", "read_checkpoint"]
