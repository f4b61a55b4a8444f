"""Newton's method for the convex losses here: a few parameters, exact second derivatives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_STEPS = 100
_HALVINGS = 30
_RIDGE = 1e-12
_NEAR = 1e-13
_FAR = 40.0
"""Where a parameter runs away to infinity (all games won): its sigmoid is 1 to the last digit from here on."""


def minimise(loss: Callable[[Array], tuple[float, Array, Array]], start: Array) -> Array:
    """The parameters of least loss.

    Args:
        loss: parameters -> loss, gradient, Hessian; convex.
        start: parameters to begin with, shape (k,).
    """
    at = start.astype(np.float64)
    value, gradient, hessian = loss(at)
    for _ in range(_STEPS):
        ridge = _RIDGE * max(1.0, float(np.trace(hessian)))  # keeps a flat direction solvable; leaves the optimum where it is
        step = np.linalg.solve(hessian + ridge * np.eye(len(at)), gradient)
        if gradient @ step < _NEAR * max(1.0, abs(value)):
            return np.asarray(at - step)  # converges quadratically: this step goes to the last digits
        for halving in range(_HALVINGS):
            new = at - step / 2**halving
            new_value, gradient, hessian = loss(new)
            if new_value <= value:
                break
        at, value = new, new_value
        if np.abs(at).max() > _FAR:
            break
    return at
