"""The labels of a chest segmentation, lungmask's convention continued (1 and 2 are the lungs, right first)."""

from __future__ import annotations

import numpy as np

RIGHT_LUNG = 1
LEFT_LUNG = 2
RIGHT_AIR = 3  # the air-accumulated region (pneumothorax) of the right pleural cavity
LEFT_AIR = 4

# side -> (lung label, air label)
SIDES = {"right": (RIGHT_LUNG, RIGHT_AIR), "left": (LEFT_LUNG, LEFT_AIR)}
REGIONS = {
    "right_lung": RIGHT_LUNG,
    "left_lung": LEFT_LUNG,
    "right_pneumothorax": RIGHT_AIR,
    "left_pneumothorax": LEFT_AIR,
}
# How pictures draw the labels 1 to 4, and the window in which they show a CT.
COLOURS = ("#4fa3ff", "#4fd18b", "#ff5a4f", "#ffb03a")
WINDOW_HU = (-1000.0, 400.0)


def pleural_cavity_labels(labels: np.ndarray) -> np.ndarray:
    """The pleural cavities, lung and free air together, of a label map: 1 right, 2 left, uint8 of the same shape."""
    cavities = np.zeros(labels.shape, np.uint8)
    for lung, air in SIDES.values():
        cavities[(labels == lung) | (labels == air)] = lung
    return cavities
