"""Occupants of the agent's slots. Each slot's neutral occupant is its default, and neutral equals absent bit for bit."""

from steelyard.agents.parts.balance import Balance, Family, Fixed
from steelyard.agents.parts.calibration import Calibration, ReturnBound, Uncalibrated
from steelyard.agents.parts.cloning import ActionDistance, Cloning, NoCloning
from steelyard.agents.parts.model import Model, NoModel
from steelyard.agents.parts.objective import Objective, Regression, Squared
from steelyard.agents.parts.part import Part
from steelyard.agents.parts.plasticity import NoIntervention, Plasticity
from steelyard.agents.parts.weighting import DensityRatio, Uniform, UniformWeighting, Weighting

__all__ = [
    "ActionDistance",
    "Balance",
    "Calibration",
    "Cloning",
    "DensityRatio",
    "Family",
    "Fixed",
    "Model",
    "NoCloning",
    "NoIntervention",
    "NoModel",
    "Objective",
    "Part",
    "Plasticity",
    "Regression",
    "ReturnBound",
    "Squared",
    "Uncalibrated",
    "Uniform",
    "UniformWeighting",
    "Weighting",
]
