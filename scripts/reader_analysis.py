"""What readers' score sheets say: reading the sheets, and the statistics of a study. For scripts/reader_study.py."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from xrecon_bundle.files import InputError
from xrecon_bundle.metrics import (
    bootstrap_cases,
    clustered_proportion,
    cohen_kappa,
    fleiss_kappa,
    icc_2_1,
    icc_3_1,
    paired_difference,
    proportion,
)
from xrecon_bundle.metrics.agreement import UNKNOWN, Estimate

SOURCES = ("true", "reconstructed")
ANSWERS = ("none", "right", "left", "both")  # where a pneumothorax is
QUALITIES = ("1", "2", "3", "4", "5")
PREFERENCES = ("A", "B", "neither")
KEY_COLUMNS = ("page", "case", "shows", "pneumothorax")
SHEET_COLUMNS = ("page", "pneumothorax", "quality", "preferred", "comment")
NOT_ASKED = "-"


@dataclass(frozen=True)
class Page:
    """A row of the key.

    ``shows``: ``true`` or ``reconstructed``, or for a page of two volumes what A and B are. ``pneumothorax``: where the
    case has one, one of :data:`ANSWERS`; empty where that is not known.
    """

    page: str
    case: str
    shows: tuple[str, ...]
    pneumothorax: str


@dataclass(frozen=True)
class Sheet:
    """One reader's answers by page: ``readings`` where the pneumothorax is and the quality, ``preferences`` A or B."""

    reader: str
    readings: dict[str, tuple[str, int]]
    preferences: dict[str, str]


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a CSV that spreadsheets open."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(rows)


def read_table(path: str | Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Rows of a CSV with the numbers of their lines; comma, semicolon or tab between, as spreadsheets write it.

    Raises:
        InputError: it is no such table.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give the sheet as CSV, UTF-8") from error
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    lines = csv.reader(text.splitlines(), delimiter=delimiter)
    header = [name.strip() for name in next(lines, [])]
    if missing := [name for name in columns if name not in header]:
        raise InputError(f"{path}, line 1: no column '{missing[0]}'; keep the first line: {','.join(columns)}")
    rows = []
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(header):
            raise InputError(
                f"{path}, line {lines.line_num}: {len(cells)} cells, {len(header)} in line 1; keep to them"
            )
        cells += [""] * (len(header) - len(cells))
        rows.append((lines.line_num, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}))
    return rows


def write_key(path: Path, pages: Sequence[Page]) -> None:
    """Write the key of a study."""
    rows = [(page.page, page.case, _shows(page), page.pneumothorax) for page in pages]
    write_table(path, KEY_COLUMNS, rows)


def read_key(path: str | Path) -> dict[str, Page]:
    """The key of a study by page.

    Raises:
        InputError: it is none; the message names the line.
    """
    pages: dict[str, Page] = {}
    shown = {(source,) for source in SOURCES} | {SOURCES, SOURCES[::-1]}
    by_text = {_shows(Page("", "", shows, "")): shows for shows in shown}
    for line, row in read_table(path, KEY_COLUMNS):
        where = f"{path}, line {line}"
        _one_of(where, "shows", row["shows"], tuple(sorted(by_text)))
        _one_of(where, "pneumothorax", row["pneumothorax"].lower(), (*ANSWERS, ""))
        if row["page"] in pages:
            raise InputError(f"{where}: {row['page']} is there twice; give the key that `make` wrote")
        pages[row["page"]] = Page(row["page"], row["case"], by_text[row["shows"]], row["pneumothorax"].lower())
    if not pages:
        raise InputError(f"{path}: no pages; give the key that `make` wrote")
    return pages


def read_sheet(path: str | Path, key: dict[str, Page]) -> Sheet:
    """A filled sheet; the file's name is the reader's.

    Raises:
        InputError: an answer is missing, given twice or none of those asked for; the message names the line.
    """
    readings: dict[str, tuple[str, int]] = {}
    preferences: dict[str, str] = {}
    line_of: dict[str, int] = {}
    last = 1
    for last, row in read_table(path, SHEET_COLUMNS[:-1]):
        where, page = f"{path}, line {last}", row["page"]
        if page not in key:
            raise InputError(
                f"{where}: there is no page '{page}' in this study; give the sheet that belongs to the key"
            )
        if page in line_of:
            raise InputError(f"{where}: {page} was answered already in line {line_of[page]}; delete one of the two")
        line_of[page] = last
        if len(key[page].shows) == 2:
            preferences[page] = _one_of(where, "preferred", row["preferred"], PREFERENCES)
        else:
            found = _one_of(where, "pneumothorax", row["pneumothorax"], ANSWERS)
            readings[page] = (found, int(_one_of(where, "quality", row["quality"], QUALITIES)))
    if missing := [page for page in key if page not in line_of]:
        more = f", nor for {len(missing) - 1} more" if missing[1:] else ""
        raise InputError(f"{path}, line {last} is the last: there is no row for {missing[0]}{more}; add it")
    return Sheet(Path(path).stem, readings, preferences)


def analyse_sheets(key: dict[str, Page], sheets: Sequence[Sheet], resamples: int = 1000) -> dict[str, Any]:
    """The statistics of a study.

    A pneumothorax counts as found where the answer holds a side that has one; the absence of one where the answer is
    ``none``. Of several readers, cases are the sample and readers are these: intervals are clustered by case.

    Args:
        key: by page, see :func:`read_key`.
        sheets: one a reader, complete.
        resamples: of the bootstrap.

    Returns:
        nested plain values and :class:`Estimate`: ``readers``, ``cases``; by source (``true``, ``reconstructed``)
        ``sensitivity``, ``specificity``, ``kappa`` (between readers, of the four answers), ``quality`` with its mean,
        ``icc_2_1`` and ``icc_3_1`` and quadratic ``kappa``; ``difference`` of these, reconstructed minus true;
        ``same_answer``: kappa of each reader's two answers on a case; ``preference``: the share that prefers the
        reconstructed volume among those who prefer one.

    Raises:
        InputError: two sheets have one reader's name, or a case has not one page a source.
    """
    names = [sheet.reader for sheet in sheets]
    if not names or len(set(names)) < len(names):
        raise InputError(f"sheets of {', '.join(names) or 'nobody'}: give one sheet a reader, each under its own name")
    page_of = {(page.shows[0], page.case): page for page in key.values() if len(page.shows) == 1}
    cases = sorted({case for _, case in page_of})
    if unpaired := [(source, case) for source in SOURCES for case in cases if (source, case) not in page_of]:
        raise InputError(f"the key has no {unpaired[0][0]} page of {unpaired[0][1]}; give the key that `make` wrote")
    truth = [page_of[SOURCES[0], case].pneumothorax for case in cases]
    answers = {
        source: np.array([[sheet.readings[page_of[source, case].page] for sheet in sheets] for case in cases], object)
        for source in SOURCES
    }  # (cases, readers, 2)
    has = np.array([side not in ("", "none") for side in truth])
    has_none = np.array([side == "none" for side in truth])
    groups = {"sensitivity": has, "specificity": has_none}
    right = {
        source: np.array(
            [[_right(reading[0], side) for reading in row] for row, side in zip(answers[source], truth, strict=True)]
        )
        for source in SOURCES
    }  # (cases, readers)
    readers = len(sheets)
    result: dict[str, Any] = {"readers": names, "cases": len(cases), "with_pneumothorax": int(has.sum())}
    result["truth_unknown"] = int((~has & ~has_none).sum())
    for source in SOURCES:
        of_source = result[source] = {}
        for measure, group in groups.items():
            correct = right[source][group]
            each = {name: _counted(correct[:, n]) for n, name in enumerate(names)}
            counts = np.full(len(correct), readers)
            of_source[measure] = {"each": each, "all": clustered_proportion(correct.sum(1), counts)}
        where = [[ANSWERS.index(answer) for answer in column] for column in answers[source][..., 0].T]
        quality = answers[source][..., 1].astype(float).T  # (readers, cases)
        of_source["kappa"] = _between(where)
        of_source["quality"] = {
            "mean": _mean(quality.mean(0)),
            "icc_2_1": icc_2_1(*quality) if readers > 1 else UNKNOWN,
            "icc_3_1": icc_3_1(*quality) if readers > 1 else UNKNOWN,
            "kappa": fleiss_kappa(*quality, weights="quadratic") if readers > 1 else UNKNOWN,
        }
    result["difference"] = {
        measure: paired_difference(
            *(right[source][group].sum(1) for source in SOURCES), np.full(np.count_nonzero(group), readers)
        )
        for measure, group in groups.items()
    }
    true, made = (answers[source][..., 1].astype(float) for source in SOURCES)
    result["difference"]["quality"] = _mean((made - true).mean(1))
    true, made = (np.vectorize(ANSWERS.index)(answers[source][..., 0]) for source in SOURCES)
    result["same_answer"] = {
        "each": {name: cohen_kappa(true[:, n], made[:, n]) for n, name in enumerate(names)},
        "all": bootstrap_cases(
            lambda drawn: _mean_kappa(true[drawn], made[drawn]),
            len(cases),
            resamples=resamples,
        ),
    }
    result["preference"] = _preference(key, sheets)
    return result


def _preference(key: dict[str, Page], sheets: Sequence[Sheet]) -> dict[str, Any]:
    pairs = [page for page in key.values() if len(page.shows) == 2]
    if not pairs:
        return {}
    prefers = np.zeros((len(pairs), len(sheets)))  # 1 the reconstructed, -1 the true, 0 neither
    for n, sheet in enumerate(sheets):
        for m, page in enumerate(pairs):
            chosen = sheet.preferences[page.page]
            if chosen != "neither":
                prefers[m, n] = 1 if page.shows["AB".index(chosen)] == "reconstructed" else -1
    made, chose = prefers > 0, prefers != 0
    each = {}
    for n, sheet in enumerate(sheets):
        count, of = int(made[:, n].sum()), int(chose[:, n].sum())
        test = stats.binomtest(count, of).pvalue if of else np.nan
        each[sheet.reader] = {
            "reconstructed": count,
            "of": of,
            "neither": len(pairs) - of,
            "share": proportion(count, of, "exact"),
            "p": float(test),
        }
    return {"each": each, "all": clustered_proportion(made.sum(1), chose.sum(1))}


def _mean_kappa(true: np.ndarray, made: np.ndarray) -> float:
    """Of the readers, columns of ``(cases, readers)``; one who always gives the same answer has none."""
    kappas = [cohen_kappa(*pair).value for pair in zip(true.T, made.T, strict=True)]
    return float(np.nanmean(kappas)) if not np.isnan(kappas).all() else np.nan


def _between(columns: Sequence[Sequence[int]]) -> Estimate:
    if len(columns) < 2:
        return UNKNOWN
    return cohen_kappa(*columns) if len(columns) == 2 else fleiss_kappa(*columns)


def _counted(correct: np.ndarray) -> dict[str, Any]:
    return {"right": int(correct.sum()), "of": len(correct), "share": proportion(int(correct.sum()), len(correct))}


def _mean(of_case: np.ndarray) -> Estimate:
    """Mean of cases with Student's interval."""
    if len(of_case) < 2:
        return Estimate(float(of_case.mean()) if len(of_case) else np.nan, np.nan, np.nan)
    half = stats.t.ppf(0.975, len(of_case) - 1) * of_case.std(ddof=1) / np.sqrt(len(of_case))
    return Estimate(float(of_case.mean()), float(of_case.mean() - half), float(of_case.mean() + half))


def _right(answer: str, truth: str) -> bool:
    sides = {"none": set(), "right": {"right"}, "left": {"left"}, "both": {"right", "left"}, "": set()}
    return answer == "none" if truth == "none" else bool(sides[answer] & sides[truth])


def _one_of(where: str, column: str, answer: str, allowed: Sequence[str]) -> str:
    folded = {choice.lower(): choice for choice in allowed}
    if answer.lower() not in folded:
        said = f"is '{answer}'" if answer else "is empty"
        raise InputError(f"{where}: {column} {said}; write one of {', '.join(choice for choice in allowed if choice)}")
    return folded[answer.lower()]


def _shows(page: Page) -> str:
    return page.shows[0] if len(page.shows) == 1 else "A {}, B {}".format(*page.shows)
