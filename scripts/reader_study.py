"""A study with readers: blinded pages, score sheets, and the statistics of the filled ones. See docs/reader-study.md.

python scripts/reader_study.py analyse KEY SHEET [SHEET ...] --output_dir RESULTS
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import fire
from reader_analysis import SOURCES, analyse_sheets, read_key, read_sheet

from xrecon_bundle.files import InputError, atomic_path, check_writable, write_json
from xrecon_bundle.metrics.agreement import Estimate

RESULTS = ("analysis.json", "analysis.md")


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
    try:
        fire.Fire({"analyse": analyse}, arguments, name="reader_study")
    except InputError as error:
        sys.exit(f"reader_study: error: {error}")


if __name__ == "__main__":
    main()
