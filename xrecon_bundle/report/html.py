"""The written report: one self-contained HTML file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure

from ..files import atomic_path


@dataclass
class CasePanel:
    """One case of the report: its name, a picture (data URI, see :func:`figure_uri`), what was measured, and the
    address of its page, if it has one."""

    name: str
    picture: str
    values: dict[str, Any] = field(default_factory=dict)
    page: str = ""


def figure_uri(figure: Figure, dpi: int = 80) -> str:
    """The figure as an inline JPEG, so that a report is one file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=dpi, facecolor=figure.get_facecolor(), pil_kwargs={"quality": 88})
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def write_report(
    path: str | Path,
    title: str,
    introduction: Sequence[str],
    tables: Sequence[dict[str, Any]],
    panels: Sequence[CasePanel],
    plots: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the report to ``path``, atomically.

    Args:
        path: HTML file.
        title: heading.
        introduction: paragraphs under the heading.
        tables: each ``{"caption", "header": [str], "rows": [[str]], "note"}``.
        panels: the cases, in the order in which they are shown.
        plots: pairs of caption and data URI, shown between the tables and the cases.
    """
    environment = Environment(loader=PackageLoader("xrecon_bundle.report"), autoescape=True)
    html = environment.get_template("report.html.j2").render(
        title=title, introduction=introduction, tables=tables, panels=panels, plots=plots
    )
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
