"""A study with readers: blinded pages, score sheets, and the statistics of the filled ones. See docs/reader-study.md.

python scripts/reader_study.py analyse KEY SHEET [SHEET ...] --output_dir RESULTS
"""

from __future__ import annotations

import base64
import dataclasses
import os
import random
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from jinja2 import Environment, FileSystemLoader
from reader_analysis import (
    ANSWERS,
    NOT_ASKED,
    PREFERENCES,
    QUALITIES,
    SHEET_COLUMNS,
    SOURCES,
    Page,
    analyse_sheets,
    read_key,
    read_sheet,
    write_key,
    write_table,
)
from tqdm import tqdm

from xrecon_bundle.cli import start
from xrecon_bundle.datasets.cases import list_cases
from xrecon_bundle.files import InputError, atomic_path, check_writable, file_sha256, write_json
from xrecon_bundle.frame import AIR_HU, HU_SPAN, cube_affine, voxel_spacing
from xrecon_bundle.metrics.agreement import Estimate
from xrecon_bundle.report.viewer import STEPS_HU, viewer_page
from xrecon_bundle.segmentation.labels import SIDES
from xrecon_bundle.segmentation.measures import measure_pneumothorax

RESULTS = ("analysis.json", "analysis.md")
READERS, KEY, PAGES = "for_readers", "key", "pages"  # folders of a study
DAY = 946_684_800  # the date of every file for the readers, 2000-01-01
NOTICE = "Research only. Not for diagnosis."
TEMPLATES = Path(__file__).parent / "reader_study"


def make(
    dataset: str,
    reconstructed: str,
    output_dir: str,
    readers: int = 2,
    seed: int | None = None,
    split: str | None = None,
    pairs: bool = True,
) -> None:
    """Write the pages and sheets for the readers, and the key that stays with you.

    Each case of the dataset becomes two pages, the true and the reconstructed CT, under numbers drawn by lot; with
    pairs also a page that shows both side by side. Both are shown on one grid, in one range, as files of one size.

    Args:
        dataset: folder of `xrecon prepare`, at the spatial size of the reconstructions.
        reconstructed: what `xrecon reconstruct-folder DATASET` wrote.
        output_dir: new folder: for_readers/ to hand out, key/ to keep.
        readers: how many sheets; each lists the pages in an order of its own.
        seed: of the lots; drawn where none is given, and kept with the key.
        split: only the cases of train, validation or test.
        pairs: also ask which of two volumes is preferred.
    """
    folder = Path(output_dir)
    check_writable(folder, folder=True)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} exists already; give a new folder for the study")
    if not isinstance(readers, int) or not 1 <= readers <= 99:
        raise InputError(f"readers is {readers}; give a number from 1 to 99")
    cases = [_Case.read(entry, Path(reconstructed)) for entry in list_cases(dataset, split)]
    seed = secrets.randbits(32) if seed is None else seed
    lots = random.Random(seed)
    key = draw_lots([(case.name, case.pneumothorax) for case in cases], pairs, lots)
    by_name = {case.name: case for case in cases}
    with atomic_path(folder) as temporary:
        handed, kept = temporary / READERS, temporary / KEY
        (handed / PAGES).mkdir(parents=True)
        kept.mkdir()
        step = write_pages(handed / PAGES, key, by_name, lots)
        for reader in range(1, readers + 1):
            write_table(handed / f"reader-{reader}.csv", SHEET_COLUMNS, _blank(key, lots))
        instructions = _template("instructions.html.j2").render(
            notice=NOTICE,
            answers=ANSWERS,
            qualities=QUALITIES,
            preferences=PREFERENCES,
            pages=[page.page for page in key if len(page.shows) == 1],
            pairs=[page.page for page in key if len(page.shows) == 2],
        )
        (handed / "instructions.html").write_text(instructions, encoding="utf-8")
        write_key(kept / "key.csv", key)
        inputs = {case.name: {source: _named(case.files[source]) for source in SOURCES} for case in cases}
        write_json(kept / "study.json", {"seed": seed, "split": split, "step_hu": step, "cases": inputs})
        for path in [*handed.rglob("*"), handed]:
            os.utime(path, (DAY, DAY))
    print(f"wrote {len(cases)} cases to {folder}: {READERS}/ is for the readers, {KEY}/ is not")


def draw_lots(cases: Sequence[tuple[str, str]], pairs: bool, lots: random.Random) -> list[Page]:
    """The pages of a study in the order of their numbers.

    Args:
        cases: name, and where it has a pneumothorax.
        pairs: also a page a case that shows both volumes.
        lots: decides numbers, and which volume is A.
    """
    single = [(case, (source,), has) for case, has in cases for source in SOURCES]
    double = [(case, tuple(lots.sample(SOURCES, 2)), has) for case, has in cases] if pairs else []
    key = []
    for kind, drawn in (("page", single), ("pair", double)):
        lots.shuffle(drawn)
        digits = max(3, len(str(len(drawn))))
        key += [Page(f"{kind}-{number:0{digits}d}", *one) for number, one in enumerate(drawn, start=1)]
    return key


def write_pages(folder: Path, key: Sequence[Page], cases: dict[str, _Case], lots: random.Random) -> int:
    """Write the pages: alike but for their number and what the volume shows, and of one size.

    A page says where it shows less than the file holds. So that it says the same of all, volumes are rounded before,
    by as little as does.

    Returns:
        the step in HU to which they are rounded.

    Raises:
        InputError: the pages cannot be made alike.
    """
    single = [page for page in key if len(page.shows) == 1]
    for step in STEPS_HU:
        sizes, frames = [], set()
        for page in tqdm(single, desc=f"pages, steps of {step} HU", unit="page"):
            text = _page(cases[page.case], page, step)
            frames.add(_without_volume(text, page.page))
            sizes.append(len(text.encode()))
            (folder / f"{page.page}.html").write_text(text, encoding="utf-8")
            if len(frames) > 1:
                break
        if len(frames) == 1:
            break
    else:
        raise InputError("the pages differ by more than their volumes; make the dataset at a smaller spatial size")
    for page in single:
        _fill(folder / f"{page.page}.html", max(sizes), lots)
    numbers = {(page.case, *page.shows): page.page for page in single}
    for page in key:
        if len(page.shows) == 2:
            shown = [f"{numbers[page.case, source]}.html" for source in page.shows]
            text = _template("pair.html.j2").render(title=page.page, notice=NOTICE, pages=shown)
            (folder / f"{page.page}.html").write_text(text, encoding="utf-8")
    return step


@dataclasses.dataclass(frozen=True)
class _Case:
    """A case's volumes by source, and where it has a pneumothorax; empty: not known."""

    name: str
    files: dict[str, Path]
    shape: tuple[int, ...]
    pneumothorax: str

    @classmethod
    def read(cls, entry: dict[str, str], reconstructed: Path) -> _Case:
        true, made = Path(entry["label"]), reconstructed / entry["case"] / "ct.nii.gz"
        if not made.is_file():
            raise InputError(
                f"{made}: no reconstruction of {entry['case']}; make them with "
                f"`xrecon reconstruct-folder {Path(true).parents[1]} --output {reconstructed}`"
            )
        grids = [nibabel.load(path) for path in (true, made)]
        shapes = [grid.shape for grid in grids]
        if shapes[0] != shapes[1] or not np.allclose(*(grid.affine[:3, :3] for grid in grids), atol=1e-3):
            raise InputError(
                f"{made} is of {shapes[1]} voxels and {true} of {shapes[0]}, or turned; the readers would see which is "
                "which: make the dataset with `xrecon prepare --spatial_size` at the size of the reconstructions"
            )
        return cls(entry["case"], dict(zip(SOURCES, (true, made), strict=True)), shapes[0], _truth(entry))

    def volume(self, source: str) -> np.ndarray:
        """In HU, in the range that a reconstruction can have."""
        hu = np.asarray(nibabel.load(self.files[source]).dataobj, dtype=np.float32)
        return hu.clip(AIR_HU, AIR_HU + HU_SPAN)


def _truth(entry: dict[str, str]) -> str:
    """Where a case's label map has a pneumothorax, by the measure's own threshold."""
    if "segmentation" not in entry:
        return ""
    image = nibabel.load(entry["segmentation"])
    labels = np.asarray(image.dataobj)
    measured = measure_pneumothorax(labels, np.zeros(labels.shape, np.float32), voxel_spacing(image.affine))
    sides = [side for side in SIDES if measured[side]["size"] != "none"]
    return "both" if len(sides) == 2 else sides[0] if sides else "none"


def _page(case: _Case, page: Page, step: int) -> str:
    hu = np.rint(case.volume(page.shows[0]) / step) * step
    return viewer_page(page.page, {"CT": hu}, cube_affine(case.shape[0]), notice=NOTICE)


def _without_volume(text: str, name: str) -> str:
    """A page without its number and without the volume, a gzip file in base64."""
    return re.sub(r"H4sI[A-Za-z0-9+/=]{100,}", "", text).replace(name, "")


def _fill(path: Path, size: int, lots: random.Random) -> None:
    """Lengthen a page to ``size`` bytes by a comment, so that the size does not tell a smooth volume.

    The comment is noise in base64, as the volume is: compressed in an archive, pages still are of one size.
    """
    missing = size - path.stat().st_size
    noise = base64.b64encode(lots.randbytes(missing))[:missing]
    path.write_bytes(path.read_bytes() + b"<!--" + noise + b"-->\n")


def _blank(key: Sequence[Page], lots: random.Random) -> list[list[str]]:
    """A reader's sheet: first the pages in an order of its own, then the pairs."""
    rows = []
    for count in (1, 2):
        pages = [page.page for page in key if len(page.shows) == count]
        lots.shuffle(pages)
        rows += [[page, *(["", "", NOT_ASKED] if count == 1 else [NOT_ASKED, NOT_ASKED, ""]), ""] for page in pages]
    return rows


def _named(path: Path) -> dict[str, str]:
    return {"file": str(path), "sha256": file_sha256(path)}


def _template(name: str) -> Any:
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True).get_template(name)


def analyse(key: str, *sheets: str, output_dir: str) -> None:
    """Write analysis.json and analysis.md, and print the latter.

    Args:
        key: key.csv as `make` wrote it; its column pneumothorax may be corrected by hand.
        sheets: a filled sheet a reader, named after the reader.
        output_dir: receives the results.
    """
    if not sheets:
        raise InputError("no score sheet was given; give the filled sheets after the key")
    folder = Path(output_dir)
    for name in RESULTS:
        check_writable(folder / name, sources=[key, *sheets])
    pages = read_key(key)
    result = analyse_sheets(pages, [read_sheet(path, pages) for path in sheets])
    text = in_words(result)
    write_json(folder / RESULTS[0], _plain(result))
    with atomic_path(folder / RESULTS[1]) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


def in_words(result: dict[str, Any]) -> str:
    """The result of :func:`.reader_analysis.analyse_sheets` as Markdown."""
    names = result["readers"]
    lines = [
        "# Reader study",
        "",
        f"{len(names)} readers ({', '.join(names)}), {result['cases']} cases, {result['with_pneumothorax']} of them "
        "with a pneumothorax. Intervals are of 95 %; those of all readers are clustered by case.",
    ]
    if result["truth_unknown"]:
        lines.append(
            f"Of {result['truth_unknown']} cases the truth is not known: they do not count in the first table."
        )
    lines += ["", "| pneumothorax | " + " | ".join([*SOURCES, "difference"]) + " |", "| --- | --- | --- | --- |"]
    for measure in ("sensitivity", "specificity"):
        for name in names:
            each = [result[source][measure]["each"][name] for source in SOURCES]
            cells = [f"{one['right']}/{one['of']} = {_percent(one['share'])}" for one in each]
            lines.append(f"| {measure}, {name} | {' | '.join(cells)} | |")
        cells = [_percent(result[source][measure]["all"]) for source in SOURCES]
        lines.append(f"| {measure}, all | {' | '.join(cells)} | {_percent(result['difference'][measure])} |")
    lines += ["", "| between readers | true | reconstructed |", "| --- | --- | --- |"]
    lines.append("| kappa, pneumothorax | " + " | ".join(_number(result[source]["kappa"]) for source in SOURCES) + " |")
    for name, title in {
        "kappa": "weighted kappa, quality",
        "icc_2_1": "ICC(2,1), quality",
        "icc_3_1": "ICC(3,1), quality",
        "mean": "mean quality (1 to 5)",
    }.items():
        cells = [_number(result[source]["quality"][name]) for source in SOURCES]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += ["", f"Quality, reconstructed minus true: {_number(result['difference']['quality'])}."]
    lines += [
        "",
        "| reader | same answer on true and reconstructed, kappa | prefers the reconstructed |",
        "| --- | --- | --- |",
    ]
    preference = result["preference"]
    for name in names:
        said = ""
        if preference:
            one = preference["each"][name]
            said = (
                f"{one['reconstructed']}/{one['of']} = {_percent(one['share'])}, p = {one['p']:.3g}, "
                f"neither {one['neither']}"
            )
        lines.append(f"| {name} | {_number(result['same_answer']['each'][name])} | {said} |")
    overall = _percent(preference["all"]) if preference else ""
    lines.append(f"| all | {_number(result['same_answer']['all'])} | {overall} |")
    return "\n".join(lines) + "\n"


def _percent(share: Estimate) -> str:
    return _shown(share, 100, 1, " %")


def _number(value: Estimate) -> str:
    return _shown(value, 1, 2, "")


def _shown(value: Estimate, scale: float, digits: int, unit: str) -> str:
    if value.value != value.value:  # NaN
        return "not known"
    limits = f" ({scale * value.low:.{digits}f} to {scale * value.high:.{digits}f})" if value.low == value.low else ""
    return f"{scale * value.value:.{digits}f}{unit}{limits}"


def _plain(content: Any) -> Any:
    if dataclasses.is_dataclass(content):
        return dataclasses.asdict(content)
    if isinstance(content, dict):
        return {name: _plain(value) for name, value in content.items()}
    return content


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    start({"make": make, "analyse": analyse}, arguments, "reader_study")


if __name__ == "__main__":
    main()
