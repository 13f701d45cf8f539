"""Create all parts of the program, and provision in Grafana's order."""

from . import alerting_files, policies
from .access import Gate
from .dashboards import DashboardProvisioner, Library
from .datasources import DataSources
from .errors import StartError
from .log import Logger
from .notifications import Notifier
from .scheduler import Scheduler
from .settings import Settings
from .store import Store
from .users import create_administrator

_log = Logger("provisioning")


def open_store(settings: Settings) -> Store:
    """The state in [paths] data. Raises StartError."""
    kind = settings.text("database", "type", "sqlite3")
    if kind != "sqlite3" or settings.text("database", "url"):
        raise StartError(f"database type {kind} is not known to this stand-in: sqlite3 only")
    path = settings.data_path / settings.text("database", "path", "grafana.db")
    try:
        return Store(path, wal=settings.flag("database", "wal"))
    except OSError as error:
        raise StartError(f"failed to open the database {path}: {error}") from error


class Application:
    """The application that the HTTP server serves."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = open_store(settings)
        if create_administrator(self.store, settings):
            Logger("sqlstore").info("Created default admin", user=settings.text("security", "admin_user", "admin"))
        self.gate = Gate(self.store, settings)
        self.sources = DataSources(self.store)
        self.library = Library(self.store)
        directory = settings.provisioning_path
        self.dashboards = DashboardProvisioner(self.library, directory / "dashboards")
        self.notifier = Notifier(self.store, settings)
        alerts = settings.flag("unified_alerting", "execute_alerts", True)
        self.scheduler = Scheduler(self.store, self.library, self.sources, self.dashboards, self.notifier, alerts)
        self.dashboards.read()

    def provision(self) -> None:
        """Provision everything from the files. Raises StartError."""
        self.provision_datasources()
        self.provision_alerting()
        self.provision_dashboards()

    def provision_datasources(self) -> None:
        try:
            self.sources.provision(self.settings.provisioning_path / "datasources")
        except StartError as error:
            _log.error("Failed to provision data sources", error=error)
            raise

    def provision_alerting(self) -> None:
        try:
            alerting_files.provision(self.settings.provisioning_path / "alerting", self.store, self.library)
        except StartError as error:
            _log.error("Failed to provision alerting", error=error)
            raise

    def provision_dashboards(self) -> None:
        self.dashboards.read()
        self.dashboards.provision()

    def contact_points(self) -> list[dict]:
        return policies.contact_points(self.store)

    def close(self) -> None:
        self.scheduler.stop()
        self.store.close()
