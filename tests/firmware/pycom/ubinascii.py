from _binascii_pycom import *  # noqa: F403
