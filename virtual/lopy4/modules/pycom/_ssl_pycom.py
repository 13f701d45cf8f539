# ussl of Pycom's modussl.c: its wrap_socket takes other arguments than the Unix port's, so there is none.
CERT_NONE = 0
CERT_OPTIONAL = 1
CERT_REQUIRED = 2
