"""A run's configuration: what is refused, what is saved and read back, and how two are compared."""

import dataclasses
import errno
import json
import os
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from steelyard.agents.agent import Execution
from steelyard.agents.cql import CQL
from steelyard.agents.errors import SteelyardError
from steelyard.agents.iql import IQL
from steelyard.agents.networks import MLP, SimbaV2
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.networks.normalizers import DatasetNorm, ReturnRange, ReturnScale, RunningNorm
from steelyard.agents.networks.policies import Gaussian, UnsquashedGaussian
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import Family, ReturnBound
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.trainers import plain
from steelyard.trainers.builders import require_compiler
from steelyard.trainers.config import ConfigError, Run, Transfer
from steelyard.trainers.plain import CLASSES, first_difference, from_plain, to_plain
from steelyard.trainers.replays import Anew, Mixed
from steelyard.trainers.schedules import FixedRatio
from steelyard.trainers.shrinking import debug
from steelyard.trainers.trajectory_samplers import TrajectoryWeighted

RUN = Run("Pendulum-v1", SAC(), "sac")


@pytest.mark.parametrize(("device", "names"), [("cpu", r"g\+\+ or clang\+\+"), ("cuda", "gcc or clang")])
def test_without_the_compiler_of_its_device_a_run_is_refused(device: str, names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "torch_device", torch.device(device))
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    require_compiler(RUN)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=f"for {device}, but there is no compiler for it: install {names}"):
        require_compiler(RUN)
    require_compiler(dataclasses.replace(RUN, execution=Execution(compile=False)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"env_steps": 0}, "env_steps is 0; give a positive number."),
        ({"num_envs": -1}, "num_envs is -1; give a positive number."),
        ({"action_repeat": 0}, "action_repeat is 0; give a positive number."),
        ({"evaluation_interval": 0}, "evaluation_interval is 0; give a positive number."),
        ({"evaluation_episodes": 0}, "evaluation_episodes is 0; give a positive number."),
        ({"log_interval": 0}, "log_interval is 0; give a positive number."),
        ({"checkpoint_interval": -5}, "checkpoint_interval is -5; give a positive number."),
        ({"capacity": 0}, "capacity is 0; give a positive number."),
        ({"seed": 150_000}, "seed is 150000; give a number below 150000."),
        ({"preset": "../sac"}, "preset is '../sac', which names the run's folder; give a word without slashes."),
        ({"preset": ""}, "preset is '', which names the run's folder; give a word without slashes."),
        ({"agent": SAC(initial_temperature=0.0)}, "agent.initial_temperature is 0.0; give a positive number."),
        ({"agent": TD3(target_noise_clip=-0.5)}, "agent.target_noise_clip is -0.5; give zero or more."),
        ({"actors": -1}, "actors is -1; give zero or more."),
        ({"random_steps": -1}, "random_steps is -1; give zero or more."),
        ({"threads": -2}, "threads is -2; give zero or more."),
        ({"seed": -1}, "seed is -1; give zero or more."),
        ({"agent": SAC(critics=0)}, "agent.critics is 0; give one, or two for clipped double Q."),
        ({"agent": TD3(n_step=0)}, "agent.n_step is 0; give one or more."),
        ({"agent": SAC(batch_size=0)}, "agent.batch_size is 0; give one or more."),
        ({"agent": SAC(discount=1.5)}, "agent.discount is 1.5; give a number from 0 to 1, or None to choose by the horizon."),
        (
            {"agent": SAC(discount=float("nan"))},
            "agent.discount is nan; give a number from 0 to 1, or None to choose by the horizon.",
        ),
        ({"agent": SAC(target_rate=0.0)}, "agent.target_rate is 0.0; give a number above 0 and at most 1."),
        ({"agent": TD3(policy_delay=0)}, "agent.policy_delay is 0; give one or more."),
        ({"agent": TD3(target_noise=-0.1)}, "agent.target_noise is -0.1; give zero or more."),
        ({"agent": IQL(largest_weight=0.0)}, "agent.largest_weight is 0.0; give a positive number."),
        ({"agent": CQL(softness=0.0)}, "agent.softness is 0.0; give a positive number."),
        ({"agent": CQL(conservatism=float("nan"))}, "agent.conservatism is nan; give zero or more."),
        (
            {"agent": CQL(lagrange_gap=float("inf"))},
            "agent.lagrange_gap is inf; give a number, or None for a fixed weight.",
        ),
    ],
    ids=str,
)
def test_bad_values_are_refused_with_the_field_and_the_remedy(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(RUN, **changes)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Adam(learning_rate=-1.0), "learning_rate of Adam is -1.0; give zero or more."),
        (lambda: Adam(learning_rate=float("nan")), "learning_rate of Adam is nan; give zero or more."),
        (lambda: Adam(1e-4, -1e-5), "final_learning_rate of Adam is -1e-05; give zero or more."),
        (lambda: Adam(first_decay=1.0), "first_decay of Adam is 1.0; give a number from 0 to below 1."),
        (lambda: Adam(weight_decay=-0.1), "weight_decay of Adam is -0.1; give zero or more."),
        (lambda: MLP((8, 0)), "hidden is (8, 0); give each layer one unit or more, or no layers."),
        (lambda: SimbaV2(blocks=0), "blocks of SimbaV2 is 0; give one or more."),
        (lambda: Categorical(1), "atoms of Categorical is 1; give two or more."),
        (lambda: Categorical(low=5.0, high=-5.0), "Categorical goes from low 5.0 to high -5.0; give the smaller one first."),
        (lambda: ReturnScale(max_return=-1.0), "ReturnScale has max_return -1.0"),
        (lambda: RunningNorm(-1.0), "epsilon of RunningNorm is -1.0"),
        (lambda: Gaussian(low=3.0), "log deviations of Gaussian go from low 3.0 to high 2.0; give the smaller one first."),
        (lambda: UnsquashedGaussian(high=-6.0), "log deviations of UnsquashedGaussian go from low -5.0 to high -6.0"),
    ],
)
def test_values_with_which_a_run_would_learn_something_else_are_refused(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(SteelyardError) as error:
        make()
    assert str(error.value).startswith(sentence)


def test_values_at_the_edge_are_taken() -> None:
    dataclasses.replace(
        RUN, actors=0, random_steps=0, seed=0, threads=0, agent=TD3(discount=1.0, target_rate=1.0, policy_delay=1)
    )


def test_updates_of_a_whole_run() -> None:
    """Decisions after the random ones, times the ratio."""
    run = dataclasses.replace(RUN, env_steps=10_000, action_repeat=2, random_steps=1_000, schedule=FixedRatio(0.5))
    assert run.total_updates == 2_000
    assert dataclasses.replace(run, random_steps=9_999).total_updates == 1


def test_a_run_that_begins_with_data_counts_updates_before_steps() -> None:
    assert (FROM_DATA.total_steps, FROM_DATA.total_updates, FROM_DATA.waiting_steps) == (6_000, 5_000, 50)
    online = dataclasses.replace(FROM_DATA, offline_updates=0, schedule=FixedRatio(2.0))
    assert (online.total_steps, online.total_updates, online.all_updates) == (1_000, 2 * (1_000 - 50), 2 * (1_000 - 50))
    both = dataclasses.replace(FROM_DATA, schedule=FixedRatio(2.0))
    assert (both.total_updates, both.all_updates) == (5_000, 5_000 + 2 * (1_000 - 50))
    assert dataclasses.replace(FROM_DATA, env_steps=0).all_updates == 5_000
    assert (RUN.total_steps, RUN.waiting_steps) == (RUN.env_steps, RUN.random_steps)


def test_debug_shrinks_both_phases() -> None:
    run = debug(dataclasses.replace(FROM_DATA, env_steps=10**6, offline_updates=10**6, frozen_steps=5_000))
    assert (run.offline_updates, run.env_steps, run.frozen_steps, run.replay) == (200, 300, 50, Mixed(0.25))
    assert run.waiting_steps < run.env_steps
    assert run.agent.balance.network.width == 16  # pyright: ignore[reportAttributeAccessIssue]
    offline = debug(dataclasses.replace(FROM_DATA, env_steps=0))
    assert (offline.offline_updates, offline.env_steps) == (200, 0)


def test_missing_gpu_is_said_and_auto_takes_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert dataclasses.replace(RUN, device="auto").torch_device.type == "cpu"
    with pytest.raises(ConfigError, match=r"device is cuda, but torch sees no GPU here; use --device cpu\."):
        _ = dataclasses.replace(RUN, device="cuda").torch_device
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert dataclasses.replace(RUN, device="auto").torch_device.type == "cuda"
    assert dataclasses.replace(RUN, device="cpu").torch_device.type == "cpu"


def test_folder_names_task_preset_and_seed() -> None:
    run = dataclasses.replace(RUN, task="my.module:Ns/World-v0", seed=3)
    assert run.folder(Path("runs")) == Path("runs/my.module_Ns_World-v0/sac/seed_3")


ODD = Run(
    "walker-run",
    TD3(
        actor=MLP((7, 5, 3), layer_norm=True),
        critic=SimbaV2(24, 3, expansion=2, shift=1.5),
        head=Categorical(31, -2.0, 8.0),
        optimizer=Adam(1e-3, 1e-5, epsilon=1e-6),
        discount=None,
    ),
    "odd",
    log_to=(),
)
"""Nothing here has its default value's type: nested classes, None, empty and long tuples."""
FROM_DATA = Transfer(
    "Hopper-v4",
    IQL(observations=DatasetNorm(), rewards=ReturnRange(), balance=Family(0.5, 2.0, network=SimbaV2(8, 1))),
    "from-data",
    env_steps=1_000,
    random_steps=20,
    sampler=TrajectoryWeighted(temperature=0.2),
    dataset="minari:mujoco/hopper/medium-v0",
    offline_updates=5_000,
    replay=Mixed(0.25),
    frozen_steps=30,
)
CALIBRATED = Transfer("Hopper-v4", CQL(calibration=ReturnBound()), "x", dataset="a.hdf5", replay=Anew(), reward_of_failure=-5.0)


@pytest.mark.parametrize("run", [RUN, ODD, FROM_DATA, CALIBRATED], ids=["defaults", "odd", "from data", "infinite numbers"])
def test_round_trip_through_json_and_a_file(run: Run, tmp_path: Path) -> None:
    assert from_plain(json.loads(json.dumps(to_plain(run)))) == run
    plain.save(run, tmp_path / "deep" / "config.json")
    assert plain.load(tmp_path / "deep" / "config.json") == run


def test_the_file_can_be_read_by_people_and_by_other_programs(tmp_path: Path) -> None:
    plain.save(ODD, tmp_path / "config.json")
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["class"] == "Run"
    assert written["agent"]["class"] == "TD3"
    actor = {"class": "MLP", "hidden": [7, 5, 3], "layer_norm": True, "norm_after": False, "gain": 3**-0.5, "output_gain": None}
    actor |= {"activation": "relu", "weight_norm": False}
    assert actor.items() <= written["agent"]["actor"].items()
    assert written["agent"]["weighting"] == {"class": "UniformWeighting"}
    assert written["sampler"] == {"class": "Uniform"}


def dataclasses_in(hint: Any) -> set[type]:
    """Every dataclass that may stand in a field of this type, at any depth."""
    if not isinstance(hint, type):
        return set().union(*(dataclasses_in(part) for part in typing.get_args(hint)))
    if not dataclasses.is_dataclass(hint):
        return set()
    return {hint}.union(*(dataclasses_in(part) for part in typing.get_type_hints(hint).values()))


def test_everything_that_a_slot_offers_can_be_saved() -> None:
    """Whoever adds a value to a slot and forgets `CLASSES` learns it here."""
    assert dataclasses_in(Run) | dataclasses_in(Transfer) <= set(CLASSES.values())
    assert {TrajectoryWeighted, Mixed, Anew, Family, ReturnBound, IQL, CQL} <= dataclasses_in(Transfer)
    assert {SAC, TD3, MLP, SimbaV2, Categorical, Adam} <= dataclasses_in(Run)


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_tags_are_unique_and_lead_back(kind: type) -> None:
    assert [tag for tag, known in CLASSES.items() if known is kind] == [plain.TAGS[kind]]


def test_a_field_that_was_not_saved_takes_its_default() -> None:
    """Configurations that an older version wrote stay readable."""
    plain = to_plain(RUN)
    del plain["log_interval"], plain["agent"]["n_step"]
    assert from_plain(plain) == RUN


def test_an_unknown_class_is_named() -> None:
    plain = to_plain(RUN)
    plain["agent"]["actor"]["class"] = "Transformer"
    with pytest.raises(
        ConfigError, match=r"names the class 'Transformer', which this version does not know; use the version that wrote it\."
    ):
        from_plain(plain)
    with pytest.raises(ConfigError, match="names the class None"):
        from_plain({"task": "x"})


def test_an_unknown_field_is_named() -> None:
    plain = to_plain(RUN)
    plain["agent"]["critic"]["skips"] = 0.1
    with pytest.raises(
        ConfigError, match=r"has the field MLP\.skips, which this version does not know; use the version that wrote it\."
    ):
        from_plain(plain)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is no configuration of a run"),
        ('{"class": "Run", "task": "x"}', "is no configuration of a run"),
        ('{"class": "Run", ', "is no configuration of a run"),
        ("[1, 2]", "does not hold the configuration of a run"),
        ('{"class": "Adam"}', "does not hold the configuration of a run"),
        ('{"class": ["Run"]}', "is no configuration of a run"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_in_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=sentence) as error:
        plain.load(tmp_path / "config.json")
    assert str(tmp_path / "config.json") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_full_disk_leaves_the_configuration_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    plain.save(RUN, path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        plain.save(ODD, path)
    assert error.value.filename == str(path)
    assert plain.load(path) == RUN
    assert [found.name for found in tmp_path.iterdir()] == ["config.json"]


def test_a_missing_file_is_said() -> None:
    with pytest.raises(ConfigError, match=r"nowhere/config\.json does not exist; give the folder of a run"):
        plain.load(Path("nowhere/config.json"))


def test_the_first_difference_is_named_with_both_values() -> None:
    assert first_difference(RUN, dataclasses.replace(RUN)) is None
    assert first_difference(RUN, dataclasses.replace(RUN, seed=4)) == "seed (0 before, 4 now)"
    other = dataclasses.replace(RUN, agent=SAC(optimizer=Adam(learning_rate=1.0)), seed=4)
    assert first_difference(RUN, other) == "agent.optimizer.learning_rate (0.0003 before, 1.0 now)"
    deep = dataclasses.replace(RUN, agent=SAC(actor=MLP((8,))))
    assert first_difference(RUN, deep) == "agent.actor.hidden ((256, 256) before, (8,) now)"
    found = first_difference(RUN, dataclasses.replace(RUN, agent=TD3()))
    assert found is not None
    assert found.startswith("agent (SAC(")
