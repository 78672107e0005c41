"""MONAI Label's own command line, in an environment with the CPU build of torch: `label_server.py start_server ...`.

PyPI's torchvision for Linux is built against CUDA, so beside a CPU torch its operators do not load, and its import asks
for them. MONAI Label imports it for two functions that draw pictures, so declared operators do.
"""

from __future__ import annotations

import torch

if torch.version.cuda is None:
    torchvision_operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        torchvision_operators.define(f"{name}(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")

from monailabel.main import Main

if __name__ == "__main__":
    Main().run()
