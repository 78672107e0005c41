"""The rooms of the package, floor by floor: their size, what each imports, circles and imports that run back up.

python scripts/house.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grimp

PACKAGE = "xrecon_bundle"
ROOT = Path(__file__).parents[1]
# From the roof down, as docs/architecture.md says; a room imports from its own floor and those below.
FLOORS = (
    ("__main__",),
    ("cli", "app"),
    ("workflows",),
    ("engines", "handlers", "report"),
    ("transforms", "datasets", "quality"),
    ("anatomy", "placement"),
    ("io", "dicom", "networks", "projection", "segmentation", "metrics"),
    ("frame", "files", "fingerprint", "volume"),
)


@dataclass(frozen=True)
class House:
    """``lines`` of each room, ``arrows`` from room to room, ``circles`` of modules and ``upward`` imports."""

    lines: dict[str, int]
    arrows: dict[str, list[str]]
    circles: list[list[str]]
    upward: list[tuple[str, str]]


def measure() -> House:
    """Read the package as it stands."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    floor = {room: len(FLOORS) - number for number, rooms in enumerate(FLOORS) for room in rooms}
    lines: dict[str, int] = {}
    arrows: dict[str, set[str]] = {}
    upward = []
    for module in sorted(graph.modules - {PACKAGE}):
        room = module.split(".")[1]
        lines[room] = lines.get(room, 0) + _lines(module)
        for imported in sorted(graph.find_modules_directly_imported_by(module) - {PACKAGE}):
            other = imported.split(".")[1]
            if other != room:
                arrows.setdefault(room, set()).add(other)
                if floor[other] > floor[room]:
                    upward.append((module, imported))
    circles = _circles({module: graph.find_modules_directly_imported_by(module) for module in graph.modules})
    circles += _circles(arrows)
    return House(lines, {room: sorted(others) for room, others in arrows.items()}, circles, upward)


def _lines(module: str) -> int:
    base = ROOT / module.replace(".", "/")
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return len(path.read_text().splitlines()) if path.exists() else 0


def _circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Groups of names that import each other, by Tarjan's strongly connected components."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    names = sorted(set(imports) | {name for others in imports.values() for name in others})
    place = {name: number for number, name in enumerate(names)}
    pairs = [(place[name], place[other]) for name, others in imports.items() for other in others]
    rows, columns = zip(*pairs, strict=True)
    matrix = csr_array(([1] * len(pairs), (rows, columns)), shape=(len(names),) * 2)
    _, groups = connected_components(matrix, directed=True, connection="strong")
    members: dict[int, list[str]] = {}
    for name, group in zip(names, groups, strict=True):
        members.setdefault(int(group), []).append(name)
    return [group for group in members.values() if len(group) > 1]


def main() -> None:
    """Print the house."""
    house = measure()
    total = sum(house.lines.values())
    for number, rooms in enumerate(FLOORS):
        for room in rooms:
            if room in house.lines:
                share = f"{house.lines[room]:5d} lines {house.lines[room] / total:5.1%}"
                print(f"floor {len(FLOORS) - number}  {room:13s} {share}  -> {', '.join(house.arrows.get(room, []))}")
    print(f"{total} lines; circles: {len(house.circles)}; upward imports: {len(house.upward)}")
    for circle in house.circles:
        print("circle:", ", ".join(circle))
    for module, imported in house.upward:
        print("upward:", module, "->", imported)


if __name__ == "__main__":
    main()
