# uerrno of Pycom's build. The numbers are those of the ESP32's C library (newlib), which are not Linux's from 90 on.
EPERM = 1
ENOENT = 2
EIO = 5
EBADF = 9
EAGAIN = 11
ENOMEM = 12
EACCES = 13
EEXIST = 17
ENODEV = 19
EISDIR = 21
EINVAL = 22
EOPNOTSUPP = 95
ECONNRESET = 104
ENOBUFS = 105
ECONNREFUSED = 111
EADDRINUSE = 112
ECONNABORTED = 113
ENETDOWN = 115
ETIMEDOUT = 116
EHOSTUNREACH = 118
EINPROGRESS = 119
EALREADY = 120
EMSGSIZE = 122
ENOTCONN = 128

errorcode = {value: name for name, value in list(globals().items()) if name[0] == "E"}

_FROM_LINUX = {
    90: EMSGSIZE,
    98: EADDRINUSE,
    100: ENETDOWN,
    101: EHOSTUNREACH,
    103: ECONNABORTED,
    107: ENOTCONN,
    110: ETIMEDOUT,
    113: EHOSTUNREACH,
    114: EALREADY,
    115: EINPROGRESS,
}


def number(linux):
    return _FROM_LINUX.get(linux, linux)
