"""HTTP requests and responses, as the handlers of the API see them."""

import json
from dataclasses import dataclass, field
from typing import Any

from .errors import ApiError


@dataclass
class Request:
    """A request with its user (None before the login)."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes
    user: dict[str, Any] | None = None

    def json(self) -> Any:
        """The body. Raises ApiError."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ApiError(400, "bad request data") from error


@dataclass
class Response:
    """A response; a body that is not bytes is sent as JSON."""

    status: int = 200
    body: Any = b""
    content_type: str = "application/json"
    headers: list[tuple[str, str]] = field(default_factory=list)

    def encoded(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body, separators=(",", ":")).encode()
