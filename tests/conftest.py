"""What all tests share."""

import os

from hypothesis import settings

# Before torch is loaded. Tests run in as many processes as there are cores: more threads wait for each other, for three
# times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadline: the first example pays for imports and compilation, and the machine may be busy.
settings.register_profile("patchbench", deadline=None)
settings.load_profile("patchbench")
