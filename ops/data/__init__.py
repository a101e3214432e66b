"""Images to train on: scenes of scanned digits that need no download, and readers of users' data.

`open_folder` opens COCO or Pascal VOC data by its layout; `CocoDataset` and `VocDataset` are the
readers. What is wrong with the files is in their `problems`. Images with a class each are
`LabelledImages`: the digits, MNIST, CIFAR-10, or a folder with a sub-folder for each class.
"""

from .annotated import AnnotatedImages, without_ignored
from .cifar import load_cifar10, read_cifar_batch
from .class_folders import load_image_folder
from .coco import CocoDataset
from .digits import CLASS_NAMES, Digits, load_split
from .folders import Split, open_folder
from .images import ImageError, read_image
from .labelled import LabelledImages, load_digits_images
from .mnist import load_mnist, read_binarised_mnist, read_idx
from .problems import DataError, Problem, summarize
from .records import Classes
from .scenes import DigitScenes, collate
from .voc import VocDataset

__all__ = [
    "CLASS_NAMES",
    "AnnotatedImages",
    "Classes",
    "CocoDataset",
    "DataError",
    "DigitScenes",
    "Digits",
    "ImageError",
    "LabelledImages",
    "Problem",
    "Split",
    "VocDataset",
    "collate",
    "load_cifar10",
    "load_digits_images",
    "load_image_folder",
    "load_mnist",
    "load_split",
    "open_folder",
    "read_binarised_mnist",
    "read_cifar_batch",
    "read_idx",
    "read_image",
    "summarize",
    "without_ignored",
]
