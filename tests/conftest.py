"""What all tests share."""

from hypothesis import settings

# No deadline: the first example pays for imports and compilation, and the machine may be busy.
settings.register_profile("patchbench", deadline=None)
settings.load_profile("patchbench")
