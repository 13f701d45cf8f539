"""Accounts: the administrator, and those that the administrator creates."""

import hashlib
import secrets
from typing import Any

from .clock import now
from .errors import ApiError, coded
from .settings import Settings
from .store import Store

SHORTEST_PASSWORD = 4  # bytes
_ROUNDS = 20_000


def password_hash(password: str, salt: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", password.encode(), bytes.fromhex(salt), _ROUNDS).hex()


def is_too_short(password: str) -> bool:
    return len(password.encode()) < SHORTEST_PASSWORD


def set_password(store: Store, user: dict[str, Any], password: str) -> None:
    """Store a new password."""
    salt = secrets.token_hex(10)
    store.put("user", user["login"], {**user, "salt": salt, "password": password_hash(password, salt)})


def is_administrator(user: dict[str, Any]) -> bool:
    # The only account that an earlier version of the stand-in has stored.
    return user.get("role", "Admin") == "Admin"


def find(store: Store, name: str) -> dict[str, Any] | None:
    """The user with this login or e-mail address, in any case."""
    name = name.lower()
    return next((user for user in store.all("user") if name in (user["login"], user["email"])), None)


def _new(login: str, email: str, name: str, role: str) -> dict[str, Any]:
    return {"login": login, "email": email, "name": name, "role": role, "uid": secrets.token_hex(7), "created": now()}


def create_administrator(store: Store, settings: Settings) -> bool:
    """Create the administrator on the first start; later starts do not change the account."""
    if store.all("user") or settings.flag("security", "disable_initial_admin_creation"):
        return False
    login = settings.text("security", "admin_user", "admin")
    email = settings.text("security", "admin_email", "admin@localhost")
    user = store.put("user", login, _new(login, email, "", "Admin"))
    set_password(store, user, settings.text("security", "admin_password", "admin"))
    return True


def create(store: Store, body: Any) -> dict[str, Any]:
    """Create the user that a request describes: a viewer. Raises ApiError."""
    if not isinstance(body, dict):
        raise ApiError(400, "bad request data")
    texts = {key: body.get(key) or "" for key in ("login", "email", "name", "password")}
    organisation = body.get("OrgId") or 0
    if any(not isinstance(text, str) for text in texts.values()) or type(organisation) is not int:
        raise ApiError(400, "bad request data")
    login, email, password = texts["login"].lower(), texts["email"].lower(), texts["password"]
    if not password:
        raise ApiError(400, "bad request data")
    if not login and not email:
        raise coded(400, "user.empty-username-and-email", "Need to specify either username or email")
    if is_too_short(password):
        raise coded(400, "password.password-policy-too-short", "New password is too short")
    with store:
        if any(name and find(store, name) for name in (login, email)):
            text = f"User with email '{texts['email']}' or username '{texts['login']}' already exists"
            raise ApiError(412, text)
        if organisation not in (0, 1):
            raise ApiError(400, f"[org.notFound] failed to get organization with ID: {organisation}")
        login, email = login or email, email or login
        user = store.put("user", login, _new(login, email, texts["name"], "Viewer"))
        set_password(store, user, password)
    return user
