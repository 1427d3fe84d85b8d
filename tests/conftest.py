"""One thread for the numerical libraries, here and in every process that a test starts.

The problems are small: more threads only wait for each other, and where cores are shared they wait for long. Tests of
the number of threads set it themselves.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch is imported
