from machine_mainline import *  # noqa: F403
