from network_pycom import *  # noqa: F403
