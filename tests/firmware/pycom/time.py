from _time_pycom import *  # noqa: F403
