# What usocket and network raise after a time-out: an OSError with a name that is not built in.
class TimeoutError(OSError):
    pass


timeout = TimeoutError
