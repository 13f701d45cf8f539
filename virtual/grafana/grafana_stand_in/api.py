"""The part of Grafana's HTTP API that tig-pi and its tests use."""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable
from typing import Any

from . import VERSION, dashboards, datasources, influxql, pages, policies, queries, rule_test, users
from .access import forbidden
from .application import Application
from .errors import ApiError, StartError, coded
from .http_messages import Request, Response
from .influxql import QueryError
from .log import Logger
from .prometheus_rules import rules_response

_SHARED = {"id": -1, "uid": "sharedwithme", "title": "Shared with me"}
_log = Logger("context")
# What a request needs: nothing (None), a login (""), or the administrator, to whom alone Grafana gives these permissions.
Needs = str | None
Route = tuple[str, re.Pattern, Callable[..., Response], Needs]
_PUT_POLICIES = (
    "any of alert.provisioning:write, alert.notifications.provisioning:write, all of alert.notifications:write,"
    " alert.provisioning.provenance:write"
)


def routes(application: Application) -> list[Route]:
    """A route: method, path, handler, and what a request needs."""
    api = Api(application)
    table: list[tuple[str, str, Callable[..., Response], Needs]] = [
        ("GET", "/api/health", api.health, None),
        ("GET", "/login", api.login_page, None),
        ("GET", "/api/user", api.user, ""),
        ("GET", "/api/users", api.users, "users:read"),
        ("GET", "/api/users/lookup", api.lookup_user, "users:read"),
        ("POST", "/api/admin/users", api.create_user, "users:create"),
        ("GET", "/api/datasources", api.datasources, ""),
        ("GET", r"/api/datasources/uid/([^/]+)/health", api.datasource_health, ""),
        ("DELETE", r"/api/datasources/uid/([^/]+)", api.delete_datasource, "datasources:delete"),
        ("GET", "/api/search", api.search, ""),
        ("GET", r"/api/dashboards/uid/([^/]+)", api.dashboard, ""),
        ("DELETE", r"/api/dashboards/uid/([^/]+)", api.delete_dashboard, ""),
        ("POST", "/api/dashboards/db", api.save_dashboard, "any of dashboards:create, dashboards:write"),
        ("GET", "/api/folders", api.folders, ""),
        ("POST", "/api/folders", api.create_folder, "folders:create"),
        ("POST", "/api/ds/query", api.query, ""),
        ("GET", "/api/v1/provisioning/alert-rules", api.alert_rules, ""),
        ("GET", "/api/v1/provisioning/contact-points", api.contact_points, ""),
        ("GET", "/api/v1/provisioning/policies", api.policies, ""),
        ("PUT", "/api/v1/provisioning/policies", api.put_policies, _PUT_POLICIES),
        ("GET", "/api/prometheus/grafana/api/v1/rules", api.rules, ""),
        ("POST", "/api/v1/rule/test/grafana", api.test_rule, ""),
        (
            "POST",
            r"/api/admin/provisioning/(dashboards|datasources|alerting|plugins)/reload",
            api.reload,
            "provisioning:reload",
        ),
    ]
    return [(method, re.compile(pattern), function, needs) for method, pattern, function, needs in table]


def _avatar(user: dict[str, Any]) -> str:
    return "/avatar/" + hashlib.md5(user["email"].encode()).hexdigest()


def _positive(texts: list[str] | None, default: int) -> int:
    """A number of a query; what is not a positive one is the default, as in Grafana."""
    with contextlib.suppress(ValueError, TypeError, IndexError):
        return max(int(texts[0]), 0) or default
    return default


class Api:
    """Handlers; each takes the request and the parts of the path."""

    def __init__(self, application: Application) -> None:
        self.app = application
        self._reload_lock = threading.Lock()

    # --- health and users ---------------------------------------------------------------------------------------

    def health(self, request: Request) -> Response:
        body = {"database": "ok", "version": VERSION, "commit": "stand-in"}
        return Response(200, json.dumps(body, indent=2).encode(), "application/json; charset=UTF-8")

    def login_page(self, request: Request) -> Response:
        return Response(200, pages.notice(), pages.TYPE)

    @staticmethod
    def _user_json(user: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": user["id"],
            "uid": user["uid"],
            "email": user["email"],
            "name": user["name"],
            "login": user["login"],
            "theme": "",
            "orgId": 1,
            "isGrafanaAdmin": users.is_administrator(user),
            "isDisabled": False,
            "isExternal": False,
            "isExternallySynced": False,
            "isGrafanaAdminExternallySynced": False,
            "authLabels": [],
            "updatedAt": user["created"],
            "createdAt": user["created"],
            "avatarUrl": _avatar(user),
            "isProvisioned": False,
        }

    def user(self, request: Request) -> Response:
        return Response(200, self._user_json(request.user or {}))

    def lookup_user(self, request: Request) -> Response:
        name = request.query.get("loginOrEmail", [""])[0]
        user = users.find(self.app.store, name) if name else None
        if user is None:
            raise ApiError(404, "user not found")
        # Grafana leaves these empty here.
        return Response(200, {**self._user_json(user), "uid": "", "authLabels": None, "avatarUrl": ""})

    def create_user(self, request: Request) -> Response:
        user = users.create(self.app.store, request.json())
        return Response(200, {"id": user["id"], "uid": user["uid"], "message": "User created"})

    def users(self, request: Request) -> Response:
        found = sorted(self.app.store.all("user"), key=lambda user: user["login"])
        size = _positive(request.query.get("perpage"), 1000)
        first = (_positive(request.query.get("page"), 1) - 1) * size
        return Response(
            200,
            [
                {
                    "id": user["id"],
                    "uid": user["uid"],
                    "name": user["name"],
                    "login": user["login"],
                    "email": user["email"],
                    "avatarUrl": _avatar(user),
                    "isAdmin": users.is_administrator(user),
                    "isDisabled": False,
                    "isProvisioned": False,
                    "lastSeenAt": user["created"],
                    "lastSeenAtAge": "< 1 minute",
                    "authLabels": [],
                }
                for user in found[first : first + size]
            ],
        )

    # --- data sources -------------------------------------------------------------------------------------------

    def datasources(self, request: Request) -> Response:
        return Response(200, self.app.sources.all())

    def datasource_health(self, request: Request, uid: str) -> Response:
        source = self.app.sources.find(uid)
        if source is None:
            raise ApiError(500, "Unable to load datasource metadata")
        if source["type"] != "influxdb":
            raise datasources.not_registered()
        try:
            return Response(200, {"message": influxql.health(source), "status": "OK"})
        except QueryError as error:
            return Response(400, {"message": f"{error} error reading influxDB", "status": "ERROR"})

    def delete_datasource(self, request: Request, uid: str) -> Response:
        return Response(200, self.app.sources.delete(uid))

    def query(self, request: Request) -> Response:
        parsed = queries.parse_request(request.json(), self.app.sources)
        try:
            results = queries.run(parsed, self.app.sources)
        except queries.SourceNotFound as error:
            raise ApiError(404, "Data source not found") from error
        except queries.BadExpression as error:
            raise coded(
                400, "sse.parseError", str(error), extra={"error": error.reason, "refId": error.ref_id}
            ) from error
        except queries.BadPipeline as error:
            raise ApiError(500, "Query data error") from error
        return Response(*queries.answer(parsed, results))

    # --- dashboards and folders ---------------------------------------------------------------------------------

    def search(self, request: Request) -> Response:
        wanted = request.query.get("query", [""])[0].lower()
        kind = request.query.get("type", [""])[0]
        tags = set(request.query.get("tag", []))
        uids = set(request.query.get("dashboardUIDs", [])) | set(request.query.get("dashboardUID", []))
        parents = set(request.query.get("folderUIDs", [])) | set(request.query.get("folderUid", []))
        limit = int(request.query.get("limit", ["1000"])[0])
        found = []
        if kind in ("", "dash-folder"):
            found += [self._hit(f, "dash-folder") for f in self.app.library.folders()]
        if kind in ("", "dash-db"):
            found += [self._hit(d, "dash-db") for d in self.app.library.dashboards()]
        found = [
            hit
            for hit in found
            if wanted in hit["title"].lower()
            and tags <= set(hit["tags"])
            and (not uids or hit["uid"] in uids)
            and (not parents or hit.get("folderUid", "general") in parents)
        ]
        found.sort(key=lambda hit: (hit["type"] != "dash-folder", hit["title"].lower()))
        return Response(200, found[:limit])

    def _hit(self, entry: dict[str, Any], kind: str) -> dict[str, Any]:
        is_folder = kind == "dash-folder"
        slug = dashboards.slug(entry["title"])
        hit = {
            "id": entry["id"],
            "orgId": 1,
            "uid": entry["uid"],
            "title": entry["title"],
            "uri": f"db/{slug}",
            "url": f"/dashboards/f/{entry['uid']}/{slug}" if is_folder else f"/d/{entry['uid']}/{slug}",
            "slug": "",
            "type": kind,
            "tags": entry.get("tags", []),
            "isStarred": False,
            "sortMeta": 0,
            "isDeleted": False,
        }
        if not is_folder and (folder := self._folder_of(entry)):
            hit |= {
                "folderId": folder["id"],
                "folderUid": folder["uid"],
                "folderTitle": folder["title"],
                "folderUrl": f"/dashboards/f/{folder['uid']}/{dashboards.slug(folder['title'])}",
            }
        return hit

    def _folder_of(self, dashboard: dict[str, Any]) -> dict[str, Any] | None:
        return self.app.library.folder(dashboard["folderUid"]) if dashboard["folderUid"] else None

    def _dashboard(self, uid: str) -> dict[str, Any]:
        dashboard = self.app.library.dashboard(uid)
        if dashboard is None:
            raise ApiError(404, "Dashboard not found")
        return dashboard

    def dashboard(self, request: Request, uid: str) -> Response:
        dashboard = self._dashboard(uid)
        folder = self._folder_of(dashboard)
        source = dashboard["provisioning"]
        slug = dashboards.slug(dashboard["title"])
        folder_slug = dashboards.slug(folder["title"]) if folder else ""
        may = users.is_administrator(request.user)
        annotations = {"canAdd": may, "canEdit": may, "canDelete": may}
        meta = {
            "type": "db",
            "canSave": may,
            "canEdit": may,
            "canAdmin": may,
            "canStar": True,
            "canDelete": may,
            "slug": slug,
            "url": f"/d/{dashboard['uid']}/{slug}",
            "expires": "0001-01-01T00:00:00Z",
            "created": dashboard["created"],
            "updated": dashboard["updated"],
            "updatedBy": "admin",
            "createdBy": "admin",
            "version": dashboard["version"],
            "hasAcl": False,
            "isFolder": False,
            "apiVersion": "v0alpha1",
            "folderId": folder["id"] if folder else 0,
            "folderUid": dashboard["folderUid"],
            "folderTitle": folder["title"] if folder else "Dashboards",
            "folderUrl": f"/dashboards/f/{folder['uid']}/{folder_slug}" if folder else "",
            "provisioned": source is not None,
            "provisionedExternalId": source["relative"] if source else "",
            "annotationsPermissions": {"dashboard": annotations, "organization": annotations},
        }
        return Response(200, {"meta": meta, "dashboard": dashboard["model"]})

    def save_dashboard(self, request: Request) -> Response:
        body = request.json()
        model = body.get("dashboard") if isinstance(body, dict) else None
        if not isinstance(model, dict):
            raise ApiError(400, "bad request data")
        folder_uid = body.get("folderUid") or ""
        if folder_uid == "general":
            folder_uid = ""
        if folder_uid and self.app.library.folder(folder_uid) is None:
            raise ApiError(400, "folder not found")
        uid = model.get("uid") or ""
        old = self.app.library.dashboard(uid) if uid else None
        if old is None and model.get("id"):
            old = next((d for d in self.app.library.dashboards() if d["id"] == model["id"]), None)
            if old is None:
                raise ApiError(404, "Dashboard not found", status="not-found")
            model["uid"] = old["uid"]
        provisioning = old["provisioning"] if old else None
        if provisioning and not provisioning["allowUiUpdates"]:
            raise ApiError(400, "Cannot save provisioned dashboard")
        if old and not body.get("overwrite") and model.get("version") not in (None, old["version"]):
            raise ApiError(412, "The dashboard has been changed by someone else", status="version-mismatch")
        if old and not body.get("overwrite") and not model.get("id") and model.get("version") is None:
            raise ApiError(412, "The dashboard has been changed by someone else", status="version-mismatch")
        model.pop("id", None)
        saved = self.app.library.save(model, folder_uid, provisioning)
        slug = dashboards.slug(saved["title"])
        return Response(
            200,
            {
                "folderUid": saved["folderUid"],
                "id": saved["id"],
                "slug": slug,
                "status": "success",
                "uid": saved["uid"],
                "url": f"/d/{saved['uid']}/{slug}",
                "version": saved["version"],
            },
        )

    def delete_dashboard(self, request: Request, uid: str) -> Response:
        dashboard = self._dashboard(uid)
        if not users.is_administrator(request.user):
            raise forbidden("dashboards:delete")
        if dashboard["provisioning"]:
            raise ApiError(400, "provisioned dashboard cannot be deleted")
        self.app.library.delete(uid)
        return Response(
            200,
            {"message": f"Dashboard {dashboard['title']} deleted", "title": dashboard["title"], "uid": uid},
        )

    def folders(self, request: Request) -> Response:
        found = sorted(self.app.library.folders(), key=lambda folder: folder["title"].lower())
        shared = [] if users.is_administrator(request.user) else [_SHARED]
        return Response(200, shared + [{"id": f["id"], "uid": f["uid"], "title": f["title"]} for f in found])

    def create_folder(self, request: Request) -> Response:
        body = request.json()
        return Response(
            200, self._folder_json(self.app.library.create_folder(body.get("title") or "", body.get("uid") or ""))
        )

    @staticmethod
    def _folder_json(folder: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": folder["id"],
            "uid": folder["uid"],
            "orgId": 1,
            "title": folder["title"],
            "url": f"/dashboards/f/{folder['uid']}/{dashboards.slug(folder['title'])}",
            "hasAcl": False,
            "canSave": True,
            "canEdit": True,
            "canAdmin": True,
            "canDelete": True,
            "createdBy": "admin",
            "created": folder["created"],
            "updatedBy": "admin",
            "updated": folder["updated"],
            "version": folder["version"],
        }

    # --- alerting -----------------------------------------------------------------------------------------------

    @staticmethod
    def _rule_json(rule: dict[str, Any]) -> dict[str, Any]:
        texts = {key: rule[key] for key in ("annotations", "labels") if rule[key]}
        return {
            **texts,
            "id": rule["id"],
            "uid": rule["uid"],
            "orgID": 1,
            "folderUID": rule["folderUID"],
            "ruleGroup": rule["ruleGroup"],
            "title": rule["title"],
            "condition": rule["condition"],
            "data": rule["data"],
            "updated": rule["updated"],
            "noDataState": rule["noDataState"],
            "execErrState": rule["execErrState"],
            "for": rule["for"],
            "keep_firing_for": rule["keep_firing_for"],
            "provenance": rule["provenance"],
            "isPaused": rule["isPaused"],
            "notification_settings": rule["notification_settings"],
            "record": None,
        }

    def alert_rules(self, request: Request) -> Response:
        return Response(200, [self._rule_json(rule) for rule in self.app.store.all("rule")])

    def contact_points(self, request: Request) -> Response:
        hidden = {"password", "authorization_credentials", "token", "bottoken", "integrationKey", "apiKey"}
        shown = []
        for point in self.app.contact_points():
            settings = {k: "[REDACTED]" if k in hidden and v else v for k, v in point["settings"].items()}
            shown.append({**point, "settings": settings})
        name = request.query.get("name", [""])[0]
        return Response(200, [point for point in shown if not name or point["name"] == name])

    def policies(self, request: Request) -> Response:
        return Response(200, policies.tree(self.app.store))

    def put_policies(self, request: Request) -> Response:
        tree = request.json()
        try:
            policies.check_tree(tree, self.app.store)
        except policies.PolicyError as error:
            raise coded(
                400,
                "alerting.notifications.routes.invalidFormat",
                f"Invalid format of the submitted route: {error}. Correct the payload and try again.",
                extra={"Error": str(error)},
            ) from error
        tree = {key: value for key, value in tree.items() if key != "provenance"}
        self.app.store.put("policies", "tree", {"tree": tree, "provenance": "api"})
        return Response(202, {"message": "policies updated"})

    def rules(self, request: Request) -> Response:
        return Response(200, rules_response(self.app))

    def test_rule(self, request: Request) -> Response:
        body = request.json() if request.body else {}
        return Response(200, rule_test.alerts(self.app, body))

    # --- reload ------------------------------------------------------------------------------------------------------

    def reload(self, request: Request, what: str) -> Response:
        with self._reload_lock:
            try:
                getattr(self.app, f"provision_{what}", lambda: None)()
            except StartError as error:
                _log.error("Request Completed", path=request.path, status=500, error=error)
                raise ApiError(500, "Internal Server Error") from error
        name = {"dashboards": "Dashboards", "datasources": "Datasources", "alerting": "Alerting", "plugins": "Plugins"}[
            what
        ]
        return Response(200, {"message": f"{name} config reloaded"})
