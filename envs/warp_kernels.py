"""A kernel of our own for mujoco-warp's data; imported where Warp is there."""

import warp as wp


@wp.kernel
def clear(values: wp.array2d(dtype=float), columns: wp.array(dtype=int)) -> None:  # pyright: ignore[reportInvalidTypeForm]
    """values[:, columns] <- 0, launched over [rows, len(columns)]."""
    row, number = wp.tid()  # pyright: ignore[reportAssignmentType, reportGeneralTypeIssues]
    values[row, columns[number]] = 0.0
