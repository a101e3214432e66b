"""Models built from the operators.

Models that LibTorch users need exist twice, with the same parameter names: in C++ (here under names
that end in ``Cpp``) and as a thin Python module that can be scripted and exported.
"""

from tilewright._C import RFCN as RFCNCpp
from tilewright._C import FasterRCNN as FasterRCNNCpp
from tilewright.models.bernoulli import BernoulliMixture, FactorisedBernoulli
from tilewright.models.checkpoint import read_checkpoint
from tilewright.models.faster_rcnn import FasterRCNN
from tilewright.models.fvsbn import FVSBN
from tilewright.models.generative_classifier import GenerativeClassifier, LabelledDensity
from tilewright.models.made import MADE
from tilewright.models.nade import NADE
from tilewright.models.resnet_backbone import ResNetBackbone, ResNetC4C5Backbone
from tilewright.models.resnet_fpn import ResNetFpnBackbone
from tilewright.models.rfcn import RFCN

__all__ = [
    "FVSBN",
    "MADE",
    "NADE",
    "RFCN",
    "BernoulliMixture",
    "FactorisedBernoulli",
    "FasterRCNN",
    "FasterRCNNCpp",
    "GenerativeClassifier",
    "LabelledDensity",
    "RFCNCpp",
    "ResNetBackbone",
    "ResNetC4C5Backbone",
    "ResNetFpnBackbone",
    "read_checkpoint",
]
