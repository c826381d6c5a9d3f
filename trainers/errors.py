"""How a script ends when something went wrong: one sentence instead of a traceback."""

import os
import sys
from collections.abc import Callable

from steelyard.agents.errors import SteelyardError

TRACEBACK_VARIABLE = "STEELYARD_TRACEBACK"
"""Environment variable: set it to 1 and scripts show the whole traceback of an error instead of its sentence."""


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; a mistake of the user's prints `error: <sentence>` to stderr and exits with 1.

    Caught are the suite's own errors (`SteelyardError`: environments, replay, checkpoints, configs, logs, ...) and what the
    machine refuses (`OSError`: no such file, no permission, disk full). Ctrl-C exits with 130, as shells expect. Every other
    exception is a bug and passes through with its traceback; `STEELYARD_TRACEBACK=1` shows the traceback of all of them.
    """
    if os.environ.get(TRACEBACK_VARIABLE) == "1":
        main()
        return
    try:
        main()
    except SteelyardError as error:
        sentence = str(error)
    except OSError as error:
        sentence = f"{error.strerror}: {error.filename}" if error.filename else str(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    else:
        return
    print(f"error: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(1)
