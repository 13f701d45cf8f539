"""The description of a site: what follows from it, and what is told of a bad one before anything is touched."""

from __future__ import annotations

import copy
import itertools
import re

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.tig_pi.stack.plugins.filter import site_description as site
from project import CONTRACT, PROBE, REPOSITORY

READINGS = yaml.safe_load((REPOSITORY / "inventories/home/group_vars/site/readings.yml").read_text())["site_readings"]
DEFAULTS = yaml.safe_load((REPOSITORY / "playbooks/group_vars/all/10_site.yml").read_text())
RENAMED = yaml.safe_load((REPOSITORY / "roles/validate/vars/main.yml").read_text())["__validate_renamed"]
SENSORS = yaml.safe_load((REPOSITORY / "inventories/home/host_vars/matslopy4.yml").read_text())["lopy4_sensors"]
FUNCTIONS = ("brokers", "databases", "collectors", "dashboards", "flows")


@pytest.fixture
def described(tmp_path):
    """A sound site with one Pi and two devices: hostvars and groups, to be spoilt."""
    (tmp_path / "host_vars").mkdir()
    common = {
        **DEFAULTS,
        "site_alert_topic": "tig-alert",
        "site_readings": copy.deepcopy(READINGS),
        "site_extra_topics": ["mats/test"],
        "site_accounts": [{"name": "mats", "publish": ["mats/test"]}],
        "inventory_dir": str(tmp_path),
    }
    hosts = {"pi": {}, "matslopy4": {"lopy4_sensors": SENSORS}, "greenhouse": {"lopy4_sensors": [SENSORS[0]]}}
    hostvars = {host: {**copy.deepcopy(common), **copy.deepcopy(own)} for host, own in hosts.items()}
    groups = {"all": list(hosts), "devices": ["matslopy4", "greenhouse"], **{name: ["pi"] for name in FUNCTIONS}}
    return hostvars, groups


def problems(described):
    hostvars, groups = described
    return site.site_problems(hostvars["pi"], hostvars, groups, RENAMED)


def test_a_valid_site_has_no_problems(described):
    assert problems(described) == []


def test_every_driver_of_the_firmware_is_known():
    assert set(site.drivers()) >= {"dht11", "bmp180", "soil"}
    assert set(site.drivers()["bmp180"]) == {"pressure", "temperature", "altitude"}


def spoil_reading(**change):
    def spoil(hostvars, groups):
        for host in hostvars.values():
            host["site_readings"][0].update(change)

    return spoil


def spoil_variable(name, value, host="pi"):
    return lambda hostvars, groups: hostvars[host].update({name: value})


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (spoil_reading(field="outside temp"), "outside temp is not a valid name of a field"),
        (spoil_reading(field="time"), "time is not a valid name of a field"),
        (spoil_reading(field="outsidehumidity"), "outsidehumidity is declared 2 times"),
        (spoil_reading(titel="x"), "unknown key titel. Did you mean title?"),
        (spoil_reading(unit=""), "outsidetemp has no unit"),
        (spoil_reading(low=50), "low (50) must be less than high"),
        (spoil_reading(low="cold"), "low is 'cold'; it must be a number"),
        (
            spoil_reading(sensor="dht12"),
            f"unknown sensor dht12; the drivers are {', '.join(sorted(site.drivers()))}. Did you mean dht11?",
        ),
        (spoil_reading(quantity="warmth"), "dht11 measures humidity, temperature; quantity is 'warmth'"),
        (spoil_variable("lopy4_name", "greenhouse", "matslopy4"), "2 devices have the name greenhouse"),
        (spoil_variable("lopy4_name", "green house", "matslopy4"), "'green house' is not a valid name of a device"),
        (spoil_variable("lopy4_name", PROBE, "matslopy4"), f"{PROBE} is reserved for `make verify`"),
        (spoil_variable("lopy4_name", CONTRACT["operator"], "matslopy4"), "is reserved for `make replay`"),
        (spoil_variable("lopy4_name", "telegraf", "matslopy4"), "telegraf is reserved for a service of the Pi"),
        (spoil_variable("lopy4_name", "x" * 65, "matslopy4"), "is not a valid name of a device"),
        (spoil_reading(field="x" * 129), "is not a valid name of a field"),
        (spoil_variable("site_measurement", "device_status"), "site_measurement: device_status is used for other data"),
        (spoil_variable("site_measurement", "cpu"), "site_measurement: cpu is used for other data"),
        (spoil_variable("site_measurement", 'a "b"'), "is not a valid name of a measurement"),
        (spoil_variable("lopy4_sensors", [], "matslopy4"), "host_vars/matslopy4.yml: lopy4_sensors is missing"),
        (spoil_variable("lopy4_sensors", [{"driver": "dth11"}], "matslopy4"), "unknown driver dth11"),
        (
            spoil_variable(
                "lopy4_sensors", [{"driver": "dht11", "fields": {"temperature": "outsidtemp"}}], "matslopy4"
            ),
            "no field outsidtemp in site_readings. Did you mean outsidetemp?",
        ),
        (
            spoil_variable(
                "lopy4_sensors", [{"driver": "dht11", "pin": "P11"}, {"driver": "dht11", "pin": "P10"}], "matslopy4"
            ),
            "2 sensors fill the field outsidetemp",
        ),
        (spoil_variable("site_timezone", "Europe/Stockholn"), "Did you mean Europe/Stockholm?"),
        (spoil_variable("site_extra_topics", ["tig/all"]), "tig/all overlaps the devices' topics"),
        (
            spoil_variable("site_averages", [{"interval": "10 minutes", "retention": "0s"}]),
            "site_averages: '10 minutes' is not an interval; write it like 30s, 5m",
        ),
        (
            spoil_variable("site_averages", [{"interval": "5m", "retention": "0s"}] * 2),
            "site_averages: 2 entries have the interval 5m",
        ),
        (
            spoil_variable("site_averages", [{"interval": "5m", "retention": "1 year"}]),
            "site_averages: 5m: '1 year' is not a duration; write 30d, 26w",
        ),
        (spoil_variable("site_readings_retention", "forever"), "site_readings_retention: 'forever' is not a duration"),
        (spoil_variable("site_host_retention", "10m"), "site_host_retention: 10m is too short; the minimum is 1h."),
        (spoil_variable("site_averages", [{"interval": "5m"}]), "site_averages: 5m has no retention"),
        (
            spoil_variable("site_averages_interval", "10m"),
            "site_averages_interval (host pi) was renamed to site_averages; rename it",
        ),
        (
            spoil_variable("site_clock_tolerance_minutes", "5m"),
            "site_clock_tolerance_minutes is '5m'; write it like 5.",
        ),
        (
            spoil_variable("site_clock_tolerance_minutes", -1),
            "site_clock_tolerance_minutes: -1 is negative; use 0 or more",
        ),
        (
            spoil_variable("site_write_interval_seconds", 60),
            "site_write_interval_seconds: 60 is out of range; use 1 to 15.",
        ),
        (spoil_variable("site_new_names_per_day", "many"), "site_new_names_per_day is 'many'; write it like 50."),
        (spoil_variable("site_topic_prefix", "tig/"), "site_topic_prefix: 'tig/' is not a valid prefix of topics"),
        (spoil_variable("site_alert_topic", "tig/alert"), "site_alert_topic: tig/alert is below tig"),
        (spoil_variable("site_accounts", [{"name": "greenhouse"}]), "the account greenhouse exists already"),
        (
            spoil_variable("site_accounts", [{"name": CONTRACT["operator"]}]),
            f"the account {CONTRACT['operator']} exists already",
        ),
        (
            spoil_variable("site_accounts", [{"name": "mats", "publish": ["mats/test", "tig/#"]}]),
            "mats could send commands to the devices: publish has tig/#, which includes tig/+/command. Name narrower",
        ),
        (
            spoil_variable("site_accounts", [{"name": "mats", "sends_commands": "perhaps"}]),
            "site_accounts: entry 1: sends_commands is 'perhaps'",
        ),
        (spoil_variable("site_accounts", [{"name": "mats", "topics": ["a"]}]), "mats: unknown key topics"),
        (spoil_variable("site_contact_point", {"type": "email"}), "site_contact_point: addresses must be"),
        (spoil_variable("site_contact_point", {"url": "https://example.org"}), "site_contact_point has no type."),
        (
            spoil_variable("site_contact_point", {"type": "webhook", "url": "example.org"}),
            "site_contact_point: a webhook needs a url",
        ),
        (
            spoil_variable("site_contact_point", {"type": "email", "addresses": "a@example.org"}),
            "site_contact_point has type email, but site_mail_server has no mail server",
        ),
        (
            spoil_variable("site_mail_server", {"host": "mail.example.org"}),
            "site_mail_server: from must be an e-mail address",
        ),
        (spoil_variable("grafana_repository", {"fingerprint": ""}), "grafana_repository.fingerprint is empty"),
        (spoil_variable("site_forward", {"host": "a"}), "site_forward has no topic"),
        (
            spoil_variable("site_forward", {"hots": "a", "topic": "b"}),
            "site_forward: unknown key hots. Did you mean host?",
        ),
        (
            spoil_variable("site_forward", {"host": "a", "topic": "b", "fields": ["soilhumidty"]}),
            "the site has no soilhumidty. Did you mean soilhumidity?",
        ),
        (
            spoil_variable("site_keep_readings", "52w"),
            "site_keep_readings (host pi) was renamed to site_readings_retention; rename it",
        ),
        (spoil_variable("site_name", 2024), "site_name is 2024; write it like 'home'."),
        (spoil_variable("site_no_log", "no doubt"), "site_no_log is 'no doubt'; write it like True."),
        (spoil_reading(field=""), "site_readings: entry 1 has no field."),
        (spoil_reading(decimals=1.5), "site_readings: entry 1: decimals is 1.5; it must be a whole number."),
        (spoil_variable("site_accounts", [{"publish": ["a"]}]), "site_accounts: entry 1 has no name."),
        (
            spoil_variable("site_contact_point", {"type": "pigeon"}),
            "site_contact_point: type is 'pigeon'; use one of email, webhook.",
        ),
        (
            spoil_variable("site_mail_server", {"hots": "a"}),
            "site_mail_server: unknown key hots. Did you mean host?",
        ),
        (
            spoil_variable("site_timezon", "x"),
            "site_timezon (host pi): unknown variable. Did you mean site_timezone?",
        ),
        (
            spoil_variable("lopy4_sensors", [SENSORS[0], "dht11"], "matslopy4"),
            "host_vars/matslopy4.yml: lopy4_sensors: entry 2 is 'dht11'; write it like {'driver': 'dht11', 'pin': 'P11'",
        ),
        (
            spoil_variable("lopy4_sensors", {"driver": "dht11"}, "matslopy4"),
            "lopy4_sensors is {'driver': 'dht11'}; write",
        ),
        (
            spoil_variable("lopy4_sensors", [SENSORS[0] | {"fields": "outsidetemp"}], "matslopy4"),
            "lopy4_sensors: entry 1: fields is 'outsidetemp'; write it like {'temperature': 'outsidetemp'}.",
        ),
        (
            spoil_variable("lopy4_sensors", [SENSORS[1] | {"fields": {"pressure": ["airpressure"]}}], "matslopy4"),
            "there is no field ['airpressure'] in site_readings",
        ),
        (
            spoil_variable("site_readings", ["outsidetemp"]),
            "site_readings: entry 1 is 'outsidetemp'; write it like {'field",
        ),
        (spoil_variable("site_readings", None), "site_readings is None; write it like [{'field'"),
        (spoil_reading(sensor=["dht11"]), "site_readings: entry 1: sensor is ['dht11']; write it like 'dht11'."),
        (
            spoil_variable("site_extra_topics", "mats/test"),
            "site_extra_topics is 'mats/test'; write it like ['mats/test'].",
        ),
        (spoil_variable("site_extra_topics", [1]), "site_extra_topics: entry 1 is 1; write it like 'mats/test'."),
        (
            spoil_variable("site_accounts", {"name": "mats"}),
            "site_accounts is {'name': 'mats'}; write it like [{'name'",
        ),
        (
            spoil_variable("site_accounts", [{"name": "mats"}, {"name": "eva", "publish": "mats/test"}]),
            "site_accounts: entry 2: publish is 'mats/test'; write it like ['mats/test'].",
        ),
        (
            spoil_variable("site_contact_point", "you@example.org"),
            "site_contact_point is 'you@example.org'; write it like {'ty",
        ),
        (
            spoil_variable("site_forward", ["test.mosquitto.org"]),
            "site_forward is ['test.mosquitto.org']; write it like {'host",
        ),
        (
            spoil_variable("site_forward", {"host": "a", "topic": "b", "devices": "matslopy4"}),
            "site_forward: devices is 'matslopy4'; write it like ['matslopy4'].",
        ),
        (spoil_variable("site_topic_prefix", 2024), "site_topic_prefix is 2024; write it like 'tig'."),
        (
            spoil_variable("site_timezone", ["Etc/UTC"]),
            "site_timezone is ['Etc/UTC']; write it like 'Europe/Stockholm'.",
        ),
        (
            lambda _hostvars, groups: groups.update(site=["pi", "matslopy4"]),
            "hosts.yml: greenhouse is not in group site",
        ),
        (lambda _hostvars, groups: groups.update(brokers=[]), "group brokers must have exactly one host; it has none"),
        (lambda _hostvars, groups: groups.pop("flows"), "group flows must have exactly one host"),
    ],
)
def test_invalid_entries_are_reported(described, spoil, complaint):
    spoil(*described)
    assert any(complaint in problem for problem in problems(described)), problems(described)


def test_an_invalid_driver_is_reported(described, tmp_path, monkeypatch):
    monkeypatch.setattr(site, "DRIVERS", tmp_path)
    (tmp_path / "dust.py").write_text("def read(:\n")
    with pytest.raises(AnsibleFilterError, match=r"The driver .*/dust\.py cannot be parsed: invalid syntax"):
        problems(described)


def test_host_vars_without_a_host_are_reported(described, tmp_path):
    (tmp_path / "host_vars/greenhous.yml").touch()
    assert problems(described) == [
        "host_vars/greenhous.yml: there is no host greenhous in hosts.yml. Did you mean greenhouse?"
    ]


@pytest.mark.parametrize(
    "name", [".matslopy4.yml.swp", ".DS_Store", "matslopy4.yml~", "matslopy4.yml.bak", "greenhous~", "#matslopy4.yml#"]
)
def test_backup_files_of_editors_are_ignored(described, tmp_path, name):
    (tmp_path / "host_vars" / name).touch()
    assert problems(described) == []


def test_empty_values_are_left_out(described):
    hostvars, _groups = described
    hostvars["pi"]["site_accounts"] = [{"name": "mats", "publish": None}]
    assert problems(described) == []
    (account,) = site.broker_accounts([], hostvars["pi"]["site_accounts"], "tig", "tig-alert", [])[len(site.PROGRAMS) :]
    assert account == {"name": "mats", "topics": []}


@pytest.mark.parametrize(
    ("topic", "includes"),
    [
        ("#", True),
        ("+/#", True),
        ("tig/#", True),
        ("tig/greenhouse/#", True),
        ("tig/greenhouse/+", True),
        ("tig/greenhouse/command", True),
        ("tig/other/command", True),
        ("+/+/+", True),
        ("tig/+/command/#", True),
        ("tig/+/reading", False),
        ("tig/command", False),
        ("tig/a/b/command", False),
        ("tig-alert/#", False),
        ("$SYS/#", False),
        ("mats/+/command", False),
    ],
)
def test_only_accounts_that_the_site_allows_may_send_commands(described, topic, includes):
    """Whatever its filter is, if a command could be published under it."""
    hostvars, _groups = described
    hostvars["pi"]["site_accounts"] = [{"name": "mats", "publish": ["mats/test", topic]}]
    assert bool(problems(described)) is includes
    hostvars["pi"]["site_accounts"][0]["sends_commands"] = True
    assert problems(described) == []
    (account,) = site.broker_accounts([], hostvars["pi"]["site_accounts"], "tig", "tig-alert", [])[len(site.PROGRAMS) :]
    assert account["topics"] == [{"topic": one, "access": "write"} for one in ("mats/test", topic)]


def test_the_operator_alone_of_the_programs_may_send_commands():
    accounts = site.broker_accounts([], [], "house", "alert", ["mats/test"])
    senders = {
        account["name"]
        for account in accounts
        for entry in account["topics"]
        if entry["access"] != "read" and site.topics_overlap(entry["topic"], "house/+/command")
    }
    assert senders == {CONTRACT["operator"]}
    (operator,) = (account["topics"] for account in accounts if account["name"] == CONTRACT["operator"])
    assert {(entry["topic"], entry["access"]) for entry in operator} == {
        ("house/+/command", "write"),
        ("house/+/answer", "read"),
        ("house/+/status", "read"),
    }


def test_a_device_has_the_fields_that_its_sensors_measure(described):
    hostvars, groups = described
    first, second = site.site_devices(groups["devices"], hostvars, READINGS, "tig")
    assert [reading["field"] for reading in first["fields"]] == [
        "outsidetemp",
        "outsidehumidity",
        "airpressure",
        "soilhumidity",
    ]
    assert [reading["field"] for reading in second["fields"]] == ["outsidetemp", "outsidehumidity"]
    assert first["topic"] == "tig/matslopy4"


def test_a_device_can_publish_on_its_own_topics_only(described):
    hostvars, groups = described
    devices = site.site_devices(groups["devices"], hostvars, READINGS, "tig")
    accounts = {a["name"]: a["topics"] for a in site.broker_accounts(devices, [], "tig", "tig-alert", ["mats/test"])}
    writes = {topic["topic"] for topic in accounts["greenhouse"] if topic["access"] != "read"}
    assert writes == {f"tig/greenhouse/{branch}" for branch in ("reading", "status", "crash", "answer")}
    assert {topic["access"] for topic in accounts["telegraf"]} == {"read"}


@pytest.mark.parametrize(
    ("variables", "reached"),
    [
        ({}, {"host": "pi", "port": 3000}),
        ({"ansible_host": "192.0.2.4"}, {"host": "192.0.2.4", "port": 3000}),
        ({"ansible_connection": "local"}, {"host": "127.0.0.1", "port": 3000}),
        ({"ansible_host": "pi", "site_address": "192.0.2.5"}, {"host": "192.0.2.5", "port": 3000}),
        ({"site_published_ports": {"3000": 13000}}, {"host": "127.0.0.1", "port": 13000}),
        ({"site_published_ports": {1883: 11883}}, {"host": "pi", "port": 3000}),
    ],
)
def test_the_address_of_a_service_for_the_controller(variables, reached):
    assert site.connect_address(["pi"], {"pi": variables}, 3000) == reached


@pytest.mark.parametrize(
    ("variables", "reached"),
    [
        ({"ansible_connection": "local"}, {"host": "pi", "port": 3000}),
        ({"ansible_connection": "local", "ansible_host": "192.0.2.4"}, {"host": "192.0.2.4", "port": 3000}),
        ({"site_published_ports": {3000: 13000}}, {"host": "127.0.0.1", "port": 13000}),
    ],
)
def test_the_address_of_a_service_for_people(variables, reached):
    assert site.connect_address(["pi"], {"pi": variables}, "3000", by_people=True) == reached


def test_a_renamed_variable_has_a_new_name_that_exists_and_no_old_one():
    options = {
        name: option for role in (REPOSITORY / "roles").iterdir() for name, option in site._options(role.name).items()
    }
    for new in RENAMED.values():
        name, _, key = new.partition(".")
        assert not key or key in options[name]["options"]
    assert not set(RENAMED) & set(options)


def expanded(pattern):
    """The names that a pattern with braces, as in a shell, stands for."""
    parts = re.split(r"\{([^}]*)\}", pattern)
    choices = [part.split(",") if at % 2 else [part] for at, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def test_the_readme_lists_the_renamed_variables():
    rows = re.findall(r"^\| `([\w{},]+)` \| `([\w{},.]+)` \|$", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    listed = [pair for old, new in rows for pair in zip(expanded(old), expanded(new), strict=True)]
    assert dict(listed) == RENAMED
    assert len(listed) == len(RENAMED)


@pytest.mark.parametrize("value", [True, "true", "no"])
def test_a_boolean_may_be_a_word_as_on_the_command_line(described, value):
    described[0]["pi"]["site_no_log"] = value
    assert problems(described) == []


def test_the_examples_in_messages_are_valid():
    schema = site._options("validate")
    for name, sample in site.SAMPLES.items():
        option = schema.get(name, site.SENSORS)
        assert list(site._wrong_type(option, sample, name)) == []
        entries = sample if isinstance(sample, list) else [sample]
        for entry in entries if option.get("options") else ():
            assert set(entry) <= set(option["options"]), name


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("lopy4_wifi_password: \"{{ lookup('secret', 'wifi', create=false) }}\"", "secret"),
        ("fingerprint: '{{ key | openpgp_fingerprint }}'", "openpgp_fingerprint"),
        ("lopy4_wifi_password: \"{{ lookup('tig_pi.stack.secret', 'wifi') }}\" # was lookup('secret', …)", None),
    ],
)
def test_a_plugin_without_its_collection_is_reported_with_its_full_name(described, tmp_path, line, name):
    (tmp_path / "host_vars/greenhouse.yml").write_text(line)
    expected = f"host_vars/greenhouse.yml: the plugin {name} was renamed to tig_pi.stack.{name}; rename it there."
    assert problems(described) == ([expected] if name else [])


def test_a_site_can_have_its_own_driver(described, tmp_path):
    hostvars, _groups = described
    for variables in hostvars.values():
        variables["site_readings"].append(
            {"field": "dust", "title": "Dust", "unit": "conμgm3", "sensor": "dust", "quantity": "pm25"}
        )
    hostvars["greenhouse"]["lopy4_sensors"] = [{"driver": "dust"}]
    assert "unknown sensor dust" in problems(described)[0]
    (tmp_path / "drivers").mkdir()
    (tmp_path / "drivers/dust.py").write_text('QUANTITIES = ("pm25", "pm10")\n')
    assert problems(described) == []
