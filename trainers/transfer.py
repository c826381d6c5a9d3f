"""The transfer check: what a policy that was trained in other worlds is worth on the published simulator."""

from pathlib import Path

from steelyard.trainers.builders import make_evaluation_env
from steelyard.trainers.config import Run
from steelyard.trainers.evaluation import Actor, Scores, evaluate
from steelyard.trainers.restore import restore


def transfer(run: Run, agent: Actor, folder: Path) -> dict[str, Scores]:
    """Scores of the run's `last` policy, and of the `best` one that `folder` holds, over `transfer_episodes` on the published simulator."""
    env = make_evaluation_env(run, run.transfer_episodes, "sync")
    try:
        best, _ = restore(folder, run, env.spec, "best")
        return {name: evaluate(actor, env, run.transfer_episodes, run.seed) for name, actor in (("last", agent), ("best", best))}
    finally:
        env.close()


def columns(scores: dict[str, Scores]) -> dict[str, float]:
    """What eval.csv gets, in a row of its own: `transfer/return` of the last policy and `transfer/best_return`."""
    return {
        "transfer/return": scores["last"].mean,
        "transfer/return_std": scores["last"].std,
        "transfer/best_return": scores["best"].mean,
        "transfer/episodes": len(scores["last"].returns),
    }
