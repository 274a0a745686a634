"""Numba's caches, forgotten when what they were compiled from has changed.

Numba compares a cached function with its own file, and not with the files of the functions that
it calls: after a change of one of these it would go on running the old code. So the modules whose
compiled functions others call import this one, which looks once, before anything is loaded.
"""

import hashlib
from pathlib import Path

_ROOT = Path(__file__).parents[1]
CALLED = (
    "envs/float32.py",
    "envs/kernel.py",
    "envs/lookahead.py",
    "envs/pcg64.py",
    "envs/sines.py",
    "train/compiled/adam.py",
    "train/compiled/distributions.py",
    "train/compiled/elementary.py",
    "train/compiled/mixtures.py",
    "train/compiled/network.py",
    "train/compiled/products.py",
    "train/compiled/rollout.py",
    "train/compiled/slopes.py",
    "train/compiled/sums.py",
    "train/compiled/update.py",
    "train/compiled/windows.py",
    "train/compiled/winograd.py",
)
"""Modules whose compiled functions, or constants in such, are used in other files."""


def forget_stale(root: Path) -> None:
    """Delete what Numba has cached under a folder if one of the modules is another than then.

    Args:
        root: Folder of the package. One that cannot be written to has no caches in it.
    """
    stamp = hashlib.sha256()
    for name in CALLED:
        found = (root / name).stat()
        stamp.update(f"{name} {found.st_mtime_ns} {found.st_size}\n".encode())
    note = root / "envs" / "__pycache__" / "compiled.stamp"
    try:
        if note.exists() and note.read_text() == stamp.hexdigest():
            return
        for folder in {(root / name).parent for name in CALLED}:
            for cached in folder.glob("__pycache__/*.nb[ic]"):
                cached.unlink(missing_ok=True)
        note.parent.mkdir(exist_ok=True)
        note.write_text(stamp.hexdigest())
    except OSError:
        return


forget_stale(_ROOT)
