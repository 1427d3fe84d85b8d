"""Attribution: other people's code, run in a process of its own that never holds the ground truth."""
