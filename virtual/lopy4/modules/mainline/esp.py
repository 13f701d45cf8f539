LOG_NONE = 0
LOG_ERROR = 1


def osdebug(level, *arguments):
    pass


def flash_size():
    return 0x800000


def flash_user_start():
    return 0x200000
