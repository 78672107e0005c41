"""Branching vessels and airways that fill the lung, and their drawing as partial volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Tree:
    """Straight branches: ``starts`` and ``ends`` ``(N, 3)``, ``radii`` ``(N,)``, in mm or in voxels."""

    starts: np.ndarray
    ends: np.ndarray
    radii: np.ndarray

    def shifted(self, offset: np.ndarray, factor: float) -> Tree:
        """The same tree beside itself, with radii times ``factor``: an airway runs along its artery."""
        return Tree(self.starts + offset, self.ends + offset, self.radii * factor)


def grow_tree(rng: np.random.Generator, root: np.ndarray, leaves: np.ndarray, leaf_radius: float) -> Tree:
    """Grow a tree from ``root`` towards ``leaves`` ``(2**k, 3)`` by splitting the space they fill again and again.

    Each branch goes part of the way to the centroid of its share of the leaves (volume-filling branching, Tawhai et
    al. 2004, https://doi.org/10.1152/japplphysiol.00520.2004). Radii follow Murray's law (the cube of a
    parent's is the sum of its children's cubes), a little flatter, as measured in lungs.
    """
    starts, ends, radii = [], [], []
    groups = leaves[None].astype(np.float32)
    nodes = np.asarray(root, dtype=np.float32)[None]
    while True:
        count, size = groups.shape[:2]
        # Near the hilum a lung's vessels branch quickly.
        nearest, farthest = (0.16, 0.3) if count <= 4 else (0.28, 0.5)
        reach = 1.0 if size == 1 else rng.uniform(nearest, farthest, (count, 1)).astype(np.float32)
        tips = nodes + reach * (groups.mean(axis=1) - nodes)
        starts.append(nodes)
        ends.append(tips)
        radii.append(np.full(count, leaf_radius * size**0.31, dtype=np.float32))
        if size == 1:
            return Tree(np.concatenate(starts), np.concatenate(ends), np.concatenate(radii))
        # Split each group across its widest direction, seen from where its branch ends.
        direction = rng.normal(size=(count, 1, 3)).astype(np.float32) * 0.35 * groups.std(axis=(1, 2))[:, None, None]
        centred = groups - groups.mean(axis=1, keepdims=True)
        widest = np.eye(3, dtype=np.float32)[centred.std(axis=1).argmax(axis=1)][:, None]
        order = (centred * (widest + direction / (np.abs(direction).max() + 1e-6) * 0.4)).sum(axis=2).argsort(axis=1)
        groups = np.take_along_axis(groups, order[..., None], axis=1).reshape(2 * count, size // 2, 3)
        nodes = np.repeat(tips, 2, axis=0)


def draw_tree(tree: Tree, shape: tuple[int, ...]) -> np.ndarray:
    """Share of each voxel ``(X, Y, Z)`` that the branches, given in voxels, fill, in [0, 1].

    Branches are sampled as points that carry their volume and are spread trilinearly (thin ones) or over a disc of
    points (thick ones), so that the drawn volume is right at every resolution.
    """
    lengths = np.linalg.norm(tree.ends - tree.starts, axis=1)
    samples = np.maximum(np.ceil(lengths / 0.45).astype(int), 1)
    branch = np.repeat(np.arange(len(samples)), samples)
    fraction = (np.arange(len(branch)) - np.repeat(np.cumsum(samples) - samples, samples) + 0.5) / samples[branch]
    points = tree.starts[branch] + fraction[:, None] * (tree.ends - tree.starts)[branch]
    radius = tree.radii[branch]
    volume = np.pi * radius**2 * (lengths / samples)[branch]

    # A thick branch is a bundle of lines: its cross-section filled with a sunflower of points.
    bundle = np.clip(np.ceil((radius / 0.45) ** 2 * 2.0).astype(int), 1, 150)
    index = np.repeat(np.arange(len(points)), bundle)
    rank = np.arange(len(index)) - np.repeat(np.cumsum(bundle) - bundle, bundle)
    reach = radius[index] * np.sqrt((rank + 0.5) / bundle[index]) * (bundle[index] > 1)
    angle = rank * 2.399963
    along = (tree.ends - tree.starts) / np.maximum(lengths, 1e-6)[:, None]
    helper = np.where(np.abs(along[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    across = np.cross(along, helper)
    across /= np.linalg.norm(across, axis=1)[:, None]
    upward = np.cross(along, across)
    spread = reach[:, None] * (
        np.cos(angle)[:, None] * across[branch[index]] + np.sin(angle)[:, None] * upward[branch[index]]
    )
    return np.minimum(_splat(points[index] + spread, volume[index] / bundle[index], shape), 1.0)


def _splat(where: np.ndarray, weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    inside = np.all((where >= 0) & (where < np.array(shape) - 1), axis=1)
    where, weight = where[inside], weight[inside]
    corner = where.astype(np.int64)
    fraction = where - corner
    total = np.zeros(int(np.prod(shape)))
    for dx in (0, 1):
        for dy in (0, 1):
            for dz in (0, 1):
                share = weight * np.prod(np.where([dx, dy, dz], fraction, 1 - fraction), axis=1)
                flat = np.ravel_multi_index(tuple((corner + np.array([dx, dy, dz])).T), shape)
                total += np.bincount(flat, share, minlength=total.size)
    return total.reshape(shape).astype(np.float32)
