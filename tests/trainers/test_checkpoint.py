"""Checkpoints are whole or absent, whatever dies, fills up or gets damaged."""

import errno
import os
import random
import shutil
import signal
import subprocess
import time

import pytest
import torch

from steelyard.agents.types import Spec, Step
from steelyard.trainers import checkpoint
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.checkpoint import CheckpointError

SPEC = Spec(obs_size=3, action_size=1)


def state_of(step):
    module = torch.nn.Linear(3, 2)
    torch.nn.init.constant_(module.weight, step)
    optimiser = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return {
        "agent": module.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": {"numerator": 10**30, "denominator": 7},
        "generator": torch.Generator().get_state(),
        "env": {"qpos": torch.arange(3, dtype=torch.float64), "episode": (1, 2.5, None, True, "a", b"b")},
        "config": '{"a": 1}',
        "step": step,
    }


def buffer_of(step):
    buffer = ReplayBuffer(SPEC, 50, 1)
    yes, no = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)
    for i in range(step % 100):
        obs = torch.full((1, 3), float(i))
        buffer.add(obs, torch.zeros(1, 1), Step(obs + 1, obs + 1, torch.zeros(1), no, no, yes, {}))
    return buffer


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded(tmp_path):
    state, buffer = state_of(3), buffer_of(30)
    path = checkpoint.save(tmp_path, 1200, state, buffer)
    assert path == tmp_path / "step_1200" == checkpoint.latest(tmp_path)
    assert names(path) == ["agent.pt", "buffer"]
    empty = buffer_of(0)
    env_steps, loaded = checkpoint.load(path, empty)
    assert env_steps == 1200
    assert same(loaded, state)
    assert torch.equal(empty.data, buffer.data)
    assert checkpoint.load(path / "agent.pt")[0] == 1200


def test_nothing_saved_yet(tmp_path):
    assert checkpoint.latest(tmp_path / "missing") is None
    with pytest.raises(CheckpointError, match=r"agent.pt does not exist; give the folder of a checkpoint"):
        checkpoint.load(tmp_path / "step_5")


def test_the_newest_by_number_is_the_latest_and_older_ones_go(tmp_path):
    for step in (900, 1000, 1100):
        checkpoint.save(tmp_path, step, state_of(step), keep=2)
    assert names(tmp_path) == ["step_1000", "step_1100"]
    assert checkpoint.latest(tmp_path) == tmp_path / "step_1100"
    checkpoint.save(tmp_path, 1200, state_of(0))
    assert names(tmp_path) == ["step_1200"]


def test_saving_again_at_the_same_step_replaces(tmp_path):
    checkpoint.save(tmp_path, 7, state_of(1))
    checkpoint.save(tmp_path, 7, state_of(2))
    assert names(tmp_path) == ["step_7"]
    assert checkpoint.load(tmp_path / "step_7")[1]["step"] == 2


def test_best_is_replaced_and_left_alone_by_save(tmp_path):
    for step in (1, 2):
        path = checkpoint.save_best(tmp_path, step, state_of(step))
    checkpoint.save(tmp_path, 3, state_of(3))
    assert path == tmp_path / "best" / "agent.pt"
    assert names(tmp_path) == ["best", "step_3"]
    assert names(tmp_path / "best") == ["agent.pt"]
    assert checkpoint.load(path)[1]["step"] == 2
    assert checkpoint.latest(tmp_path) == tmp_path / "step_3"


def test_leftovers_of_a_killed_save_are_never_loaded_and_cleaned(tmp_path):
    checkpoint.save(tmp_path, 5, state_of(5))
    for name in (".unfinished_step_9", ".unfinished_step_4"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "agent.pt").write_bytes(b"half")
    assert checkpoint.latest(tmp_path) == tmp_path / "step_5"
    checkpoint.clean(tmp_path)
    assert names(tmp_path) == ["step_5"]


# Damage.


def truncated(file):
    file.write_bytes(file.read_bytes()[:-100])


def empty(file):
    file.write_bytes(b"")


def random_bytes(file):
    file.write_bytes(random.Random(0).randbytes(5000))


def one_bit(file):
    raw = bytearray(file.read_bytes())
    position = raw.find(torch.tensor([1.0, 0.0, 0.0]).numpy().tobytes()[:4])
    raw[len(raw) // 3 if position < 0 else position] ^= 16
    file.write_bytes(raw)


def another_pickle(file):
    torch.save({"weights": Spec(1, 1)}, file)


def another_program(file):
    torch.save({"model": torch.zeros(3)}, file)


def a_tensor(file):
    torch.save(torch.zeros(3), file)


def newer_version(file):
    torch.save({"format": checkpoint.FORMAT, "version": 99, "env_steps": 0, "state": {}}, file)


DAMAGES = {
    truncated: "is damaged or no checkpoint",
    empty: "is damaged or no checkpoint",
    random_bytes: "is damaged or no checkpoint",
    one_bit: "is damaged or no checkpoint",
    another_pickle: "is damaged or no checkpoint",
    another_program: "is a torch file but not a checkpoint of this suite",
    a_tensor: "is a torch file but not a checkpoint of this suite",
    newer_version: "has version 99 of the checkpoint format where this code reads version 1",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_and_foreign_files_are_refused_in_one_sentence(tmp_path, damage):
    path = checkpoint.save(tmp_path, 5, state_of(5))
    damage(path / "agent.pt")
    with pytest.raises(CheckpointError, match=DAMAGES[damage]) as caught:
        checkpoint.load(path)
    assert str(path / "agent.pt") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_newest_names_the_older_one(tmp_path):
    older = checkpoint.save(tmp_path, 5, state_of(5), keep=2)
    newest = checkpoint.save(tmp_path, 6, state_of(6), keep=2)
    truncated(newest / "agent.pt")
    assert checkpoint.latest(tmp_path) == newest
    with pytest.raises(CheckpointError, match=f"delete {newest} to continue from {older}, or start anew"):
        checkpoint.load(newest)


def test_flipped_bits_are_noticed_or_harmless(tmp_path):
    state = state_of(5)
    path = checkpoint.save(tmp_path, 5, state)
    file = path / "agent.pt"
    raw = file.read_bytes()
    numbers = random.Random(0)
    for _ in range(150):
        damaged = bytearray(raw)
        damaged[numbers.randrange(len(raw))] ^= 1 << numbers.randrange(8)
        file.write_bytes(damaged)
        try:
            env_steps, loaded = checkpoint.load(path)
        except CheckpointError:
            continue
        # Padding between the records, time stamps and the like.
        assert env_steps == 5
        assert same(loaded, state)


def test_a_damaged_or_missing_buffer_is_refused(tmp_path):
    path = checkpoint.save(tmp_path, 5, state_of(5), buffer_of(20))
    truncated(path / "buffer" / "replay.bin")
    with pytest.raises(CheckpointError, match=r"step_5 cannot be resumed: .*replay.bin is incomplete or altered"):
        checkpoint.load(path, buffer_of(0))
    shutil.rmtree(path / "buffer")
    with pytest.raises(CheckpointError, match="the folder holds no replay"):
        checkpoint.load(path, buffer_of(0))


def test_what_does_not_fit_is_explained(tmp_path):
    path = checkpoint.save(tmp_path, 5, state_of(5))
    _, state = checkpoint.load(path)
    with (
        pytest.raises(CheckpointError, match=r"step_5 does not fit this run's agent.*size mismatch for weight") as caught,
        checkpoint.fitting(path),
    ):
        torch.nn.Linear(4, 2).load_state_dict(state["agent"])
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="KeyError: 'missing'"), checkpoint.fitting(path):
        state["missing"]


@pytest.mark.parametrize(
    ("value", "name"),
    [(Spec(1, 1), "Spec"), ({1, 2}, "set"), (torch.zeros(1).numpy(), "ndarray"), (torch.zeros(1).numpy()[0], "float32")],
)
def test_what_could_not_be_read_back_is_refused_when_saving(tmp_path, value, name):
    with pytest.raises(CheckpointError, match=rf"cannot hold state.env\[1\].x of type .*{name}"):
        checkpoint.save(tmp_path, 5, {"env": [0, {"x": value}]})
    assert names(tmp_path) == []


# A disk that refuses.


def refuse(monkeypatch, count, code=errno.ENOSPC):
    """Data reaches the disk `count` times, then the disk refuses (flushing is where delayed allocation finds out)."""
    flush, flushed = os.fsync, []

    def fsync(descriptor):
        if len(flushed) == count:
            raise OSError(code, os.strerror(code))
        flushed.append(descriptor)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("count", range(5))  # agent.pt, replay.bin, manifest.json, the buffer's folder, the checkpoint's folder
@pytest.mark.parametrize("earlier", [True, False])
def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch, count, earlier):
    if earlier:
        checkpoint.save(tmp_path, 5, state_of(5), buffer_of(20))
    with monkeypatch.context() as patch:
        refuse(patch, count)
        with pytest.raises(CheckpointError, match=r"step_9 could not be saved \(No space left on device\); free some") as caught:
            checkpoint.save(tmp_path, 9, state_of(9), buffer_of(10))
    assert ("step_5 is intact" if earlier else "there is no earlier checkpoint") in str(caught.value)
    assert names(tmp_path) == (["step_5"] if earlier else [])
    if earlier:
        assert checkpoint.load(tmp_path / "step_5", buffer_of(0))[1]["step"] == 5
    checkpoint.save(tmp_path, 9, state_of(9), buffer_of(10))
    assert names(tmp_path) == ["step_9"]


def test_a_full_disk_leaves_the_last_best(tmp_path, monkeypatch):
    checkpoint.save_best(tmp_path, 1, state_of(1))
    with monkeypatch.context() as patch:
        refuse(patch, 0)
        with pytest.raises(CheckpointError, match="No space left on device"):
            checkpoint.save_best(tmp_path, 2, state_of(2))
    assert names(tmp_path / "best") == ["agent.pt"]
    assert checkpoint.load(tmp_path / "best" / "agent.pt")[1]["step"] == 1


def test_other_refusals_of_the_disk(tmp_path, monkeypatch):
    refuse(monkeypatch, 1, errno.EIO)
    with pytest.raises(CheckpointError, match=r"\(Input/output error\); check the disk and the permissions"):
        checkpoint.save(tmp_path, 1, state_of(1), buffer_of(1))


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 256 KB, where the machine lets us mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk takes root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("where", ["agent", "buffer"])
def test_a_disk_that_is_really_full(small_disk, where):
    checkpoint.save(small_disk, 5, state_of(5), buffer_of(20))
    large = state_of(9) | ({"ballast": torch.zeros(100_000)} if where == "agent" else {})
    buffer = ReplayBuffer(SPEC, 20_000, 1)
    buffer.cursors += 20_000
    with pytest.raises(CheckpointError, match=r"\(No space left on device\).*step_5 is intact"):
        checkpoint.save(small_disk, 9, large, buffer if where == "buffer" else None)
    assert names(small_disk) == ["step_5"]
    assert checkpoint.load(small_disk / "step_5", buffer_of(0))[1]["step"] == 5


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(CheckpointError, match="could not be saved"):
        checkpoint.save(tmp_path / "checkpoints", 1, state_of(1))


# SIGKILL.


def in_a_child(work):
    """Run `work` in a forked process and return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


CALLS = [(os, "fsync"), (os, "mkdir"), (os, "rename"), (os, "replace"), (shutil, "rmtree"), (os, "rmdir"), (os, "unlink")]


@pytest.mark.parametrize("same_step", [False, True])
def test_killed_at_every_system_call_there_is_always_a_whole_checkpoint(tmp_path, same_step):
    """The child kills itself before its n-th call that changes the disk, for every n until it survives."""
    state = {step: state_of(step) for step in (5, 9)}
    buffer = buffer_of(20)
    new = 5 if same_step else 9
    outcomes = []
    for n in range(200):
        folder = tmp_path / str(n)
        checkpoint.save(folder, 5, state[5], buffer)

        def save(folder=folder, n=n):
            count = 0

            def counted(original):
                def call(*args, **options):
                    nonlocal count
                    if count == n:
                        os.kill(os.getpid(), signal.SIGKILL)
                    count += 1
                    return original(*args, **options)

                return call

            for module, name in CALLS:
                setattr(module, name, counted(getattr(module, name)))
            checkpoint.save(folder, new, state[9], buffer)

        survived = not os.WIFSIGNALED(in_a_child(save))
        latest = checkpoint.latest(folder)
        assert latest is not None
        loaded = checkpoint.load(latest, buffer_of(0))[1]
        assert same(loaded, state[loaded["step"]])
        outcomes.append(loaded["step"])
        # The next save tidies up and works.
        checkpoint.save(folder, 11, state[9], buffer)
        assert names(folder) == ["step_11"]
        if survived:
            break
    assert survived
    assert len(outcomes) > 10
    assert outcomes == sorted(outcomes)
    assert {outcomes[0], outcomes[-1]} == {5, 9}


def test_killed_at_random_moments_the_latest_always_loads(tmp_path):
    state, buffer = state_of(0), buffer_of(40)
    numbers = random.Random(0)

    def save_for_ever(start):
        for step in range(start, start + 10**6):
            state["step"] = step
            checkpoint.save(tmp_path, step, state, buffer)

    last = 0
    checkpoint.save(tmp_path, last, state, buffer)
    for _ in range(20):
        child = os.fork()
        if child == 0:
            save_for_ever(last + 1)
        time.sleep(numbers.uniform(0.01, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        latest = checkpoint.latest(tmp_path)
        assert latest is not None
        env_steps, loaded = checkpoint.load(latest, buffer_of(0))
        assert loaded["step"] == env_steps >= last
        last = env_steps
    assert last > 0
