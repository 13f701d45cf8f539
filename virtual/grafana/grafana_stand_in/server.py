"""The HTTP server: it identifies the user, finds the route and sends the response."""

import base64
import binascii
import socket
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from . import VERSION, api, pages
from .access import forbidden, unauthorized
from .application import Application
from .errors import ApiError, Refusal, StartError, unauthenticated
from .http_messages import Request, Response
from .log import Logger
from .users import is_administrator

_log = Logger("http.server")
_LARGEST_BODY = 16 * 1024 * 1024


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = f"grafana-stand-in/{VERSION}"
    sys_version = ""
    timeout = 60
    disable_nagle_algorithm = True
    wbufsize = 65536  # send headers and body together
    server: "Server"

    def log_message(self, *_: Any) -> None:
        """Do nothing: _serve logs requests if [server] router_logging is set."""

    def _serve(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        if length > _LARGEST_BODY:
            self.close_connection = True
            self._send(Response(413, {"message": "request body too large"}))
            return
        body = self.rfile.read(length) if length else b""
        path = urllib.parse.unquote(parts.path)
        request = Request(self.command, path, urllib.parse.parse_qs(parts.query), body)
        try:
            response = self.server.answer(request, self.headers)
        except ApiError as error:
            response = Response(error.code, error.body, error.content_type)
        except StartError as error:
            response = Response(500, {"message": "", "error": str(error)})
        except Exception as error:  # the client must get an answer
            _log.error("Request error", path=path, error=repr(error))
            response = Response(500, {"message": "Internal Server Error"})
        self._send(response)
        if self.server.log_requests:
            _log.info("Request Completed", method=self.command, path=path, status=response.status)

    def _send(self, response: Response) -> None:
        data = response.encoded()
        self.send_response(response.status)
        if response.content_type:
            self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "deny")
        for name, value in response.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve


class Server(ThreadingHTTPServer):
    """Serves one Application."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, application: Application) -> None:
        self.application = application
        settings = application.settings
        self.log_requests = settings.flag("server", "router_logging")
        self._routes = api.routes(application)
        address = settings.text("server", "http_addr", "")
        if ":" in address or (not address and socket.has_dualstack_ipv6()):
            self.address_family = socket.AF_INET6
        port = settings.number("server", "http_port", 3000)
        try:
            super().__init__((address, port), _Handler)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise StartError(
                f"failed to open listener on address {address}:{port}: listen tcp {address}:{port}: bind: {reason}"
            ) from error

    def server_bind(self) -> None:
        # As in HTTPServer, but without a DNS request for this machine's name.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.address_family == socket.AF_INET6 and not self.server_address[0]:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "localhost", self.server_address[1]

    def handle_error(self, *_: Any) -> None:
        """Do not log that a client has closed the connection."""

    def answer(self, request: Request, headers: Any) -> Response:
        """Find the route and check the login. Raises ApiError."""
        self._identify(request, headers)
        for method, pattern, function, needs in self._routes:
            match = pattern.fullmatch(request.path)
            if not match:
                continue
            if method != request.method and not (method == "GET" and request.method == "HEAD"):
                continue
            if request.user is None and needs is not None:
                break
            if needs and not is_administrator(request.user):
                raise forbidden(needs)
            return function(request, *match.groups())
        if request.user is None:
            if request.path.startswith("/api/"):
                raise unauthorized()
            return Response(*pages.redirect_to_login(request.path))
        if not request.path.startswith("/api/"):
            return Response(404, pages.notice(), pages.TYPE)
        raise Refusal(404, "Not found")

    def _identify(self, request: Request, headers: Any) -> None:
        gate = self.application.gate
        authorization = headers.get("Authorization") or ""
        scheme, _, credentials = authorization.partition(" ")
        if scheme.lower() == "basic" and gate.basic:
            try:
                name, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise Refusal(400, "Invalid Basic Auth Header", messageId="basic-auth.invalid-header") from error
            try:
                request.user = gate.password(name, password)
            except ApiError as error:
                raise unauthenticated(error.body["messageId"], error.body["message"]) from error
            return
        if scheme.lower() == "bearer":
            raise unauthenticated("api-key.invalid", "Invalid API key")
