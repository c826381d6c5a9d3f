"""`make` finds a task by its name, and says in one sentence why it cannot."""

import os
import subprocess
import sys

import pytest

from steelyard.envs import EnvError, known_tasks, make
from steelyard.envs.dmc_envs import DmcEnv
from steelyard.envs.gl import choose_backend


@pytest.mark.parametrize(
    ("task", "options", "sentence"),
    [
        ("HalfCheeta-v5", {}, "did you mean HalfCheetah-v5"),
        ("walker_rn", {}, "did you mean walker-run"),
        ("zzzz", {}, "name a Gymnasium id"),
        ("probe-nothing", {}, "the probes are probe-constant"),
        ("HalfCheetah-v3", {}, "gymnasium-robotics"),
        ("no_such_module:Thing-v0", {}, "no_such_module"),
        ("Pendulum-v1", {"vectorization": "batch"}, "no batch form"),
        ("dog-run", {"vectorization": "batch"}, "no batch form; use vectorization='sync'"),
        ("dog-run", {"vectorization": "warp"}, "no warp form; .*walker-walk"),
        ("minatar-breakout", {"vectorization": "warp"}, "no warp form"),
        ("walker_rn", {"vectorization": "warp"}, "did you mean walker-run"),
        ("cheetah-run", {"staggered": True}, "vectorization='batch' or 'warp'"),
        ("cheetah-run", {"vectorization": "async"}, "use vectorization='sync'"),
        ("probe-constant", {"vectorization": "batch"}, "batched already"),
        ("Pendulum-v1", {"vectorization": "threads"}, "choose one of sync, async, batch, warp"),
        ("Pendulum-v1", {"action_repeat": 0}, "at least 1"),
    ],
)
def test_refusals_are_one_sentence(task, options, sentence):
    with pytest.raises(EnvError, match=sentence) as caught:
        make(task, 2, **options)
    assert "\n" not in str(caught.value)


def test_no_worlds_are_refused():
    with pytest.raises(EnvError, match="num_envs"):
        make("Pendulum-v1", 0)


@pytest.mark.parametrize("task", ["ball-in-cup-catch", "ball_in_cup-catch"])
def test_dm_control_names_with_hyphens_or_underscores(task):
    env = make(task, 1)
    assert isinstance(env, DmcEnv)
    assert (env.spec.obs_size, env.spec.action_size) == (8, 2)


def test_known_tasks():
    known = known_tasks()
    assert {"HalfCheetah-v5", "walker-run", "cartpole-swingup_sparse", "probe-constant"} <= set(known)
    assert "HalfCheetah-v2" not in known
    assert known == sorted(set(known))


def test_import_is_silent_and_chooses_a_library(tmp_path):
    """A fresh process without a display: nothing on stderr, not even GLFW's warning, and no log file beside it."""
    code = (
        "import os; os.environ.pop('MUJOCO_GL', None); os.environ.pop('DISPLAY', None)\n"
        "from steelyard.envs import make\n"
        "for task in ('HalfCheetah-v5', 'Hopper-v4', 'cheetah-run'):\n"
        "    make(task, 1).reset(seed=0)\n"
        "make('HalfCheetah-v5', 1, vectorization='batch').reset(seed=0)\n"
        "print(os.environ['MUJOCO_GL'], os.path.exists('MUJOCO_LOG.TXT'))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stderr == ""
    assert result.stdout.split() in (["egl", "False"], ["osmesa", "False"], ["disabled", "False"])


def test_a_users_choice_of_library_stands(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    choose_backend()
    assert os.environ["MUJOCO_GL"] == "osmesa"
