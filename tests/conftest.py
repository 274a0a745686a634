"""Settings for every test; nothing here imports torch."""

import os

import hypothesis

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws without a screen
hypothesis.settings.register_profile("palaestra", deadline=None)
hypothesis.settings.load_profile("palaestra")
