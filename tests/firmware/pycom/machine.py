from machine_pycom import *  # noqa: F403
from machine_pycom import setup

setup(None)
