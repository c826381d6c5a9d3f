"""Temporal-difference methods with linear values, plain and robust, for many step sizes and seeds at once.

Every method here is one line, theta += alpha rho (u x - gamma v x'), with its own u and v. Those with a second set of weights w
keep h(s) = w' x(s), which learns to predict the unbounded temporal-difference error by regression. Patterson, Liao and White 2023
bound h where it is used, which makes the objective the Huber (or absolute) function of the *expected* error.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from experiments.prediction_problems import Array, Experience, Prediction

Bound = Literal["none", "clip", "tanh", "sign"]


@dataclass(frozen=True)
class Method:
    """How the temporal-difference error becomes an update."""

    main: Literal["error", "clipped error", "h", "gated"]
    """u: the sampled error; the sampled error clipped; the bounded h; or the error where |h| is within the threshold, else the bounded h."""
    corrected: bool = True
    """Whether v is the bounded h; otherwise it is zero."""
    bound: Bound = "none"
    """The map c that bounds h where it is used."""
    threshold: float = 1.0
    """What h, or the clipped error, is bounded by, in units of the reward."""
    speed: float = 1.0
    """Step size of w over that of theta (eta)."""
    decay: float = 0.0
    """Weight of the pull of w towards zero (beta of TDRC)."""


TD = Method("error", corrected=False)
"""Semi-gradient temporal-difference learning (Sutton 1988)."""
TDC = Method("error")
"""Gradient correction (Sutton et al. 2009)."""
TDRC = Method("error", decay=1.0)
"""Regularised correction (Ghiassian et al. 2020)."""
GTD2 = Method("h")
"""The saddle-point form (Sutton et al. 2009)."""


def clipped_td(threshold: float) -> Method:
    """TD on the clipped sampled error: what a smooth L1 loss on a fixed target does; minimises no Bellman error."""
    return Method("clipped error", corrected=False, threshold=threshold)


def gtd2_huber(threshold: float, bound: Bound = "clip") -> Method:
    """The saddle-point form of the mean Huber projected Bellman error; with `sign` of the absolute one."""
    return Method("h", bound=bound, threshold=threshold)


def tdc_huber(threshold: float, bound: Bound = "tanh") -> Method:
    """Gradient correction with only h bounded, as in the authors' prediction code."""
    return Method("error", bound=bound, threshold=threshold)


def gated_tdc_huber(threshold: float) -> Method:
    """Gradient correction inside the threshold and the saddle-point form beyond it: exact inside, bounded outside."""
    return Method("gated", bound="clip", threshold=threshold)


def both_clipped(threshold: float, decay: float = 0.0) -> Method:
    """Gradient correction with the sampled error clipped as well: not sound."""
    return Method("clipped error", bound="clip", threshold=threshold, decay=decay)


def clip(x: Array, threshold: float) -> Array:
    """Numbers between -t and t; numpy's own takes three times as long for few numbers, and this is called a million times."""
    return np.maximum(np.minimum(x, threshold), -threshold)


def bounded(h: Array, bound: Bound, threshold: float) -> Array:
    """The map c: the maximiser of 2 x h - h^2 over |h| <= t is clip(x, -t, t), that of x h over |h| <= 1 is sign(x)."""
    if bound == "clip":
        return clip(h, threshold)
    if bound == "tanh":
        return threshold * np.tanh(h / threshold)
    return np.sign(h) if bound == "sign" else h


def directions(method: Method, error: Array, h: Array) -> tuple[Array, Array]:
    """(u, v) of the update of theta, from the sampled error and h, of any common shape."""
    inside = bounded(h, method.bound, method.threshold)
    main = error
    if method.main == "clipped error":
        main = clip(error, method.threshold)
    elif method.main == "h":
        main = inside
    elif method.main == "gated":
        main = np.where(np.abs(h) <= method.threshold, error, inside)
    return main, inside if method.corrected else np.zeros_like(h)


def changes(
    method: Method, x: Array, following: Array, reward: Array, ratio: Array, theta: Array, w: Array
) -> tuple[Array, Array]:
    """Updates of theta and w [..., d] by one transition, divided by the step size.

    `x` [..., d] are the features of the state that was left, `following` those of the state that was reached times the discount (every
    formula has the two only as a product), `reward` and `ratio` [...]. The update of w is eta ((rho delta - h) x - beta w) (Ghiassian
    et al. 2020).
    """
    error = reward + np.vecdot(theta, following - x)
    h = np.vecdot(w, x)
    main, correction = directions(method, error, h)
    of_theta = (ratio * main)[..., None] * x - (ratio * correction)[..., None] * following
    of_w = (ratio * error - h)[..., None] * x - method.decay * w
    return of_theta, method.speed * of_w


def learn(
    method: Method, lived: Experience, features: Array, step_sizes: Array, start: Array, every: int = 1
) -> NDArray[np.float64]:
    """Weights after every `every` steps, [records, step sizes, seeds, d], from `start` [d]; one run per step size and seed.

    w starts at zero. Weights that diverge end up infinite or not a number; that is no error here.
    """
    steps, seeds = lived.state.shape
    shape = (len(step_sizes), seeds, features.shape[1])
    theta, w = np.broadcast_to(start, shape).copy(), np.zeros(shape)
    alpha = step_sizes[:, None, None]
    records = np.empty((steps // every, *shape))
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(steps):
            x = features[lived.state[step]]
            following = features[lived.next_state[step]] * lived.discount[step][:, None]
            of_theta, of_w = changes(method, x, following, lived.reward[step], lived.ratio[step], theta, w)
            theta += alpha * of_theta
            w += alpha * of_w
            if (step + 1) % every == 0:
                records[(step + 1) // every - 1] = theta
    return records


def expected_changes(method: Method, problem: Prediction, theta: Array, w: Array) -> tuple[Array, Array]:
    """`changes` of theta and w, [d] each, in expectation over the behaviour policy's visits and outcomes: no sampling."""
    x = np.broadcast_to(problem.features[:, None], (*problem.reward.shape, problem.features.shape[1]))
    following = problem.features[problem.next_state] * problem.discount[..., None]
    weight = problem.visits[:, None] * problem.probability
    both = changes(method, x, following, problem.reward, problem.ratio, theta, w)
    return np.einsum("so,sod->d", weight, both[0]), np.einsum("so,sod->d", weight, both[1])


def limit(method: Method, problem: Prediction, start: Array, step_size: float = 0.2, steps: int = 20_000) -> Array:
    """Weights [d] where the expected update comes to rest, by following it from `start`."""
    theta, w = start.copy(), np.zeros_like(start)
    for _ in range(steps):
        of_theta, of_w = expected_changes(method, problem, theta, w)
        theta, w = theta + step_size * of_theta, w + step_size * of_w
        if max(np.abs(of_theta).max(), np.abs(of_w).max()) < 1e-9:
            break
    return theta
