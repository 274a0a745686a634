"""Libraries that are long to import, imported while the garbage collector rests.

Modules that users import first, and that need one of them, import this one before. Each time that
there is a quarter more, the collector looks through all that there is, which was a fifth of the
time from the start of the interpreter to the end of a first update.
"""

import gc

_WAS_ENABLED = gc.isenabled()
gc.disable()
try:
    import stable_baselines3  # noqa: F401

    from ..envs import kernel_env  # noqa: F401 - with it, all that Numba loads
finally:
    if gc.get_freeze_count() == 0:
        # What is new counts as old, or the next look would be through all of it. So the first one
        # is put off until there are tens of thousands more objects.
        gc.freeze()
        gc.unfreeze()
    if _WAS_ENABLED:
        gc.enable()
