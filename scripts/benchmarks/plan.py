"""What is measured: tables of rows, each of which is one process."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

TableName = Literal["sac", "simba", "end_to_end", "offline", "minatar", "model", "pixels", "envs", "worlds", "replay", "training"]
Library = Literal["steelyard", "sb3", "sbx", "d3rlpy", "mbrl"]


class Peer(NamedTuple):
    """A library that the suite is measured beside."""

    name: str
    """What it is called."""
    distribution: str
    """What it is called where packages are installed from."""
    install: tuple[str, ...]
    """What follows `pip install`, once or several times."""
    tables: tuple[TableName, ...]
    """Where it is measured."""


PEERS: dict[Library, Peer] = {
    "sb3": Peer("Stable-Baselines3", "stable-baselines3", ("stable-baselines3",), ("sac", "simba", "end_to_end")),
    "sbx": Peer("SBX", "sbx-rl", ("sbx-rl",), ("sac", "end_to_end")),
    "d3rlpy": Peer("d3rlpy", "d3rlpy", ("d3rlpy",), ("offline",)),
    # It asks for a Gymnasium of 2022 and a Hydra that Python 3.11 cannot import, and works with today's.
    "mbrl": Peer("mbrl-lib", "mbrl", ("hydra-core termcolor tqdm", "--no-deps mbrl"), ("model",)),
}
"""Peers."""

RELEASED_SIMBA_V2 = {1: 15.9 / 146, 2: 7.8 / 146}
"""Updates/s of SimbaV2's released JAX code with one and two critics, in units of Stable-Baselines3's SAC of the table `sac`.

That code is no package that can be installed, so it was measured once, beside Stable-Baselines3, on two quiet cores."""

TITLES: dict[TableName, tuple[str, str]] = {
    "sac": ("SAC, two hidden layers of 256, batch 256, observation 17, action 6", "updates/s"),
    "simba": ("SimbaV2 at its published size (actor 128 x 1, critic 512 x 2), batch 256, observation 17, action 6", "updates/s"),
    "end_to_end": ("HalfCheetah-v5 end to end, SAC, one update per environment step", "environment steps/s"),
    "offline": ("Offline agents, two hidden layers of 256, batch 256, observation 17, action 6, sampling included", "updates/s"),
    "minatar": ("MinAtar: M-DQN with variance weights and without, batch 32; the games alone", "updates/s, environment steps/s"),
    "model": (
        "Dynamics ensembles, seven members of 4 x 200, observation 17, action 6",
        "rows/s of members, imagined transitions/s",
    ),
    "pixels": (
        "DrQ-v2, pictures of 48 x 48 (16 channels, batch 64) and 84 x 84 (32 channels, batch 256), sampling included; rendering alone",
        "updates/s, frames/s",
    ),
    "envs": ("HalfCheetah-v5, stepping alone", "environment steps/s"),
    "worlds": (
        "Many worlds at once: random actions, observations, rewards and resets included, but for the bare engine",
        "environment steps/s",
    ),
    "replay": ("Replay of a million transitions, observation 17, action 6", "transitions/s"),
    "training": (
        "cheetah-run on the learner's device from end to end; on a GPU also updates alone",
        "environment steps/s, updates/s",
    ),
}


PLAIN_UPDATE = "plain update"
"""The same update as modules, optimisers and `backward`, without compilation."""
PLAIN_LOOP = "plain loop"
"""The same model as modules of their own, one after the other."""
OFFLINE = ("td3-bc", "iql", "awac", "cql")
"""Agents of the table `offline`."""


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    table: TableName
    """The table that it belongs to."""
    label: str
    """What is measured."""
    threads: int
    """Threads that its process may use."""
    options: dict[str, Any] = field(default_factory=dict)
    """What its process is built from."""
    library: Library = "steelyard"
    """Whose code runs."""
    group: str = ""
    """Rows of a table that are next to each other and of one group are measured side by side; all their processes are in memory at once.
    Those on a GPU compile for minutes and are mostly groups of their own, so that what was measured is kept after each."""

    @property
    def on_gpu(self) -> bool:
        """Whether it is measured on a GPU."""
        return self.options.get("device") == "cuda"


def plan(threads: tuple[int, ...], precisions: tuple[str, ...], cuda: bool, peers: tuple[Library, ...]) -> list[Row]:
    """All rows, for these numbers of threads and precisions on the CPU, and for these peers."""
    rows: list[Row] = []
    for count in threads:
        for precision in precisions:
            compiled = {"compile": True, "precision": precision}
            eager = {"compile": False, "precision": precision}
            rows += [
                Row("sac", f"eager, {precision}", count, {"kind": "updates", "preset": "sac", "critics": 2, **eager}),
                Row("sac", f"compiled, {precision}", count, {"kind": "updates", "preset": "sac", "critics": 2, **compiled}),
                Row(
                    "simba",
                    f"one critic, {precision}",
                    count,
                    {"kind": "updates", "preset": "simba-v2", "critics": 1, **compiled},
                ),
                Row(
                    "simba",
                    f"two critics, {precision}",
                    count,
                    {"kind": "updates", "preset": "simba-v2", "critics": 2, **compiled},
                ),
                Row("end_to_end", f"compiled, {precision}", count, {"kind": "end_to_end", **compiled}),
            ]
    rows += offline(threads, precisions, cuda, "d3rlpy" in peers)
    if cuda:
        for precision in ("fp32", "bf16"):
            on_gpu = {"kind": "updates", "compile": True, "precision": precision, "device": "cuda"}
            rows += [
                Row("sac", f"GPU, {precision}", 1, {"preset": "sac", "critics": 2, **on_gpu}),
                Row("simba", f"GPU, one critic, {precision}", 1, {"preset": "simba-v2", "critics": 1, **on_gpu}),
                Row("simba", f"GPU, two critics, {precision}", 1, {"preset": "simba-v2", "critics": 2, **on_gpu}),
            ]
    rows += minatar(threads, precisions, cuda)
    rows += models(threads, precisions, cuda, "mbrl" in peers)
    rows += pixels(threads, cuda)
    for vectorization, num_envs in (("sync", 1), ("sync", 8), ("async", 8), ("batch", 64)):
        used = max(threads) if vectorization == "batch" else 1
        options = {"kind": "stepping", "vectorization": vectorization, "num_envs": num_envs}
        rows.append(Row("envs", f"{vectorization}, {num_envs} world{'s' * (num_envs > 1)}", used, options))
    rows += worlds(threads, cuda)
    rows += replay()
    rows += training(cuda)
    actor_critic: dict[TableName, tuple[str, str]] = {
        "sac": ("updates", "as it is"),
        "simba": ("updates", "SAC as above, the yardstick"),
        "end_to_end": ("end_to_end", "as it is"),
    }
    for library in peers:
        for count in threads:
            rows += [
                Row(table, label, count, {"kind": kind, "library": library}, library)
                for table, (kind, label) in actor_critic.items()
                if table in PEERS[library].tables
            ]
    return [replace(row, group=row.group or row.label) if row.on_gpu else row for row in rows]


def gpu_alone(rows: list[Row]) -> list[Row]:
    """Those of a table's rows that run on a GPU; all of them where none does."""
    return [row for row in rows if row.on_gpu] or rows


def uncompiled(rows: list[Row]) -> list[Row]:
    """The same rows with eager updates, each once, and those on a GPU left out whose updates would be compiled."""
    found: list[Row] = []
    for row in rows:
        if row.options.get("compile"):
            if row.options.get("device", "cpu") != "cpu":
                continue
            label = row.label.replace("compiled", "eager") if "compiled" in row.label else f"{row.label}, eager"
            row = replace(row, label=label, options=row.options | {"compile": False})
        if row not in found:
            found.append(row)
    return found


def replay() -> list[Row]:
    """The rows of the table `replay`: writing and reading in one process, both at once in two, and actors from end to end."""
    rows = [Row("replay", f"add, {n} world{'s' * (n > 1)}", 1, {"kind": "replay_add", "num_envs": n}) for n in (1, 64)]
    rows += [
        Row("replay", f"sample, batches of {size}", 1, {"kind": "replay_sample", "batch_size": size}) for size in (256, 4096)
    ]
    for counted, label in (("read", "sample, batches of 256"), ("written", "add, 64 worlds")):
        options = {"kind": "replay_shared", "counted": counted}
        rows.append(Row("replay", f"{label}, while another process {'writes' if counted == 'read' else 'reads'}", 1, options))
    for actors in (1, 2):
        options = {"kind": "replay_actors", "actors": actors}
        rows.append(
            Row(
                "replay",
                f"{actors} actor{'s' * (actors > 1)} of 64 HalfCheetah-v5 (batch), random actions, no updates",
                1,
                options,
            )
        )
    return rows


def offline(threads: tuple[int, ...], precisions: tuple[str, ...], cuda: bool, peer: bool) -> list[Row]:
    """The rows of the table `offline`: one agent after the other, ours and d3rlpy's."""
    rows: list[Row] = []
    for algorithm in OFFLINE:
        for count in threads:
            for precision in precisions:
                options = {"kind": "offline", "algorithm": algorithm, "compile": True, "precision": precision}
                rows.append(Row("offline", f"{algorithm}, compiled, {precision}", count, options))
            if peer:
                rows.append(Row("offline", algorithm, count, {"kind": "offline", "algorithm": algorithm}, "d3rlpy"))
        if cuda:
            options = {"kind": "offline", "algorithm": algorithm, "compile": True, "precision": "fp32", "device": "cuda"}
            rows.append(Row("offline", f"{algorithm}, GPU, fp32", 1, options))
    return rows


def minatar(threads: tuple[int, ...], precisions: tuple[str, ...], cuda: bool) -> list[Row]:
    """The rows of the table `minatar`: updates, training from end to end, and the games in both forms."""
    rows: list[Row] = []
    places = [(f"compiled, {precision}", "cpu", precision, count) for count in threads for precision in precisions]
    for label, device, precision, count in [*places, *[("GPU, fp32", "cuda", "fp32", 1)] * cuda]:
        for preset in ("m-dqn", "dvw-m-dqn"):
            options = {"kind": "game_updates", "preset": preset, "compile": True, "precision": precision, "device": device}
            rows.append(Row("minatar", f"{preset} updates, {label}", count, options))
    for num_envs, vectorization in ((1, "sync"), (16, "batch")):
        options = {"kind": "game_training", "num_envs": num_envs, "vectorization": vectorization, "compile": True}
        rows.append(Row("minatar", f"m-dqn end to end, an update for 4 steps, {vectorization} {num_envs}", 1, options))
    for game in ("breakout", "space_invaders"):
        for num_envs, vectorization in ((1, "sync"), (16, "batch"), (1024, "batch")):
            options = {"kind": "stepping", "task": f"minatar-{game}", "vectorization": vectorization, "num_envs": num_envs}
            rows.append(Row("minatar", f"{game} alone, {vectorization} {num_envs}", 1, options))
    return rows


def models(threads: tuple[int, ...], precisions: tuple[str, ...], cuda: bool, peer: bool) -> list[Row]:
    """The rows of the table `model`: fits and imagined steps, the suite's, a plain loop's over members, and mbrl-lib's."""
    rows: list[Row] = []
    places = [("cpu", count, precisions) for count in threads] + [("cuda", 1, ("fp32", "bf16"))] * cuda
    for device, count, compiled in places:
        forms = [(f"compiled, {precision}", False, True, precision) for precision in compiled]
        for work, objective in (("fit", "likelihood"), ("fit", "vagram"), ("imagine", "likelihood")):
            for label, plain, compile, precision in (*forms, ("eager", False, False, "fp32"), (PLAIN_LOOP, True, False, "fp32")):
                options = {
                    "kind": "model",
                    "work": work,
                    "objective": objective,
                    "plain": plain,
                    "compile": compile,
                    "precision": precision,
                    "device": device,
                }
                place = ", GPU" * (device == "cuda")
                rows.append(Row("model", f"{work}, {objective}, {label}{place}", count, options))
            if peer and device == "cpu" and objective == "likelihood":
                rows.append(Row("model", f"{work}, {objective}", count, {"kind": "model", "work": work}, "mbrl"))
    return rows


def training(cuda: bool) -> list[Row]:
    """The rows of the table `training`: few worlds on a CPU, thousands on a GPU, there also without updates, and updates alone."""
    rows: list[Row] = []
    for compiled in (True, False):
        options = {"kind": "resident_training", "preset": "fast-td3-small", "num_envs": 32, "compile": compiled, "device": "cpu"}
        rows.append(Row("training", f"fast-td3-small, 32 worlds, {'compiled' if compiled else 'eager'}", 1, options))
    if not cuda:
        return rows
    on_gpu = {"compile": True, "device": "cuda", "precision": "bf16"}
    for preset in ("fast-td3", "fast-sac", "flash-sac", "simba-v2", "sac", "td3"):
        options = {"kind": "resident_training", "preset": preset, "num_envs": 4_096, **on_gpu}
        rows.append(Row("training", f"{preset}, 4,096 worlds, GPU, bf16", 1, options))
    options = {"kind": "resident_training", "preset": "fast-sac", "num_envs": 4_096, "updates": False, **on_gpu}
    rows.append(Row("training", "fast-sac, 4,096 worlds, GPU, bf16, acting and storing without updates", 1, options))
    for label, kind in (
        ("SAC 256-256", {"kind": "updates", "preset": "sac", "critics": 2}),
        ("SimbaV2, one critic", {"kind": "updates", "preset": "simba-v2", "critics": 1}),
        ("SimbaV2, two critics", {"kind": "updates", "preset": "simba-v2", "critics": 2}),
        ("IQL 256-256", {"kind": "offline", "algorithm": "iql"}),
    ):
        rows.append(Row("training", f"updates alone, {label}, batch 256, GPU, bf16", 1, kind | on_gpu))
    return rows


def pixels(threads: tuple[int, ...], cuda: bool) -> list[Row]:
    """The rows of the table `pixels`: updates, the suite's and plain ones, training from end to end, and rendering alone."""
    rows: list[Row] = []
    for size in ("small", "published"):
        for device, count in [*(("cpu", count) for count in threads), *[("cuda", 1)] * cuda]:
            place = ", GPU" * (device == "cuda")
            for label, compiled in (("compiled", True), ("eager", False)):
                options = {"kind": "pixel_updates", "size": size, "compile": compiled, "device": device}
                rows.append(Row("pixels", f"{size}, {label}{place}", count, options))
            if device == "cpu":
                options = {"kind": "plain_pixel_updates", "size": size}
                rows.append(Row("pixels", f"{size}, {PLAIN_UPDATE}", count, options))
    rows.append(Row("pixels", "small, end to end, an update for 2 decisions of 4 frames", 1, {"kind": "pixel_training"}))
    for rendering in ("published", "fast"):
        options = {"kind": "stepping", "task": "cheetah-run", "vectorization": "sync", "num_envs": 1, "rendering": rendering}
        rows.append(Row("pixels", f"cheetah-run at 84 x 84 alone, {rendering} rendering", 1, options))
    return rows


def worlds(threads: tuple[int, ...], cuda: bool) -> list[Row]:
    """The rows of the table `worlds`: every way to step a robot, over numbers of worlds, and mujoco-warp's graph of steps alone."""
    rows: list[Row] = []

    def add(task: str, label: str, num_envs: int, used: int = 1, **options: Any) -> None:
        shape = {"task": task, "num_envs": num_envs}
        rows.append(Row("worlds", f"{task}, {label}, {num_envs:,}", used, shape | options, group=f"{task}, {num_envs}"))

    for task in ("HalfCheetah-v5", "Humanoid-v5"):
        for num_envs in (1, 8):
            add(task, "sync", num_envs, kind="stepping", vectorization="sync")
        for num_envs in (2, 8):
            add(task, "async", num_envs, kind="stepping", vectorization="async")
        for num_envs in (1, 64, 1024, 4096, 16_384):
            add(task, "batch", num_envs, max(threads), kind="stepping", vectorization="batch")
        # One step of 16,384 humanoids takes mujoco-warp half a minute on a core, and making the worlds several.
        on_cpu = (1, 64, 1024, 4096, 16_384) if task == "HalfCheetah-v5" else (1, 64, 1024)
        for device, counts in (("cpu", on_cpu), *[("cuda", (1, 64, 1024, 4096, 16_384))] * cuda):
            place = " GPU" if device == "cuda" else " CPU"
            for num_envs in counts:
                add(task, f"warp{place}", num_envs, kind="stepping", vectorization="warp", device=device)
                add(task, f"warp{place}, bare engine", num_envs, kind="bare_stepping", device=device)
    return sorted(rows, key=lambda row: (row.options["task"], row.options["num_envs"]))
