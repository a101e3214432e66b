"""Models built from the operators.

Models that LibTorch users need exist twice, with the same parameter names: in C++ (here under names
that end in ``Cpp``) and as a thin Python module that can be scripted and exported.
"""

from tilewright._C import CPC as CPCCpp
from tilewright._C import RFCN as RFCNCpp
from tilewright._C import FasterRCNN as FasterRCNNCpp
from tilewright._C import SimCLR as SimCLRCpp
from tilewright.models.augmentation import Augmentation
from tilewright.models.bernoulli import BernoulliMixture, FactorisedBernoulli
from tilewright.models.checkpoint import read_checkpoint
from tilewright.models.cpc import CPC
from tilewright.models.deep_infomax import DeepInfoMax
from tilewright.models.faster_rcnn import FasterRCNN
from tilewright.models.fvsbn import FVSBN
from tilewright.models.generative_classifier import GenerativeClassifier, LabelledDensity
from tilewright.models.image_encoder import ConvEncoder, ResNetEncoder
from tilewright.models.jigsaw import Jigsaw
from tilewright.models.made import MADE
from tilewright.models.nade import NADE
from tilewright.models.resnet_backbone import ResNetBackbone, ResNetC4C5Backbone
from tilewright.models.resnet_fpn import ResNetFpnBackbone
from tilewright.models.rfcn import RFCN
from tilewright.models.rotation_prediction import RotationPrediction
from tilewright.models.simclr import SimCLR

__all__ = [
    "CPC",
    "FVSBN",
    "MADE",
    "NADE",
    "RFCN",
    "Augmentation",
    "BernoulliMixture",
    "CPCCpp",
    "ConvEncoder",
    "DeepInfoMax",
    "FactorisedBernoulli",
    "FasterRCNN",
    "FasterRCNNCpp",
    "GenerativeClassifier",
    "Jigsaw",
    "LabelledDensity",
    "RFCNCpp",
    "ResNetBackbone",
    "ResNetC4C5Backbone",
    "ResNetEncoder",
    "ResNetFpnBackbone",
    "RotationPrediction",
    "SimCLR",
    "SimCLRCpp",
    "read_checkpoint",
]
