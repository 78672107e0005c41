"""What a synthetic chest is made of: the numbers that describe one patient and one scan, and its labels."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class ThoraxLabel(IntEnum):
    """Values of the synthetic label map. 1 to 4 are the project's ``segmentation`` values."""

    BACKGROUND = 0
    RIGHT_LUNG = 1
    LEFT_LUNG = 2
    RIGHT_AIR = 3
    LEFT_AIR = 4
    FAT = 5
    MUSCLE = 6
    BONE = 7
    CARTILAGE = 8
    HEART = 9
    VESSEL = 10
    AIRWAY = 11
    OESOPHAGUS = 12
    LIVER = 13
    SPLEEN = 14
    STOMACH = 15
    KIDNEY = 16
    BOWEL = 17


@dataclass(frozen=True)
class SyntheticThorax:
    """One patient and one scan. Lengths in mm, angles in degrees, densities in HU; else 1 is the average."""

    seed: int
    female: bool
    scale: tuple[float, float, float]  # of the skeleton: across, front to back, head to feet
    depth: float  # of the rib cage, on top of the scale: flat chest to barrel chest
    kyphosis: float  # curvature of the spine, 1/mm
    scoliosis: float  # sideways bow of the spine
    expiration: float  # 0 full inspiration, 1 quiet expiration
    fat: float  # thickness under the skin
    obesity: float  # 0 lean to 1
    muscle: float
    breast: float  # 0 none to 1
    heart: float
    heart_tilt: float  # of the apex below the horizontal
    right_dome: float  # height of the diaphragm's domes
    left_dome: float
    aorta: float
    aorta_unfolding: float  # 0 young to 1 old
    rib_slope: float
    fissure_phase: float
    arms_up: bool
    right_blood: float  # contrast agent arrives in the right heart first
    left_blood: float
    lung: float  # mean parenchyma without the drawn vessels
    vessels: float  # width of the lung's vessels
    lung_gravity: float  # how much denser the back of the lung is
    bone: float  # spongy bone
    noise: float  # standard deviation at 1.6 mm voxels
    rotation: tuple[float, float, float]
    centre: tuple[float, float, float]  # where the lungs' middle stands in the cube
    irregularity: float  # of every shape, amplitude of a smooth random displacement
    scan_top: float  # the scan's ends, distance beyond the lungs
    scan_bottom: float
    scan_radius: float  # of the reconstructed circle

    @classmethod
    def sample(cls, seed: int) -> SyntheticThorax:
        """Draw a patient. Ranges are meant to be as wide as an adult population and its scanners."""
        rng = np.random.default_rng([seed, 0])
        female = bool(rng.random() < 0.5)
        old = rng.uniform()
        size = (0.96 if female else 1.04) * rng.normal(1.0, 0.05)
        obesity = float(np.clip(rng.beta(1.6, 2.4), 0, 1))
        phase = rng.choice(["none", "none", "arterial", "pulmonary", "venous"])
        right_blood, left_blood = {
            "none": lambda: (rng.uniform(32, 52),) * 2,
            "arterial": lambda: (rng.uniform(150, 350), rng.uniform(250, 450)),
            "pulmonary": lambda: (rng.uniform(250, 500), rng.uniform(90, 300)),
            "venous": lambda: (rng.uniform(110, 190),) * 2,
        }[phase]()
        right_dome = rng.uniform(20, 35)
        return cls(
            seed=seed,
            female=female,
            scale=tuple(size * rng.normal(1.0, 0.03, 3)),
            depth=float(np.clip(rng.normal(1.08 - 0.03 * female + 0.06 * old, 0.07), 0.9, 1.28)),
            kyphosis=rng.uniform(0.0012, 0.0024) + 0.0012 * old,
            scoliosis=rng.normal(0, 3.0),
            expiration=float(np.clip(rng.beta(1.1, 3.2), 0, 1)),
            fat=4.0 + 34.0 * obesity**1.3 * rng.uniform(0.7, 1.2),
            obesity=obesity,
            muscle=float(np.clip(rng.normal(0.8 if female else 1.1, 0.2) - 0.25 * old, 0.35, 1.6)),
            breast=float(rng.uniform(0.15, 0.6) + 0.4 * obesity) if female else 0.0,
            heart=float(np.clip(rng.normal(0.97 + 0.06 * old, 0.075), 0.8, 1.25)),
            heart_tilt=rng.uniform(18, 42),
            right_dome=right_dome,
            left_dome=right_dome - rng.uniform(5, 17),
            aorta=rng.normal(0.95 + 0.15 * old, 0.07),
            aorta_unfolding=float(np.clip(old + rng.normal(0, 0.2), 0, 1.2)),
            rib_slope=rng.uniform(0.8, 1.1),
            fissure_phase=rng.uniform(0, 2 * np.pi),
            arms_up=bool(rng.random() < 0.85),
            right_blood=right_blood,
            left_blood=left_blood,
            lung=rng.normal(-893, 24),
            vessels=rng.uniform(0.8, 1.1),
            lung_gravity=rng.uniform(10, 60),
            bone=rng.uniform(110, 330) - 60 * old,
            noise=float(np.exp(rng.uniform(np.log(6), np.log(40)))),
            rotation=tuple(rng.normal(0, [2.0, 1.5, 3.0])),
            centre=tuple(rng.normal(0, 5.0, 3)),
            irregularity=rng.uniform(1.5, 4.0),
            scan_top=rng.uniform(8, 55),
            scan_bottom=rng.uniform(15, 120),
            scan_radius=rng.uniform(172, 260),
        )
