# Nothing: imported once for each module that is put together from names (see pycom/_platform.py).
