"""Images to train on: scenes of scanned digits that need no download, and readers of users' data.

`open_folder` opens COCO or Pascal VOC data by its layout; `CocoDataset` and `VocDataset` are the
readers. What is wrong with the files is in their `problems`.
"""

from .annotated import AnnotatedImages, without_ignored
from .coco import CocoDataset
from .digits import CLASS_NAMES, Digits, load_split
from .folders import Split, open_folder
from .images import ImageError, read_image
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
    "Problem",
    "Split",
    "VocDataset",
    "collate",
    "load_split",
    "open_folder",
    "read_image",
    "summarize",
    "without_ignored",
]
