"""The picture of docs/amp.md: exponents of the gradients of the demo's Faster R-CNN after fifty
steps. python benchmarks/gradient_report.py writes docs/gradients.png.
"""

import sys
from pathlib import Path

import torch

from tilewright import amp
from tilewright.data import collate
from tilewright.models import FasterRCNN

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))
STEPS = 50


def main():
    from detector_demo.recipe import FULL

    torch.manual_seed(0)
    scenes = FULL.training_scenes()
    model = FasterRCNN(**FULL.model)
    optimizer = torch.optim.AdamW(model.parameters(), FULL.learning_rate)
    for step in range(STEPS):
        images, targets = collate([scenes[step * FULL.batch + i] for i in range(FULL.batch)])
        losses, _ = model(images, targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    found = amp.report(model)
    print(found)
    found.plot(ROOT / "docs" / "gradients.png")


if __name__ == "__main__":
    main()
