"""Newton's method for the convex losses here: a few parameters, exact second derivatives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_STEPS = 100
_HALVINGS = 30
_RIDGE = 1e-12
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
        if np.abs(step).max() < 1e-11 or np.abs(at).max() > _FAR:
            break
        scale = 1.0
        for _ in range(_HALVINGS):
            new = at - scale * step
            new_value, new_gradient, new_hessian = loss(new)
            if new_value <= value:
                break
            scale /= 2
        else:
            break  # no step makes it less: as near as floating point comes
        at, value, gradient, hessian = new, new_value, new_gradient, new_hessian
    return at
