from _hardware import call as _call

WAKEUP_ALL_LOW = False
WAKEUP_ANY_HIGH = True
HEAP_DATA = 4


class NVS:
    def __init__(self, namespace):
        self._prefix = namespace + "."

    def set_i32(self, key, value):
        _call("nvs_set", self._prefix + key, value)

    def get_i32(self, key):
        value = _call("nvs_get", self._prefix + key)
        if not isinstance(value, int):
            raise OSError(-4354, "ESP_ERR_NVS_NOT_FOUND")
        return value

    def set_blob(self, key, value):
        import binascii

        _call("nvs_set", self._prefix + key, str(binascii.hexlify(value), "ascii"))

    def get_blob(self, key, buffer):
        import binascii

        value = _call("nvs_get", self._prefix + key)
        if not isinstance(value, str):
            raise OSError(-4354, "ESP_ERR_NVS_NOT_FOUND")
        value = binascii.unhexlify(value)
        buffer[: len(value)] = value
        return len(value)

    def erase_key(self, key):
        if not _call("nvs_erase", self._prefix + key):
            raise OSError(-4354, "ESP_ERR_NVS_NOT_FOUND")

    def commit(self):
        pass


def raw_temperature():
    return 128


def idf_heap_info(capabilities):
    return [(200000, 100000, 80000, 60000)]
