"""Login by name and password, and the lock after too many wrong passwords."""

import hmac
import secrets
import threading
import time
from typing import Any

from . import users
from .errors import ApiError, Refusal, coded, unauthenticated
from .settings import Settings
from .store import Store

_ATTEMPT_WINDOW = 300  # seconds


class Gate:
    """Checks names and passwords."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._failures: dict[str, list[float]] = {}
        self._verified: dict[str, bytes] = {}
        self._pepper = secrets.token_bytes(16)
        self._protected = not settings.flag("security", "disable_brute_force_login_protection")
        self._protected &= not settings.flag("security", "disable_username_login_protection")
        self._attempts = settings.number("security", "brute_force_login_protection_max_attempts", 5)
        self.basic = settings.flag("auth.basic", "enabled", True)

    def _blocked(self, login: str) -> bool:
        with self._lock:
            recent = [at for at in self._failures.get(login, []) if at > time.monotonic() - _ATTEMPT_WINDOW]
            if recent:
                self._failures[login] = recent
            else:
                self._failures.pop(login, None)
            return self._protected and len(recent) >= self._attempts

    def password(self, login: str, password: str) -> dict[str, Any]:
        """The user with this name and password. Raises ApiError 401."""
        login = login.lower()
        wrong = coded(401, "password-auth.failed", "Invalid username or password")
        if self._blocked(login):
            raise wrong
        user = users.find(self._store, login)
        if user is None:
            self._failed(login)
            raise wrong
        # Compute the slow hash only once; later logins compare a fast keyed hash of the same password.
        quick = hmac.digest(self._pepper, f"{user['password']}:{password}".encode(), "sha256")
        if not hmac.compare_digest(self._verified.get(login, b""), quick):
            if not hmac.compare_digest(user["password"], users.password_hash(password, user["salt"])):
                self._failed(login)
                raise wrong
            self._verified[login] = quick
        with self._lock:
            self._failures.pop(login, None)
        return user

    def _failed(self, login: str) -> None:
        with self._lock:
            if len(self._failures) < 1000 or login in self._failures:
                self._failures.setdefault(login, []).append(time.monotonic())


def unauthorized() -> ApiError:
    return unauthenticated("auth.unauthorized", "Unauthorized")


def forbidden(permissions: str) -> ApiError:
    """403 for a user who is not the administrator."""
    return Refusal(
        403,
        f"You'll need additional permissions to perform this action. Permissions needed: {permissions}",
        accessErrorId=f"ACE{secrets.randbelow(10**10):010}",
        title="Access denied",
    )
