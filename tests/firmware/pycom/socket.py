from _socket_pycom import *  # noqa: F403
