"""What must hold before any test: one thread for the numerical libraries, and Ctrl-C that can be felt.

The problems are small: more threads only wait for each other, and where cores are shared they wait for long. Tests of
the number of threads set it themselves. A shell that starts a job in the background has it ignore SIGINT, which the
programs that tests interrupt would inherit.
"""

import os
import signal

os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch is imported
signal.signal(signal.SIGINT, signal.default_int_handler)
