"""The oracles of worlds that a kernel steps: try out many plans in the kernel itself."""

import numpy as np
from numba import njit

from . import fresh  # noqa: F401


@njit(error_model="numpy", inline="always")
def first_of_shortest_plan(  # type: ignore[no-untyped-def]
    advance, habit, state_S, settings, actions, first_holds, second_holds, most_steps
):
    """Return the first action of the plan that reaches the end of the episode soonest.

    A plan takes one action for some steps, then its opposite for some, and then does by habit.

    Args:
        advance: That of the kernel.
        habit: `habit(state_1_S)` returns an action that leads to the end, if slowly.
        state_S: Where the plans begin.
        settings: Those of the kernel.
        actions: Number of actions; the opposite of the first is the last, and so on.
        first_holds: Steps for which a plan may take its first action, a tuple.
        second_holds: Steps for which it may take the opposite then, a tuple.
        most_steps: Steps after which a plan is given up.
    """
    state_1_S = np.empty((1, len(state_S)))
    action_1_1 = np.empty((1, 1), np.float32)
    state_1_S[0] = state_S
    best = habit(state_1_S)
    shortest = most_steps
    for first in range(actions):
        for first_hold in first_holds:
            for second_hold in second_holds:
                state_1_S[0] = state_S
                for step in range(shortest - 1):
                    if step < first_hold:
                        action = first
                    elif step < first_hold + second_hold:
                        action = actions - 1 - first
                    else:
                        action = habit(state_1_S)
                    action_1_1[0, 0] = action
                    if advance(state_1_S, 0, action_1_1, settings)[1]:
                        best, shortest = first, step + 1
                        break
    return best
