"""Functions as one compiled graph."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

RECOMPILE_LIMIT = 256
"""Graphs that one function may have in a process: one per agent and pattern of what is due."""


def one_graph(function: Callable[..., Result]) -> Callable[..., Result]:
    """The function as one compiled graph for each pattern of its arguments.

    A kernel that a killed process left half-written in the compiler's cache is compiled anew.
    """
    import torch._dynamo.config  # here, because it takes seconds that an eager agent should not pay

    # Every agent of a process adds graphs to the same code object, and the limit counts them together.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    graph = torch.compile(function, fullgraph=True, dynamic=False)  # pyright: ignore[reportUnknownMemberType]

    @wraps(function)
    def run(*arguments: Any) -> Result:
        while True:
            try:
                return graph(*arguments)
            except RuntimeError as error:
                if not removed_torn_kernel(error):
                    raise

    return run


def removed_torn_kernel(error: RuntimeError) -> bool:
    """Whether compilation failed because a library in the compiler's cache cannot be loaded, which is then deleted.

    The linker writes such a file in place. Killed meanwhile it leaves a piece of it, at which every later process would stop.
    """
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    cause = getattr(error, "inner_exception", None)
    if not isinstance(cause, ImportError | OSError):
        return False
    library = Path(str(cause).partition(": ")[0])
    if library.suffix != ".so" or not library.is_relative_to(cache_dir()) or not library.exists():
        return False
    library.unlink()
    return True
