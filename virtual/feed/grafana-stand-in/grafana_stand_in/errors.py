"""Errors that end the program or a request."""


class StartError(Exception):
    """The server cannot start, or a provisioning file is refused; the text is what Grafana prints."""


class ApiError(Exception):
    """A refusal with an HTTP status and the fields of the JSON body."""

    def __init__(self, status: int, message: str, **fields: object) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"message": message, **fields}


def coded(status: int, message_id: str, message: str, **fields: object) -> ApiError:
    """The longer error body, with messageId, that newer parts of Grafana answer with."""
    return ApiError(status, message, messageId=message_id, statusCode=status, traceID="", **fields)
