from _socket_mainline import *  # noqa: F403
