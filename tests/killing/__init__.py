"""Work that is killed; one thread, because a forked child has none of the threads that PyTorch would wait for."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch is imported
