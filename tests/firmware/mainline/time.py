from _time_mainline import *  # noqa: F403
