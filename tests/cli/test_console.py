import io
import json
import math
from typing import Any

import pytest
from rich.console import Console

from edgesdk.cli.console import Answer, RichProgress, error_data, print_answer, print_error, qr_code
from edgesdk.errors import BudgetInfeasible, EdgeSDKError, TargetUnavailable, UsageError


def answer(data: dict[str, Any]) -> Answer:
    return Answer(data=data, show=lambda console: console.print(data["text"]))


def printed(data: dict[str, Any], *, as_json: bool) -> str:
    stdout = io.StringIO()
    print_answer(answer(data), stdout, as_json=as_json)
    return stdout.getvalue()


def test_an_answer_is_one_line_of_json() -> None:
    data = {"status": "ok", "text": "Größe\n[bold]:cat:", "number": 0.1, "none": None}
    text = printed(data, as_json=True)
    assert text.count("\n") == 1
    assert json.loads(text) == data


@pytest.mark.parametrize("text", ["[bold]x[/]", "out/[1]/[/x]", ":cat: file.py:cat:", "[red]"])
def test_names_and_paths_are_shown_as_they_are(text: str) -> None:
    assert printed({"text": text}, as_json=False) == f"{text}\n"


def test_a_number_that_json_does_not_have_is_never_printed() -> None:
    with pytest.raises(ValueError, match="JSON"):
        printed({"status": "ok", "text": "", "number": math.nan}, as_json=True)


def test_an_error_says_class_code_and_what_to_do() -> None:
    problem = TargetUnavailable(
        "no toolchain", expected="one", next_step="pip install it", details={"known": ["a"]}
    )
    assert error_data(problem) == {
        "status": "error",
        "error": "TargetUnavailable",
        "exit_code": 5,
        "message": "no toolchain. Expected: one. Next: pip install it.",
        "found": "no toolchain",
        "expected": "one",
        "next_step": "pip install it",
        "known": ["a"],
    }


class Result:
    def to_json(self) -> dict[str, Any]:
        return {"status": "infeasible", "binding": "latency_ms"}


def test_an_infeasible_budget_answers_with_its_result() -> None:
    found = error_data(BudgetInfeasible("nothing fits", result=Result()))
    assert found == {
        "status": "infeasible",
        "binding": "latency_ms",
        "message": "nothing fits.",
    }


def shown(problem: EdgeSDKError, *, as_json: bool, debug: bool = False) -> str:
    stdout = io.StringIO()
    print_error(error_data(problem), stdout, as_json=as_json, debug=debug)
    return stdout.getvalue()


def test_an_error_goes_to_stderr_whole_and_unwrapped(capsys: pytest.CaptureFixture[str]) -> None:
    command = "pip install 'edgesdk[executorch]' " + "x" * 100
    assert shown(UsageError("[bold]no[/] :cat:", next_step=command), as_json=False) == ""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"error: [bold]no[/] :cat:. Next: {command}.\n"


def test_an_infeasible_budget_is_not_called_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    shown(BudgetInfeasible("nothing fits", result=Result()), as_json=False)
    assert capsys.readouterr().err == "infeasible: nothing fits.\n"


def test_an_error_as_json_is_one_line_on_stdout_only(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(UsageError("no"), as_json=True)
    assert text.count("\n") == 1
    assert json.loads(text)["error"] == "UsageError"
    assert capsys.readouterr() == ("", "")


def test_a_traceback_is_shown_when_it_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise UsageError("no")
    except UsageError as problem:
        json.loads(shown(problem, as_json=True, debug=True))
        assert "Traceback" in capsys.readouterr().err
        shown(problem, as_json=True, debug=False)
        assert "Traceback" not in capsys.readouterr().err


def test_progress_is_plain_lines_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with RichProgress(quiet=False) as progress:
        progress.step("Tracing [x]")
        progress.advance(1, 3, "note")
        progress.step("Emitting")
    assert capsys.readouterr() == ("", "Tracing [x]\nEmitting\n")


def test_progress_is_silent_when_it_was_asked_to(capsys: pytest.CaptureFixture[str]) -> None:
    with RichProgress(quiet=True) as progress:
        progress.step("Tracing")
        progress.advance(1, 3)
    assert capsys.readouterr() == ("", "")


def test_progress_lives_and_leaves_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    terminal = Console(file=drawn, force_terminal=True, width=100)
    monkeypatch.setattr("edgesdk.cli.console.Console", lambda **_: terminal)
    with RichProgress(quiet=False) as progress:
        progress.step("Emitting")
        progress.advance(1, 3, "halfway [x]")
    assert "Emitting" in drawn.getvalue()
    assert "halfway" in drawn.getvalue()


ADDRESS = "http://192.0.2.7:40000/token_of-32_characters-as-it-is.../#bench=wasm&sustained=0&send"


@pytest.mark.parametrize("quiet", [True, False])
def test_an_address_is_one_plain_line_where_nobody_scans(
    quiet: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with RichProgress(quiet=quiet) as shown:
        shown.show_address(ADDRESS, is_for_phones=True)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"{ADDRESS}\n")


def test_a_code_is_square_with_its_quiet_zone() -> None:
    lines = qr_code(ADDRESS).plain.split("\n")
    width = len(lines[0])
    assert {len(line) for line in lines} == {width}
    assert len(lines) == (width + 1) // 2
    assert set("".join(lines)) <= set(" ▀▄█")
    assert not lines[0].strip()
    assert not lines[1].strip()
    assert all(line[:4].strip() == line[-4:].strip() == "" for line in lines)
    # The finder pattern's corner of seven modules, two rows of modules a line.
    assert [line[4:11] for line in lines[2:6]] == ["█▀▀▀▀▀█", "█ ███ █", "█ ▀▀▀ █", "▀▀▀▀▀▀▀"]
