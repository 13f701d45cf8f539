"""Errors that end the program or a request."""

JSON = "application/json"
JSON_UTF8 = "application/json; charset=UTF-8"


class StartError(Exception):
    """The server cannot start, or a provisioning file is refused; the text is what Grafana prints."""


class ApiError(Exception):
    """A refusal with an HTTP status and the fields of the JSON body."""

    content_type = JSON

    def __init__(self, code: int, text: str, /, **fields: object) -> None:
        super().__init__(text)
        self.code = code
        self.body = {"message": text, **fields}


class Refusal(ApiError):
    """A refusal before the handler is reached; Grafana answers it with another content type."""

    content_type = JSON_UTF8


def coded(code: int, message_id: str, text: str, **fields: object) -> ApiError:
    """An error with messageId, as newer parts of Grafana answer it."""
    return ApiError(code, text, messageId=message_id, statusCode=code, **fields)


def unauthenticated(message_id: str, text: str) -> Refusal:
    """401 for a request without a valid login."""
    return Refusal(401, text, extra=None, messageId=message_id, statusCode=401, traceID="")
