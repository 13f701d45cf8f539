"""The filters of the role grafana: what is wrong with its variables, and files that hold no secret."""

from __future__ import annotations

import json

import pytest
from ansible_collections.tig_pi.stack.plugins.filter import grafana
from project import argument_errors

SOURCE = {"name": "iot", "uid": "influx", "type": "influxdb", "url": "http://127.0.0.1:8086"}
WEBHOOK = {"name": "My house", "type": "webhook", "url": "https://example.org/hook?key=1"}
EMAIL = {"name": "post", "type": "email", "addresses": ["a@example.org", "b@example.org"]}
SMTP = {"host": "mail.example.org", "from": "pi@example.org", "password": "secret"}


def problems(sources=(SOURCE,), points=(), smtp=None, password="password", key="key"):
    """As the role reports them: first those of argument_specs, and the others if there are none."""
    variables = {"datasources": list(sources), "contact_points": list(points), "smtp": smtp or {}}
    errors = argument_errors("grafana", **{f"grafana_{name}": value for name, value in variables.items()})
    return errors or grafana.grafana_problems(*variables.values(), password, key)


def test_valid_variables_have_no_problems():
    assert problems(points=[WEBHOOK, EMAIL], smtp=SMTP) == []
    assert problems(sources=[]) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"password": "abc"}, "grafana_admin_password must have at least 4 characters"),
        ({"password": ""}, "grafana_admin_password must have at least 4 characters"),
        ({"password": " abcd"}, "grafana_admin_password begins or ends with a space"),
        ({"key": ""}, "grafana_secret_key is not set"),
        ({"sources": [{**SOURCE, "url": ""}]}, "grafana_datasources: iot: its url must begin with http"),
        (
            {"sources": [{"name": "iot", "uid": "influx", "type": "influxdb"}]},
            "missing required arguments: url found in grafana_datasources",
        ),
        ({"sources": [{**SOURCE, "jsonData": "x"}]}, "found in 'grafana_datasources'"),
        ({"sources": [{**SOURCE, "uid": "u" * 41}]}, "at most 40"),
        (
            {"sources": [{**SOURCE, "json_data": {}}]},
            "grafana_datasources.json_data. Supported parameters include: access,",
        ),
        (
            {"sources": [{**SOURCE, "access": "direct"}]},
            "value of access must be one of: proxy, got: direct found in grafana_datasources",
        ),
        ({"sources": [SOURCE, {**SOURCE, "uid": "b"}]}, "2 entries have the name iot"),
        ({"sources": [SOURCE, {**SOURCE, "name": "b"}]}, "2 entries have the uid influx"),
        (
            {"sources": [{**SOURCE, "isDefault": True}, {**SOURCE, "name": "b", "uid": "b", "isDefault": True}]},
            "several entries are the default",
        ),
        (
            {"points": [{"name": "x", "type": "wobhook"}]},
            "value of type must be one of: email, webhook, got: wobhook found in grafana_contact_points",
        ),
        (
            {"points": [{**WEBHOOK, "addresses": "a@b"}]},
            "grafana_contact_points: My house: addresses is not used with type webhook",
        ),
        ({"points": [{**WEBHOOK, "url": "example.org"}]}, "begins with http"),
        ({"points": [EMAIL]}, "grafana_smtp has no mail server"),
        ({"points": [{**EMAIL, "addresses": "nobody"}], "smtp": SMTP}, "addresses must be"),
        ({"points": [{"name": "post", "type": "email"}], "smtp": SMTP}, "addresses must be"),
        ({"points": [WEBHOOK, WEBHOOK]}, "2 entries have the name My house"),
        ({"smtp": {"host": "mail", "form": "a@b"}}, "grafana_smtp.form. Supported parameters include: from,"),
        ({"smtp": {"host": "mail"}}, "grafana_smtp: from must be an e-mail address"),
    ],
)
def test_a_problem_is_reported_with_its_variable(arguments, complaint):
    found = problems(**arguments)
    assert any(complaint in problem for problem in found), found


def test_secrets_are_in_separate_files():
    source = {**SOURCE, "secureJsonData": {"password": "pass-word"}}
    point = {**WEBHOOK, "user": "u", "password": "hush"}
    files = {file["dest"]: file["content"] for file in grafana.grafana_secrets([source], [point], SMTP, "admin", "key")}
    assert files == {
        "/etc/grafana/secrets/admin_password": "admin\n",
        "/etc/grafana/secrets/secret_key": "key\n",
        "/etc/grafana/secrets/smtp_password": "secret\n",
        "/etc/grafana/secrets/provisioning/influx.password": "pass-word\n",
        "/etc/grafana/secrets/provisioning/My-house.url": "https://example.org/hook?key=1\n",
        "/etc/grafana/secrets/provisioning/My-house.password": "hush\n",
    }
    for document in (grafana.grafana_datasource_file([source]), grafana.grafana_contact_point_file([point])):
        assert not grafana.grafana_holds_secrets(document)
        assert "pass-word" not in json.dumps(document)
        assert "hush" not in json.dumps(document)
        assert "example.org" not in json.dumps(document)


@pytest.mark.parametrize("password", ["with$HOME", "${x}", "12345", "1e5", "-1", "true", "F"])
def test_a_secret_with_special_characters_is_escaped_for_grafana(password):
    document = grafana.grafana_datasource_file([{**SOURCE, "secureJsonData": {"password": password}}])
    assert document["datasources"][0]["secureJsonData"]["password"] == password.replace("$", "$$")
    assert grafana.grafana_holds_secrets(document)


def test_literals_are_not_expanded():
    [source] = grafana.grafana_datasource_file([{**SOURCE, "user": "a$b", "jsonData": {"list": ["$x"], "n": 1}}])[
        "datasources"
    ]
    assert source["user"] == "a$$b"
    assert source["jsonData"] == {"list": ["$$x"], "n": 1}
    assert (source["editable"], source["orgId"], source["access"]) == (False, 1, "proxy")


def test_addresses_can_be_a_string_or_a_list():
    def addresses(value):
        [point] = grafana.grafana_contact_point_file([{**EMAIL, "addresses": value}])["contactPoints"]
        return point["receivers"][0]["settings"]["addresses"]

    assert addresses("a@example.org") == "a@example.org"
    assert addresses("a@example.org, b@example.org") == "a@example.org;b@example.org"
    assert addresses(["a@example.org", "b@example.org"]) == "a@example.org;b@example.org"
