"""The one family of errors that a user can cause: each message is a sentence that names the field and the remedy."""


class SteelyardError(RuntimeError):
    """Base of every error that scripts print without a traceback."""


class SlotError(SteelyardError):
    """A combination of slot occupants that makes no mathematical sense."""


def require(fine: bool, sentence: str) -> None:
    """Raises `SlotError` with the sentence if something is not fine."""
    if not fine:
        raise SlotError(sentence)


class DivergenceError(SteelyardError):
    """A loss became NaN or infinite."""
