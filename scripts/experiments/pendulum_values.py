"""The swing-up pendulum with a known value function, for experiments that ask what an error of a model does to values."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

Array = NDArray[np.floating]
FASTEST = 8.0
"""Largest angular velocity."""
STRONGEST = 2.0
"""Largest torque."""


def advance(angle: Array, velocity: Array, torque: Array) -> tuple[Array, Array]:
    """Angle from upright and angular velocity after one step of Gymnasium's Pendulum-v1."""
    velocity = np.clip(velocity + 0.05 * (15.0 * np.sin(angle) + 3.0 * torque), -FASTEST, FASTEST)
    return angle + 0.05 * velocity, velocity


def reward(angle: Array, velocity: Array, torque: Array) -> Array:
    """Minus squared angle, velocity and torque, as in Gymnasium's."""
    upright = (angle + math.pi) % (2 * math.pi) - math.pi
    return -(upright**2 + 0.1 * velocity**2 + 0.001 * torque**2)


class PendulumValue:
    """The optimal value on a grid of angles and velocities, between which it is interpolated linearly.

    Args:
        points: Grid points of each axis.
        torques: Evenly spaced torques that are chosen from.
        discount: gamma.
        sweeps: Sweeps of value iteration.
        width: Standard deviation of the Gaussian, in grid cells, that smooths the value before its gradient is taken.
    """

    def __init__(self, points: int = 81, torques: int = 7, discount: float = 0.95, sweeps: int = 250, width: float = 1.0):
        self.points = points
        angle = np.linspace(-math.pi, math.pi, points)[:-1]  # the last angle is the first
        velocity = np.linspace(-FASTEST, FASTEST, points)
        torque = np.linspace(-STRONGEST, STRONGEST, torques)
        grid = np.meshgrid(angle, velocity, torque, indexing="ij")
        after, gain = self.places(*advance(*grid)), reward(*grid)
        value = np.zeros((points - 1, points))
        for _ in range(sweeps):
            value = (gain + discount * self.interpolate(value, after)).max(-1)
        self.value = value
        smooth = gaussian_filter(value, width, mode=("wrap", "nearest"))  # pyright: ignore[reportArgumentType]
        self.by_angle = (np.roll(smooth, -1, 0) - np.roll(smooth, 1, 0)) / (2 * (angle[1] - angle[0]))
        self.by_velocity = np.gradient(smooth, velocity[1] - velocity[0], axis=1)

    def places(self, angle: Array, velocity: Array) -> Array:
        """Grid coordinates [2, ...]; angles wrap around, velocities are kept on the grid."""
        turn = (angle + math.pi) / (2 * math.pi) * (self.points - 1)
        speed = (np.clip(velocity, -FASTEST, FASTEST) + FASTEST) / (2 * FASTEST) * (self.points - 1)
        return np.stack((turn % (self.points - 1), speed))

    def interpolate(self, table: Array, places: Array) -> Array:
        """A table [points - 1, points] at grid coordinates [2, ...]."""
        return map_coordinates(np.concatenate((table, table[:1])), places, order=1, mode="nearest")

    def of(self, obs: Array) -> Array:
        """Values [...] of observations [..., cos, sin, velocity, further]; the vector (cos, sin) may have any length."""
        return self.interpolate(self.value, self.places(np.arctan2(obs[..., 1], obs[..., 0]), obs[..., 2]))

    def gradient(self, obs: Array) -> Array:
        """Gradients [...] of the smoothed value with respect to observations [...]; zero in all components but the first three."""
        cos, sin = obs[..., 0], obs[..., 1]
        places = self.places(np.arctan2(sin, cos), obs[..., 2])
        slope = self.interpolate(self.by_angle, places) / np.maximum(cos**2 + sin**2, 1e-12)
        found = np.zeros_like(obs)
        found[..., 0], found[..., 1] = -slope * sin, slope * cos
        found[..., 2] = self.interpolate(self.by_velocity, places)
        return found
