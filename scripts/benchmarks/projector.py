"""Time, error and memory of the projector, beside nanodrr and DiffDRR in the same run.

``python scripts/benchmarks/projector.py [--peers nanodrr,diffdrr]``

The peers are no dependency of ours. To have them, in an environment of its own::

    python -m venv peers && peers/bin/pip install -r requirements.txt nanodrr && peers/bin/pip install --no-deps diffdrr
    PYTHONPATH=. peers/bin/python scripts/benchmarks/projector.py --peers nanodrr,diffdrr
"""

from __future__ import annotations

import ctypes
import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel
import numpy as np
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from torch import Tensor

from xrecon_bundle import frame
from xrecon_bundle.cli import start
from xrecon_bundle.datasets.lidc import fetch_lidc
from xrecon_bundle.projection import ConeBeamGeometry, Projector
from xrecon_bundle.projection.phantom import Ellipsoid
from xrecon_bundle.projection.pose import rotation_matrix

Spacing = tuple[float, float, float]
Render = Callable[[Tensor], Tensor]  # the volume in the contestant's own layout to the image (U, W)

CACHE = Path(__file__).parents[2] / ".cache"
BODY = Ellipsoid((12.0, -20.0, 8.0), (110.0, 80.0, 120.0))
VIEWS = {
    "PA": torch.zeros(6),
    "lateral": torch.tensor([0.0, 0, 90, 0, 0, 0]),
    "oblique": torch.tensor([12.0, -18, 35, 10, -5, 8]),
}
NANODRR_SAMPLES = 256  # a ray; about one a voxel, as we take
DIFFDRR_SAMPLES = 500  # its default
DIFFDRR_PARTS = 8  # of the rays, one after the other: all at once would need tens of gigabytes


class Ours:
    """Our projector. ``layout`` gives the volume as the contestant keeps it, ``render`` one part of a view's rays."""

    parts = 1

    def layout(self, volume: Tensor, spacing: Spacing) -> Tensor:  # noqa: D102
        return volume

    def render(self, geometry: ConeBeamGeometry, pose: Tensor, spacing: Spacing, part: int) -> Render:  # noqa: D102
        projector = Projector(geometry)
        return lambda volume: projector(volume, pose[None, None], spacing)[0, 0, 0]


class Nanodrr:
    """nanodrr's ``DRR`` module."""

    parts = 1

    def __init__(self, samples: int = NANODRR_SAMPLES) -> None:
        self.samples = samples

    def layout(self, volume: Tensor, spacing: Spacing) -> Tensor:  # noqa: D102
        from nanodrr.data import Subject
        from torchio import ScalarImage

        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = -(np.array(volume.shape[2:]) - 1) / 2 * spacing
        self.subject = Subject.from_images(ScalarImage(tensor=volume[0], affine=affine), convert_to_mu=False)
        return self.subject.image

    def render(self, geometry: ConeBeamGeometry, pose: Tensor, spacing: Spacing, part: int) -> Render:  # noqa: D102
        from nanodrr.drr import DRR

        (du, dv), (u, v) = geometry.pixel_size, geometry.detector_pixels
        drr = DRR.from_carm_intrinsics(geometry.source_to_detector, du, dv, 0.0, 0.0, v, u, dtype=torch.float32)
        camera = torch.eye(4)[None]
        camera[0, :3, :3] = _turn(geometry, pose)
        camera[0, :3, 3] = _source(geometry, pose)

        def render(volume: Tensor) -> Tensor:
            self.subject._image_hu = volume
            return drr(self.subject, camera, n_samples=self.samples)[0, 0].T

        return render


class Diffdrr:
    """DiffDRR's renderers, on our rays in voxel coordinates."""

    parts = DIFFDRR_PARTS

    def __init__(self, kind: str) -> None:
        from diffdrr import renderers

        self.renderer = getattr(renderers, kind)()
        self.options = {"n_points": DIFFDRR_SAMPLES} if kind == "Trilinear" else {}

    def layout(self, volume: Tensor, spacing: Spacing) -> Tensor:  # noqa: D102
        return volume[0, 0]

    def render(self, geometry: ConeBeamGeometry, pose: Tensor, spacing: Spacing, part: int) -> Render:  # noqa: D102
        pixel, _ = geometry.rays(pose)
        pixel, source = pixel.chunk(self.parts)[part].reshape(1, -1, 3), _source(geometry, pose)
        length = (pixel - source).norm(dim=-1)[:, None]
        step = torch.tensor(spacing)

        def render(volume: Tensor) -> Tensor:
            middle = (torch.tensor(volume.shape) - 1) / 2
            points = source[None, None] / step + middle, pixel / step + middle
            return self.renderer(volume, *points, length, **self.options).reshape(-1, geometry.detector_pixels[1])

        return render


CONTESTANTS = {
    "": {"ours": Ours},
    "nanodrr": {f"nanodrr, {NANODRR_SAMPLES} samples": Nanodrr},
    "diffdrr": {
        "DiffDRR Siddon": lambda: Diffdrr("Siddon"),
        f"DiffDRR trilinear, {DIFFDRR_SAMPLES} samples": lambda: Diffdrr("Trilinear"),
    },
}


def run(peers: str | Sequence[str] = (), size: int = 224, seconds: float = 3.0) -> None:
    """Print the figures as Markdown tables.

    Args:
        peers: any of ``nanodrr`` and ``diffdrr``.
        size: edge of the volume in voxels and of the detector in pixels.
        seconds: each timing is the best of the repetitions that fit into this, at least one.
    """
    peers = peers.split(",") if isinstance(peers, str) else list(peers)
    missing = [peer for peer in peers if importlib.util.find_spec(peer) is None]
    if missing:
        raise SystemExit(f"{' and '.join(missing)} cannot be imported here.\n\n{__doc__}")
    _print_speed(peers, size, seconds)
    if "nanodrr" in peers:
        _print_agreement(size)


def _print_speed(peers: list[str], size: int, seconds: float) -> None:
    geometry, spacing = ConeBeamGeometry.chest_pa(size), (frame.voxel_size(size),) * 3
    volume = BODY.rasterise((size,) * 3, spacing).float()
    print(f"""
{size}^3 voxels to {size} x {size} pixels, float32, {torch.get_num_threads()} threads, torch {torch.__version__}; mean
over the views {", ".join(VIEWS)}. Error: mean relative, against the exact chord through an ellipsoid, of rays with over
20 voxels in it. Backward: gradient of the volume. Memory: peak beyond the volume.
""")
    print("| projector | error | forward | forward + backward | memory | with backward |\n| --- " + "| ---: " * 5 + "|")
    ours: np.ndarray | None = None
    for name, make in {k: v for peer in ["", *peers] for k, v in CONTESTANTS[peer].items()}.items():
        rows = [_measure(make(), volume, spacing, geometry, pose, seconds) for pose in VIEWS.values()]
        error, forward, both, memory, memory_both = np.mean(rows, axis=0)
        ours = np.array([forward, both]) if ours is None else ours
        ratio = np.array([forward, both]) / ours
        print(
            f"| {name} | {error:.3%} | {forward:.3f} s ({ratio[0]:.0f} x) | {both:.3f} s ({ratio[1]:.0f} x) "
            f"| {memory:.0f} MB | {memory_both:.0f} MB |",
            flush=True,
        )


def _measure(
    contestant: Ours | Nanodrr | Diffdrr,
    volume: Tensor,
    spacing: Spacing,
    geometry: ConeBeamGeometry,
    pose: Tensor,
    seconds: float,
) -> tuple[float, float, float, float, float]:
    """Relative error, seconds forward, seconds forward and backward, and peak memory of each in MB."""
    renders = [contestant.render(geometry, pose, spacing, part) for part in range(contestant.parts)]
    volume = contestant.layout(volume, spacing)
    differentiable = volume.clone().requires_grad_()

    def forward() -> Tensor:
        with torch.no_grad():
            return torch.cat([render(volume) for render in renders])

    def both() -> None:
        differentiable.grad = None
        for render in renders:
            render(differentiable).sum().backward()

    image, memory = _peak_memory(forward)
    truth = BODY.integral(*geometry.rays(pose.double()))
    counts = truth > 20 * max(spacing)
    error = ((image.double() - truth).abs() / truth)[counts].mean().item()
    _, memory_both = _peak_memory(both)
    return error, _best_time(forward, seconds), _best_time(both, seconds), memory, memory_both


def _print_agreement(size: int) -> None:
    """Ours beside nanodrr, finely sampled, on a real CT with anisotropic voxels."""
    hu, spacing = _lidc()
    attenuation = frame.hu_to_attenuation(hu)[None, None]
    geometry = ConeBeamGeometry.chest_pa(size)
    shape, steps = " x ".join(map(str, hu.shape)), " x ".join(f"{step:.2f}" for step in spacing)
    print(f"""
LIDC CT, {shape} voxels of {steps} mm, to {size} x {size} pixels: ours against nanodrr with 1000 samples a ray;
rays with over 0.1 nepers.
""")
    print("| view | correlation | mean relative difference |\n| --- | ---: | ---: |")
    for view, pose in VIEWS.items():
        images = []
        for contestant in (Ours(), Nanodrr(1000)):
            own = contestant.layout(attenuation, spacing)
            with torch.no_grad():
                images.append(contestant.render(geometry, pose, spacing, 0)(own).double())
        ours, theirs = (image[images[1] > 0.1] for image in images)
        correlation = torch.corrcoef(torch.stack([ours, theirs]))[0, 1]
        print(f"| {view} | {correlation:.6f} | {((ours - theirs).abs() / theirs).mean():.3%} |", flush=True)


def _lidc() -> tuple[Tensor, Spacing]:
    """HU, float32, in the chest frame's axes, and the spacing in mm."""
    image = nibabel.load(fetch_lidc(CACHE)[0])
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(frame.AXCODES))
    hu = apply_orientation(np.asarray(image.dataobj, dtype=np.float32), turn)
    spacing = np.asarray(image.header.get_zooms()[:3])[np.argsort(turn[:, 0])]
    return torch.from_numpy(np.ascontiguousarray(hu)), tuple(float(s) for s in spacing)


def _turn(geometry: ConeBeamGeometry, pose: Tensor) -> Tensor:
    return rotation_matrix(pose[:3]) @ rotation_matrix(torch.tensor(geometry.orientation))


def _source(geometry: ConeBeamGeometry, pose: Tensor) -> Tensor:
    behind = geometry.detector_to_centre - geometry.source_to_detector
    return _turn(geometry, pose) @ torch.tensor([0.0, 0.0, behind]) + pose[3:]


def _best_time(function: Callable[[], object], seconds: float) -> float:
    times = []
    while not times or sum(times) + times[-1] < seconds:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def _peak_memory(function: Callable[[], object]) -> tuple[object, float]:
    """The result and by how many MB the process grew at most meanwhile (Linux with glibc)."""
    ctypes.CDLL(None).malloc_trim(0)  # what is free is given back, or using it again would not count
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew at the present size
    before = _memory("VmRSS")
    result = function()
    return result, _memory("VmHWM") - before


def _memory(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    start(run)
