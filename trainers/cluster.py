"""Joining a Ray cluster, or starting Ray on this machine: the extra `cluster`."""

import contextlib
import importlib
import math
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from steelyard.agents.errors import SteelyardError

ANSWER = 10.0
"""Seconds that the address of a cluster has to answer."""


class ClusterError(SteelyardError):
    """There is no Ray, no cluster or no place in it. The message is one sentence with the remedy."""


class Cluster:
    """A connection to Ray. Ray that was started or joined here is left by `close`; one that was there before stays."""

    def __init__(self, address: str = "", cpus: float = 0.0):
        """Join the cluster at `address` (host:port, `auto`, or the variable RAY_ADDRESS); without one start Ray on this machine.

        `cpus`: what will be asked for at the same time; Ray on this machine offers at least so many, however many cores there are.
        Raises `ClusterError` if Ray is not installed, does not start, or the address does not answer.
        """
        self.ray = require_ray()
        self.own = not self.ray.is_initialized()
        address = address or os.environ.get("RAY_ADDRESS", "")
        self.embedded = self.own and not address
        """Whether Ray was started here, so that no other machine can come to it."""
        if not self.own:
            return
        options: dict[str, Any] = {"address": address}
        if address:
            require_answer(address)
        else:
            options = {"address": "local", "include_dashboard": False}
            options["num_cpus"] = max(math.ceil(cpus), os.cpu_count() or 1)
        try:
            with own_signals():
                self.ray.init(log_to_driver=False, logging_level="ERROR", **options)
        except Exception as error:  # Ray raises the bare class where a node is too slow to start
            place = f"the Ray cluster at {address}" if address else "Ray on this machine"
            raise ClusterError(f"{place} cannot be used ({first_line(error)}); look at `ray status` there.") from error

    def largest(self) -> tuple[int, float, float]:
        """Living machines, and the most CPUs and GPUs that one of them has."""
        found = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        most = [max((each.get(name, 0.0) for each in found), default=0.0) for name in ("CPU", "GPU")]
        return len(found), most[0], most[1]

    def shortage(self, cpus: float, gpus: float = 0.0) -> str:
        """What is asked for and what there is: the middle of a sentence."""
        machines, most_cpus, most_gpus = self.largest()
        wanted = f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        there = f"{most_cpus:g} CPUs" + (f" and {most_gpus:g} GPUs" if gpus else "")
        return (
            f"each asks for {wanted}, and the cluster has {machines} machine{'s' * (machines != 1)} with at most {there}; "
            "add machines, or ask for less"
        )

    def close(self) -> None:
        """Leave the cluster, or end Ray if it was started here."""
        if self.own and self.ray.is_initialized():
            self.ray.shutdown()


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Leaves the handlers of Ctrl-C and SIGTERM as they are: Ray puts one in their place that ends the process without a checkpoint."""
    main = threading.current_thread() is threading.main_thread()
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def require_ray() -> Any:
    """The module `ray`. Raises `ClusterError` if it is not installed."""
    # Before the import: Ray reports its use over the network unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError:
        raise ClusterError("actors and sweeps on a cluster need Ray; install it: pip install 'steelyard[cluster]'.") from None


def require_answer(address: str) -> None:
    """Raises `ClusterError` unless somebody listens at host:port: Ray itself waits for minutes and then ends the process."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise ClusterError(
            f"the address {address!r} is no host:port; give that of the cluster's head, such as 10.0.0.1:6379, or auto."
        )
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({error}); start its head with `ray start --head`, or correct --address."
        ) from None


def first_line(error: BaseException) -> str:
    """What an exception says, shortened to its first line and without a full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
