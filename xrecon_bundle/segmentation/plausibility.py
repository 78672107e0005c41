"""Can these be the lungs of a person? What to be warned of before a volume in mL is believed."""

from __future__ import annotations

from typing import Any

# Both pleural cavities in mL. The adults' total lung capacity is about 4 to 8 L; a scan in expiration or a stiff lung
# shows half of it, a child, a newborn or a part of the chest less.
LEAST_ML = 1000.0
MOST_ML = 10_000.0


def volume_warnings(statistics: dict[str, Any]) -> list[str]:
    """Warnings on the volume of lung and pneumothorax together; empty where an adult's chest would be as large.

    Args:
        statistics: what :func:`~.measures.measure_pneumothorax` returned.
    """
    total = statistics["total"]["lung_ml"] + statistics["total"]["pneumothorax_ml"]
    if total < LEAST_ML:
        return [
            f"both lungs have {total:.0f} mL, too little for an adult: a child, a part of the chest, "
            "or a wrong voxel size; compare it with the scanner's"
        ]
    if total > MOST_ML:
        return [
            f"both lungs have {total:.0f} mL, more than a person's: the voxel size may be wrong; "
            "compare it with the scanner's"
        ]
    return []
