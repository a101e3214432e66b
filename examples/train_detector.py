"""The main job: trains the C++ Faster R-CNN, exports it, runs it from C++.

    python examples/train_detector.py [--data PATH] [--output demo_output] [--resume] [--smoke]

It learns scenes of scanned digits, or what is annotated at PATH: COCO or Pascal VOC data.

Ctrl-C leaves a checkpoint in the output folder; the same command with --resume goes on from it.
"""

import os
import sys

if __name__ == "__main__":
    # Read when torch is loaded. OpenMP threads wait for each other by spinning; where another
    # program has one of the cores, a step takes up to twenty times as long unless they soon sleep.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        from detector_demo.job import main
    except ModuleNotFoundError as error:
        sys.exit(
            f"train_detector: {error}; run `make build`, or `pip install '.[demo]'` in a clone"
        )
    sys.exit(main())
