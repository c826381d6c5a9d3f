"""How scripts end."""

from collections.abc import Callable

import pytest

from steelyard.agents.errors import SteelyardError
from steelyard.trainers.errors import run_script


def failing(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (SteelyardError("the task `x` is unknown;\n   try another."), "error: the task `x` is unknown; try another.\n"),
        (FileNotFoundError(2, "No such file or directory", "a/b"), "error: No such file or directory: a/b\n"),
        (OSError(28, "No space left on device"), "error: [Errno 28] No space left on device\n"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_one(error: Exception, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_script(failing(error))
    assert end.value.code == 1
    assert capsys.readouterr().err == sentence


def test_interrupt_exits_as_shells_expect() -> None:
    with pytest.raises(SystemExit) as end:
        run_script(failing(KeyboardInterrupt()))
    assert end.value.code == 130


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_script(failing(ZeroDivisionError()))


def test_traceback_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEELYARD_TRACEBACK", "1")
    with pytest.raises(SteelyardError):
        run_script(failing(SteelyardError("x")))


def test_success_returns() -> None:
    run_script(lambda: None)
