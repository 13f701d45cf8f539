from machine_pycom import *  # noqa: F403
