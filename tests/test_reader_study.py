"""The kit for readers: sheets that cannot be used, and simulated readers whose known values are found again."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import re
import sys
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage, stats

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import reader_study
from reader_analysis import SHEET_COLUMNS, Page, Sheet, analyse_sheets, read_key, read_sheet, write_key, write_table

from xrecon_bundle.datasets.cases import write_case
from xrecon_bundle.files import InputError, write_nifti
from xrecon_bundle.frame import cube_affine

KEY = [
    Page("page-001", "a", ("true",), "right"),
    Page("page-002", "b", ("reconstructed",), "none"),
    Page("page-003", "b", ("true",), "none"),
    Page("page-004", "a", ("reconstructed",), "right"),
    Page("pair-01", "a", ("reconstructed", "true"), "right"),
    Page("pair-02", "b", ("true", "reconstructed"), "none"),
]
FILLED = [
    ["page-004", "left", "2", "-", ""],
    ["page-001", "right", "5", "-", "small, at the apex"],
    ["page-003", "none", "4", "-", ""],
    ["page-002", "none", "3", "-", ""],
    ["pair-02", "-", "-", "A", ""],
    ["pair-01", "-", "-", "neither", ""],
]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    write_key(tmp_path / "key.csv", KEY)
    return tmp_path / "key.csv"


def _sheet(path: Path, rows: list[list[str]] = FILLED) -> Path:
    write_table(path, SHEET_COLUMNS, rows)
    return path


def test_the_key_is_read_as_it_was_written(key: Path) -> None:
    assert list(read_key(key).values()) == KEY


def test_analysis_of_one_sheet_by_hand(key: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    reader_study.main(["analyse", str(key), str(_sheet(tmp_path / "anna.csv")), "--output_dir", str(tmp_path / "out")])
    result = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert result["readers"] == ["anna"]
    assert (result["cases"], result["with_pneumothorax"], result["truth_unknown"]) == (2, 1, 0)
    found = {source: result[source]["sensitivity"]["each"]["anna"] for source in ("true", "reconstructed")}
    assert (found["true"]["right"], found["true"]["of"]) == (1, 1)
    assert (found["reconstructed"]["right"], found["reconstructed"]["of"]) == (0, 1)  # the wrong side is not found
    assert result["reconstructed"]["specificity"]["all"]["value"] == 1
    assert result["difference"]["sensitivity"]["value"] == -1
    assert result["difference"]["quality"]["value"] == pytest.approx(-2)
    assert result["true"]["kappa"]["value"] is None  # one reader agrees with nobody
    preference = result["preference"]["each"]["anna"]
    assert (preference["reconstructed"], preference["of"], preference["neither"]) == (0, 1, 1)
    assert (tmp_path / "out" / "analysis.md").read_text() in capsys.readouterr().out


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_sheets_as_spreadsheets_save_them(delimiter: str, key: Path, tmp_path: Path) -> None:
    plain = read_sheet(_sheet(tmp_path / "reader.csv"), read_key(key))
    lines = [
        list(SHEET_COLUMNS),
        *([cell.upper() if cell in ("none", "left") else cell for cell in row] for row in FILLED),
    ]
    text = "\r\n".join(delimiter.join(f'"{cell}"' for cell in line) for line in [*lines, [""] * 5]) + "\r\n"
    (tmp_path / "excel").mkdir()
    (tmp_path / "excel" / "reader.csv").write_bytes(text.encode("utf-8-sig"))
    assert read_sheet(tmp_path / "excel" / "reader.csv", read_key(key)) == plain


def _changed(row: int, column: int, answer: str) -> list[list[str]]:
    rows = [list(one) for one in FILLED]
    rows[row][column] = answer
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (_changed(0, 1, ""), r"line 2: pneumothorax is empty; write one of none, right, left, both"),
        (_changed(1, 1, "yes"), r"line 3: pneumothorax is 'yes'; write one of none, right, left, both"),
        (_changed(2, 2, "6"), r"line 4: quality is '6'; write one of 1, 2, 3, 4, 5"),
        (_changed(2, 2, "3.5"), r"line 4: quality is '3\.5'"),
        (_changed(4, 3, "-"), r"line 6: preferred is '-'; write one of A, B, neither"),
        (_changed(3, 0, "page-009"), r"line 5: there is no page 'page-009' in this study"),
        ([*FILLED, FILLED[2]], r"line 8: page-003 was answered already in line 4; delete one"),
        (FILLED[:4], r"line 5 is the last: there is no row for pair-01, nor for 1 more; add it"),
        ([], r"line 1 is the last: there is no row for page-001, nor for 5 more"),
        ([[*FILLED[0], "one", "more"]], r"line 2: 7 cells, 5 in line 1"),
    ],
)
def test_bad_sheets_are_refused_with_the_line(rows: list[list[str]], message: str, key: Path, tmp_path: Path) -> None:
    sheet = _sheet(tmp_path / "reader.csv", rows)
    with pytest.raises(SystemExit, match=message) as caught:
        reader_study.main(["analyse", str(key), str(sheet), "--output_dir", str(tmp_path / "out")])
    assert str(sheet) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"page,case\n", "line 1: no column 'pneumothorax'"),
        (b"", "line 1: no column 'page'"),
        (b"\xff\xfe\x00page", "cannot be read"),
    ],
)
def test_files_that_are_no_sheet(content: bytes, message: str, key: Path, tmp_path: Path) -> None:
    (tmp_path / "reader.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_sheet(tmp_path / "reader.csv", read_key(key))


def test_one_reader_has_one_sheet(key: Path, tmp_path: Path) -> None:
    sheet = read_sheet(_sheet(tmp_path / "anna.csv"), read_key(key))
    with pytest.raises(InputError, match="one sheet a reader"):
        analyse_sheets(read_key(key), [sheet, sheet])


# Simulated readers. On true volumes they find 95 % and leave 90 % of the healthy alone, on reconstructed ones 75 % and
# 85 %; how hard a case is, is shared (probit scores correlate by 0.3). Quality: variance 1 between cases, 0.5 within.
RATES = {"true": (0.95, 0.90), "reconstructed": (0.75, 0.85)}
PREFERS = 0.3


def _study(generator: np.random.Generator, cases: int = 40, readers: int = 3) -> tuple[dict[str, Page], list[Sheet]]:
    truth = ["right" if number < cases // 2 else "none" for number in range(cases)]
    hard, quality = generator.standard_normal((2, cases, 1))
    pages: list[Page] = []
    readings: list[dict] = [{} for _ in range(readers)]
    preferences: list[dict] = [{} for _ in range(readers)]
    for source, rates in RATES.items():
        limits = stats.norm.ppf([rates[side == "none"] for side in truth])[:, None]
        correct = np.sqrt(0.3) * hard + np.sqrt(0.7) * generator.standard_normal((cases, readers)) < limits
        scores = quality + np.sqrt(0.5) * generator.standard_normal((cases, readers))
        for case, side in enumerate(truth):
            pages.append(Page(f"{source}-{case}", f"case-{case}", (source,), side))
            for answers, right, score in zip(readings, correct[case], scores[case], strict=True):
                answer = side if right else "left" if side == "none" else "none"
                answers[pages[-1].page] = (answer, round(score, 1))
    for case, side in enumerate(truth):
        pages.append(Page(f"pair-{case}", f"case-{case}", ("true", "reconstructed"), side))
        for answers in preferences:
            answers[pages[-1].page] = "B" if generator.random() < PREFERS else "A"
    sheets = [Sheet(f"reader-{n}", readings[n], preferences[n]) for n in range(readers)]
    return {page.page: page for page in pages}, sheets


@pytest.fixture(scope="module")
def studies() -> list[dict]:
    generator = np.random.default_rng(0)
    return [analyse_sheets(*_study(generator), resamples=2) for _ in range(100)]


EXPECTED = {
    **{
        (source, name, "all"): RATES[source][n]
        for source in RATES
        for n, name in enumerate(("sensitivity", "specificity"))
    },
    ("difference", "sensitivity"): -0.20,
    ("difference", "specificity"): -0.05,
    ("difference", "quality"): 0.0,
    ("true", "quality", "icc_2_1"): 1 / 1.5,
    ("reconstructed", "quality", "icc_3_1"): 1 / 1.5,
    ("preference", "all"): PREFERS,
    ("true", "sensitivity", "each", "reader-1", "share"): 0.95,
    ("preference", "each", "reader-0", "share"): PREFERS,
}


@pytest.mark.parametrize("path", EXPECTED, ids=" ".join)
def test_simulated_readers_are_found_again(path: tuple[str, ...], studies: list[dict]) -> None:
    """In about 95 of 100 studies the interval holds the known value, and the values scatter around it."""
    estimates = []
    for study in studies:
        for name in path:
            study = study[name]
        estimates.append(study)
    held = np.mean([one.low <= EXPECTED[path] <= one.high for one in estimates])
    assert held >= 0.88
    values = [one.value for one in estimates]
    assert np.mean(values) == pytest.approx(EXPECTED[path], abs=4 * np.std(values) / np.sqrt(len(values)))


def test_kappa_of_simulated_readers_is_found_again() -> None:
    """What they agree on in 1500 cases lies in nearly all intervals of studies of 60."""
    generator = np.random.default_rng(1)
    large = analyse_sheets(*_study(generator, cases=1500), resamples=2)
    held = {"kappa": [], "same": []}
    for _ in range(40):
        study = analyse_sheets(*_study(generator, cases=60), resamples=40)
        interval, same = study["true"]["kappa"], study["same_answer"]["all"]
        held["kappa"].append(interval.low <= large["true"]["kappa"].value <= interval.high)
        held["same"].append(same.low <= large["same_answer"]["all"].value <= same.high)
    assert np.mean(held["kappa"]) >= 0.85
    assert np.mean(held["same"]) >= 0.85


EDGE = 32
TRUTHS = {"anna": ("left", 4), "berta": ("none", 0), "carla": ("both", 0)}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients, noisy true CTs and smooth reconstructions that stand elsewhere; and the study made of them."""
    folder = tmp_path_factory.mktemp("reader_study")
    generator = np.random.default_rng(0)
    for name, (side, _) in TRUTHS.items():
        hu = generator.normal(-200, 900, (EDGE,) * 3)
        labels = np.ones((EDGE,) * 3, np.uint8)
        labels[EDGE // 2 :] = 2
        for half, (has, label) in enumerate((("right", 3), ("left", 4))):
            if side in (has, "both"):
                labels[half * EDGE // 2 :][: EDGE // 4] = label
        write_case(folder / "data" / name, hu, cube_affine(EDGE, (5, -170, -200)), labels)
        (folder / "made" / name).mkdir(parents=True)
        smooth = ndimage.gaussian_filter(hu, 3).astype(np.float64)
        write_nifti(folder / "made" / name / "ct.nii.gz", smooth, cube_affine(EDGE))
    _make(folder, "study", seed=1)
    return folder


def _make(folder: Path, output: str, **options: object) -> None:
    reader_study.make(str(folder / "data"), str(folder / "made"), str(folder / output), readers=2, **options)


def _pages(study: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in sorted((study / "study/for_readers/pages").glob("page-*.html"))}


def _volume(text: str) -> bytes:
    """The NIfTI in a page: of all runs of base64, the one that is a gzip file."""
    for run in re.findall(r"H4sI[A-Za-z0-9+/=]{1000,}", text):
        return gzip.decompress(base64.b64decode(run))
    raise AssertionError("no volume in the page")


def test_each_volume_has_one_page_and_the_key_says_which(study: Path) -> None:
    key = read_key(study / "study" / "key" / "key.csv")
    volumes = {name: nibabel.Nifti1Image.from_bytes(_volume(text)) for name, text in _pages(study).items()}
    single = [page for page in key.values() if len(page.shows) == 1]
    assert sorted((page.case, *page.shows) for page in single) == sorted(
        (case, source) for case in TRUTHS for source in ("true", "reconstructed")
    )
    for page in single:
        place = {"true": "data", "reconstructed": "made"}[page.shows[0]]
        expected = nibabel.load(study / place / page.case / "ct.nii.gz").get_fdata().clip(-1024, 1476)
        assert np.abs(volumes[page.page].get_fdata() - expected).max() < 0.501
    assert {page.case: page.pneumothorax for page in key.values()} == {name: one[0] for name, one in TRUTHS.items()}
    pairs = [page for page in key.values() if len(page.shows) == 2]
    assert sorted(page.case for page in pairs) == sorted(TRUTHS)
    for pair in pairs:
        text = (study / "study/for_readers/pages" / f"{pair.page}.html").read_text()
        shown = re.findall(r'src="(page-[0-9]+)\.html"', text)
        assert [(key[page].case, key[page].shows[0]) for page in shown] == [(pair.case, one) for one in pair.shows]


def test_nothing_but_the_volume_tells_a_page_from_another(study: Path) -> None:
    pages = _pages(study)
    rest, headers = set(), set()
    for name, text in pages.items():
        shown, _, filler = text.rpartition("<!--")
        assert re.fullmatch(r"[A-Za-z0-9+/=]*-->\n", filler)
        rest.add(re.sub(r"[A-Za-z0-9+/=]{1000,}", "", shown).replace(name, ""))
        headers.add(_volume(text)[:352])
    assert len(rest) == len(headers) == 1
    files = [path for path in (study / "study/for_readers").rglob("*")]
    assert len({path.stat().st_mtime for path in files}) == 1
    sizes = [len(text.encode()) for text in pages.values()]
    assert max(sizes) == min(sizes)
    compressed = [len(zlib.compress(text.encode())) for text in pages.values()]
    assert max(compressed) < 1.01 * min(compressed)


def test_the_readers_folder_names_no_patient_and_no_source(study: Path) -> None:
    for path in (study / "study/for_readers").rglob("*"):
        text = re.sub(r"[A-Za-z0-9+/=]{1000,}", "", path.read_text()) if path.is_file() else ""
        for word in (*TRUTHS, str(study), "reconstructed"):
            assert word not in path.name
            assert word not in text, f"{path.name} names {word}"


def test_each_reader_has_an_order_of_their_own(study: Path) -> None:
    orders = []
    for path in sorted((study / "study/for_readers").glob("reader-*.csv")):
        with open(path, newline="") as file:
            orders.append([row["page"] for row in csv.DictReader(file)])
    assert len(orders) == 2
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(read_key(study / "study/key/key.csv"))
    assert all(order[-3:] == [page for page in order if page.startswith("pair")] for order in orders)


def test_the_same_seed_draws_the_same_lots(study: Path) -> None:
    _make(study, "again", seed=1)
    _make(study, "other", seed=2, pairs=False)
    files = [path.relative_to(study / "study") for path in (study / "study").rglob("*") if path.is_file()]
    for path in files:
        assert (study / "again" / path).read_bytes() == (study / "study" / path).read_bytes(), path
    assert (study / "other/key/key.csv").read_text() != (study / "study/key/key.csv").read_text()
    assert not list((study / "other").rglob("pair*"))


def test_a_study_from_its_pages_to_its_analysis(study: Path, tmp_path: Path) -> None:
    """A reader who sees every pneumothorax in the true volumes and none in the others, and prefers the true."""
    key = read_key(study / "study/key/key.csv")
    sheets = []
    for number in (1, 2):
        with open(study / f"study/for_readers/reader-{number}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            page = key[row["page"]]
            if len(page.shows) == 2:
                row["preferred"] = "AB"[page.shows.index("true")]
            else:
                seen = page.shows[0] == "true"
                row |= {"pneumothorax": page.pneumothorax if seen else "none", "quality": "5" if seen else "2"}
        sheets.append(tmp_path / f"filled-{number}.csv")
        write_table(sheets[-1], list(rows[0]), [list(row.values()) for row in rows])
    files = [str(study / "study/key/key.csv"), *map(str, sheets)]
    reader_study.main(["analyse", *files, "--output_dir", str(tmp_path / "out")])
    result = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert [result[source]["sensitivity"]["all"]["value"] for source in ("true", "reconstructed")] == [1, 0]
    assert [result[source]["specificity"]["all"]["value"] for source in ("true", "reconstructed")] == [1, 1]
    assert result["difference"]["quality"]["value"] == -3
    assert result["preference"]["all"]["value"] == 0
    assert result["true"]["kappa"]["value"] == 1


def test_a_study_that_cannot_be_made_is_one_line(study: Path, tmp_path: Path) -> None:
    write_nifti(tmp_path / "anna" / "ct.nii.gz", np.zeros((16,) * 3, np.int16), cube_affine(16))
    for arguments, message in (
        (("data", str(study / "made"), str(study / "study")), "exists already"),
        (("data", str(tmp_path), str(tmp_path / "out")), "voxels"),
        (("data", str(tmp_path / "no"), str(tmp_path / "out")), "no reconstruction of anna"),
        (("made", str(study / "made"), str(tmp_path / "out")), "no case in this folder"),
    ):
        with pytest.raises(SystemExit, match=message):
            reader_study.main(
                ["make", str(study / arguments[0]), "--reconstructed", arguments[1], "--output_dir", arguments[2]]
            )
    assert not (tmp_path / "out").exists()
