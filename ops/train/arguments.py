"""Numbers of a command line, refused with what they must be."""

import argparse


def positive(text: str) -> int:
    """A whole number from 1 to 2^31 - 1."""
    return _whole(text, 1, 2**31 - 1)


def seed(text: str) -> int:
    """A whole number from 0 to 2^63 - 1, which torch and NumPy take as a seed."""
    return _whole(text, 0, 2**63 - 1)


def _whole(text: str, low: int, high: int) -> int:
    """The integer in [low, high] that an argument gives."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got '{text}'") from None
    if number < low:
        raise argparse.ArgumentTypeError(f"must be at least {low}, got {number}")
    if number > high:
        raise argparse.ArgumentTypeError(f"must be at most {high}, got {number}")
    return number
