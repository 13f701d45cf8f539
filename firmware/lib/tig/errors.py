"""The words for what went wrong on the network."""

import errno


def words(error):
    if isinstance(error, OSError) and error.args:
        return str(errno.errorcode.get(error.args[0], "error %s" % error.args[0]))
    return str(error)
