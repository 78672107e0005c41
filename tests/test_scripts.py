"""The scripts' command lines: a mistyped option is told before the work, not after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from xrecon_bundle.cli import start
from xrecon_bundle.files import InputError

ROOT = Path(__file__).parents[1]


def test_no_script_lets_fire_call_a_function_itself() -> None:
    found = {path.name for path in (ROOT / "scripts").rglob("*.py") if "fire.Fire(" in path.read_text()}
    assert found == set()


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a", "--sizes", "3"], "--sizes; did you mean --size?"),
        (["a", "b"], "'b' is not expected: it is one too many, or lacks the name of its option (--help lists all)"),
        (["--name", "a", "b"], "'b' is not expected"),
        (["a", "--size", "2", "--size", "3"], "--size is given twice"),
        (["--nam", "a"], "--nam; did you mean --name?"),
        (["a", "--size=2", "--verbose"], "there is no --verbose (--help lists all)"),
        ([], "missing: name (--help"),
        (["--size", "2"], "missing: name (--help"),
    ],
)
def test_what_is_mistyped_is_told_before_anything_runs(single: bool, arguments: list[str], said: str) -> None:
    calls = []

    def work(name: str, *, size: int = 1) -> None:
        calls.append((name, size))

    with pytest.raises(SystemExit) as caught:
        start(work if single else {"work": work}, arguments if single else ["work", *arguments], "tool")
    assert calls == []
    assert said in str(caught.value.code)


@pytest.mark.parametrize("single", [True, False])
def test_what_is_right_runs_once_with_its_values(single: bool) -> None:
    calls = []

    def work(name: str, *rest: int, size: int = 1) -> None:
        calls.append((name, rest, size))

    start(work if single else {"work": work}, ["work"] * (not single) + ["a", "2", "3", "--size", "4"], "tool")
    assert calls == [("a", (2, 3), 4)]


def test_bad_input_is_one_line_with_the_programs_name() -> None:
    def work() -> None:
        raise InputError("ct.nii.gz: missing; give another")

    with pytest.raises(SystemExit, match=r"^tool: error: ct.nii.gz: missing; give another$"):
        start(work, [], "tool")
