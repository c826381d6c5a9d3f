"""Occupants of the agent's slots. Each slot's neutral occupant is its default, and neutral equals absent bit for bit."""

from steelyard.agents.parts.balance import Balance, Fixed
from steelyard.agents.parts.model import Model, NoModel
from steelyard.agents.parts.objective import Objective, Regression, Squared
from steelyard.agents.parts.part import Part
from steelyard.agents.parts.plasticity import NoIntervention, Plasticity
from steelyard.agents.parts.weighting import Uniform, Weighting

__all__ = [
    "Balance",
    "Fixed",
    "Model",
    "NoIntervention",
    "NoModel",
    "Objective",
    "Part",
    "Plasticity",
    "Regression",
    "Squared",
    "Uniform",
    "Weighting",
]
