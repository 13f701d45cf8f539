# In place of the virtual board's: the Unix port's clock and sockets in the time of the test.
import _fast_socket as socket  # noqa: F401
import _fast_time as time  # noqa: F401
