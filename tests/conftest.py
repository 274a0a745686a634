"""Settings for every test; nothing here imports torch."""

import os

import hypothesis

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws without a screen
# Threads that wait for each other are many times slower where anything else runs beside them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
hypothesis.settings.register_profile("palaestra", deadline=None)
hypothesis.settings.load_profile("palaestra")
