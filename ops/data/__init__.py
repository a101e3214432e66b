"""Images to train on at once, without a download: scanned digits set into larger scenes."""

from .digits import CLASS_NAMES, Digits, load_split
from .scenes import DigitScenes, collate

__all__ = ["CLASS_NAMES", "DigitScenes", "Digits", "collate", "load_split"]
