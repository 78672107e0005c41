"""The numbers of PTX-Seg that somebody chose: what each means and what it was chosen on.

``python scripts/benchmark.py ptxseg_numbers`` prints what a fifth more or less of each does.

Sources of tissue HU: aeration, Gattinoni et al. 2001, Am J Respir Crit Care Med 164:1701 (aerated lung -900 to -500,
airless from -100 on); emphysema, Gevenois et al. 1995, Am J Respir Crit Care Med 152:653 (below -950); fat, Kvist et
al. 1988, Am J Clin Nutr 48:1351 (-190 to -30).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# What numbers were chosen on. Judged are other seeds and pseudo-patients, see docs/ptx-seg.md.
PHYSICS = "physics: the definition of HU, or the sources above"
ANATOMY = "anatomy: sizes of adults"
TUNING = (
    "pneumothoraces put into the LIDC CT (seeds 1, 2, 14), pseudo-patients 101 to 109, synthetic chests 5, 7, 8, 31"
)
OTHERS = "three other people's CTs, and drawn bullae"
ABDOMEN = "a CT of an abdomen, and the tuning set"
COST = "time and memory: finer changes little"


def _number(value: Any, meaning: str, chosen_on: str) -> Any:
    return field(default=value, metadata={"meaning": meaning, "chosen_on": chosen_on})


@dataclass(frozen=True)
class TissueHU:
    """Hounsfield units of what a chest is made of."""

    air: float = _number(-1000.0, "free air", PHYSICS)
    emphysema: float = _number(-950.0, "darker is no lung tissue", PHYSICS)
    parenchyma: tuple[float, float] = _number((-940.0, -500.0), "aerated lung, averaged over 2 mm", PHYSICS)
    lung: float = _number(-700.0, "lung, where none is seen to measure it from", PHYSICS)
    solid: float = _number(-600.0, "denser are vessels, dense lung and voxels mixed with wall", PHYSICS)
    lung_edge: float = _number(
        -400.0, "half-way between aerated lung and soft tissue: the edge of lung and body", PHYSICS
    )
    dense_lung: float = _number(-150.0, "darker is collapsed lung with some air left, averaged over 3 mm", TUNING)
    fat: float = _number(
        -100.0, "nothing counts as denser where collapsed lung is sought, so that vessels do not hide it", PHYSICS
    )
    wall: float = _number(30.0, "the chest wall", PHYSICS)
    wall_range: tuple[float, float] = _number((-150.0, 300.0), "what the chest wall can be, fat to bone", PHYSICS)


@dataclass(frozen=True)
class Optics:
    """How a CT shows an edge, and on which grids it is looked at."""

    cavity_grid_mm: tuple[float, float] = _number(
        (2.0, 3.0), "finest and coarsest voxels on which cavities are found", COST
    )
    air_grid_mm: tuple[float, float] = _number((1.3, 2.5), "the same for their edges and the free air", COST)
    least_height_mm: float = _number(
        20.0, "a lower stack of slices is continued by its end slices", "single slices of four CTs"
    )
    nearby_mm: float = _number(4.0, "sigma over which the content beside a cavity's edge is averaged", TUNING)
    doubt_mm: float = _number(1.0, "sigma of the coarse outline's error, at least", TUNING)
    doubt_voxels: float = _number(0.3, "the same in voxels of the scan", TUNING)
    blur_depth_voxels: int = _number(8, "as far below the outline the blur is measured", TUNING)
    facing_mm: float = _number(3.0, "sigma of the outline whose direction is taken", TUNING)
    facing: tuple[float, float] = _number(
        (0.4, 0.85), "sine to the axial plane: at most for an edge in it, at least for one across", "blurred phantoms"
    )
    least_seen: int = _number(20, "voxels at a depth from which on its HU count", TUNING)
    outline: float = _number(
        1.2,
        "an outline drawn in the CT follows its edges, which so look sharper: their blur is this much more",
        "blurred phantoms",
    )
    least_own: float = _number(0.3, "voxels with a smaller share of the cavity tell nothing about it", TUNING)
    wall_mm: float = _number(6.0, "as far outside the cavity the wall's HU are looked for", TUNING)
    bulk_mm: float = _number(1.2, "sigma within which HU in the cavity are averaged", TUNING)
    ordinary_noise_hu: float = _number(40.0, "a wider sigma where noise is stronger than this", TUNING)


@dataclass(frozen=True)
class AirRules:
    """What may be free air by its density, and where its edge is drawn."""

    sure: float = _number(0.35, "share of the way from air to the lung nearby below which it is surely air", TUNING)
    likely: float = _number(0.5, "and below which it is likely air", PHYSICS)
    reach: float = _number(2.5, "sigmas of blur as far as likely air reaches from sure air", TUNING)
    neighbourhood_mm: float = _number(12.0, "sigma of the lung nearby", TUNING)
    speck_voxels: float = _number(1.1, "radius of the smallest speck of lung between air", TUNING)
    edge: float = _number(
        1.5, "sigmas of blur (voxels, if more) from found air to lung that is not mixed with it", TUNING
    )
    beside_mm: float = _number(6.0, "sigma of that lung's HU", TUNING)
    edge_level: tuple[float, float] = _number(
        (0.5, 0.6), "share of the way to that lung at the edge: pleura seen, or not", PHYSICS
    )
    pleura_blur_mm: tuple[float, float] = _number(
        (0.9, 1.4), "sigma of blur from which on the pleura is seen less, and not at all", TUNING
    )


@dataclass(frozen=True)
class PocketRules:
    """Which pocket of air lies between chest wall and lung; see :func:`~.pockets.judge`."""

    least_ml: float = _number(8.0, "smaller pockets are not counted", TUNING)
    least_thick_mm: float = _number(2.1, "nor thinner ones (twice the volume over the surface)", TUNING)
    least_thick_sigmas: float = _number(1.0, "nor those thinner than this many sigmas of blur", TUNING)
    thick_mm: tuple[float, float] = _number(
        (7.0, 10.0), "from here on a pocket is thick; from there on the stricter bulge counts", OTHERS
    )
    least_wall_thick: float = _number(0.2, "share of the surface that is chest wall, of a thick pocket", OTHERS)
    most_bulge: tuple[float, float] = _number(
        (0.55, 0.528), "share of lung around a thick pocket's inner surface (0.5: flat)", OTHERS
    )
    bulge_mm: float = _number(8.0, "sigma of that neighbourhood", OTHERS)
    bulge_reach: float = _number(2.5, "in sigmas, as far as it is looked at", COST)
    bulge_depth_mm: float = _number(10.0, "the inner surface counts from this depth below the wall on", OTHERS)
    least_wall: float = _number(0.36, "share of chest wall, of a thin crescent", OTHERS)
    least_wall_round: float = _number(0.46, "share of chest wall, of what is thin and round", OTHERS)
    solidity: tuple[float, float] = _number(
        (0.4, 0.85), "share of its convex hull that a pocket fills, crescent and round", OTHERS
    )
    hull_mm: float = _number(4.0, "grid on which hulls are drawn", COST)
    most_deep: float = _number(1.25, "median depth of a crescent below the wall, in multiples of its thickness", OTHERS)
    most_reach: float = _number(
        4.0, "95th percentile of the depth of anything thin: films have 2 to 3, chains of bullae 5 and more", OTHERS
    )
    least_step: float = _number(
        0.46,
        "rise of density from a thin pocket to the lung beyond, air to lung being 1",
        "synthetic chests 7 and 31, LIDC CT seeds 1 and 2",
    )


@dataclass(frozen=True)
class CavityRules:
    """What belongs to the pleural cavities."""

    smooth_mm: float = _number(2.0, "sigma over which parenchyma is averaged", TUNING)
    closing_mm: float = _number(6.0, "vessels and fissures narrower than twice this belong to the cavity", ANATOMY)
    least_part_ml: float = _number(15.0, "smaller islands of air are no part of a cavity", ABDOMEN)
    lung_share: float = _number(0.3, "of an island's air that reads as parenchyma: it is lung,", ABDOMEN)
    least_lung_ml: float = _number(100.0, "if larger than this,", ABDOMEN)
    least_lung: float = _number(
        0.1,
        "and than this share of the largest one: small bubbles of bowel gas read as lung in a blurred CT",
        "synthetic chests 6 and 32 at 64",
    )
    most_covered: float = _number(
        0.5, "of an island's air that has lung above it or beside it: more is bowel gas", ABDOMEN
    )
    pleura_mm: float = _number(
        6.0, "between free air and lung lies the visceral pleura, mixed voxels included", ANATOMY
    )
    streak_mm: float = _number(
        14.0, "half the thickness that air in the chest wall does not reach", "air drawn in the LIDC CT's chest wall"
    )
    dense_mm: float = _number(3.0, "sigma over which collapsed lung is averaged", TUNING)
    edge_mm: float = _number(
        5.0, "half the thickness of a layer that can be the edge between air and soft tissue,", TUNING
    )
    edge_sigmas: float = _number(2.5, "in sigmas of blur,", TUNING)
    edge_voxels: float = _number(1.5, "and in voxels", TUNING)
    least_share: float = _number(
        0.08, "of the body's widest section that holds lung: bowel gas reaches 0.06, one lung 0.13", ABDOMEN
    )
    least_column_mm3: float = _number(2000.0, "of air in a sagittal slice that counts for the chest's width", ANATOMY)
    one_lung: float = _number(
        0.5,
        "of half the air's width: if the body's middle is further from the air's, one side has none",
        "a phantom with one lung opaque",
    )
    mediastinum: float = _number(0.3, "of the half width of the chest: only inside can the two cavities meet", ANATOMY)
    airway_mm2: tuple[float, float] = _number(
        (60.0, 900.0), "area of trachea and main bronchi in an axial slice", ANATOMY
    )
    airway_round: float = _number(2.0, "its width to its depth, at most, either way", ANATOMY)
    airway_fill: float = _number(0.5, "of its box that the trachea fills", ANATOMY)
    airway_middle: float = _number(
        0.4, "of the half width of the chest: as far from the middle the trachea is looked for", ANATOMY
    )
    airway_growth: float = _number(2.0, "of its area from slice to slice, at most", "other people's CTs")
    airway_wall: float = _number(0.5, "of its rim that is denser than lung", "other people's CTs")
    airway_hu: tuple[float, ...] = _number(
        (-500.0, -700.0, -800.0, -880.0),
        "thresholds tried in turn until the airway comes apart from the lung",
        "other people's CTs",
    )
    least_airway_mm: float = _number(25.0, "a shorter run is no trachea", ANATOMY)


@dataclass(frozen=True)
class Parameters:
    """All of them."""

    tissue: TissueHU = TissueHU()
    optics: Optics = Optics()
    air: AirRules = AirRules()
    pockets: PocketRules = PocketRules()
    cavities: CavityRules = CavityRules()


PARAMETERS = Parameters()
TISSUE = PARAMETERS.tissue  # the one set of tissue HU, for other rooms too
