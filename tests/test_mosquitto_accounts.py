"""The broker's password and ACL file, and what is said of accounts that cannot work."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from types import SimpleNamespace

import pytest
from ansible_collections.tig_pi.stack.plugins.filter import mosquitto
from chain import program
from project import argument_errors

LISTENERS = [{"port": 1883, "address": ""}]
ACCOUNTS = [
    {"name": "telegraf", "password": "secret", "topics": [{"topic": "tig/+/reading", "access": "read"}]},
    {"name": "greenhouse", "password": "secret", "topics": [{"topic": "tig/greenhouse/reading", "access": "write"}]},
]


def test_the_password_file_is_the_same_for_the_same_accounts_in_any_order():
    made = mosquitto.mosquitto_password_file(ACCOUNTS, "pi", 1000)
    assert made == mosquitto.mosquitto_password_file(ACCOUNTS[::-1], "pi", 1000)
    assert made != mosquitto.mosquitto_password_file(ACCOUNTS, "another", 1000)


def test_a_line_of_the_password_file_is_what_mosquitto_computes():
    line = mosquitto.mosquitto_password_file(ACCOUNTS, "pi", 1000).splitlines()[0]
    name, _, rest = line.partition(":")
    _, kind, iterations, salt, digest = rest.split("$")
    assert (name, kind, iterations) == ("greenhouse", "7", "1000")
    salt = base64.b64decode(salt)
    assert len(salt) == 12
    assert base64.b64decode(digest) == hashlib.pbkdf2_hmac("sha512", b"secret", salt, 1000)


@pytest.mark.parametrize("password", ["secret", "å ä$ö:"])
def test_a_line_of_the_password_file_is_what_mosquitto_passwd_writes(tmp_path, monkeypatch, password):
    command = [program("mosquitto_passwd", "mosquitto"), "-c", "-b", tmp_path / "passwords", "greenhouse", password]
    subprocess.run(command, check=True, capture_output=True)
    line = (tmp_path / "passwords").read_text()
    *_, iterations, salt, _ = line.split("$")
    its_salt = SimpleNamespace(digest=lambda: base64.b64decode(salt))
    with_its_salt = SimpleNamespace(sha256=lambda _: its_salt, pbkdf2_hmac=hashlib.pbkdf2_hmac)
    monkeypatch.setattr(mosquitto, "hashlib", with_its_salt)
    accounts = [{"name": "greenhouse", "password": password}]
    assert mosquitto.mosquitto_password_file(accounts, "pi", int(iterations)) == line


def test_equal_passwords_have_different_hashes():
    first, second = mosquitto.mosquitto_password_file(ACCOUNTS, "pi", 1000).splitlines()
    assert first.split("$")[3:] != second.split("$")[3:]


def test_the_acl_file():
    assert mosquitto.mosquitto_acl_file(ACCOUNTS).splitlines()[3:] == [
        "",
        "user greenhouse",
        "topic write tig/greenhouse/reading",
        "",
        "user telegraf",
        "topic read tig/+/reading",
    ]


def test_valid_variables_have_no_problems():
    allowed = ["#", "+", "a/+/b", "a/#", "/a", "$SYS/#", "with space/b", "å/ö"]
    account = {"name": "a", "password": "p", "topics": [{"topic": topic, "access": "read"} for topic in allowed]}
    listeners = [{"port": 1883}, {"port": 8883, "address": "::1"}, {"port": 1884, "address": "127.0.0.1"}]
    assert mosquitto.mosquitto_problems([account], listeners) == []


@pytest.mark.parametrize("topic", ["", " a", "a ", "a#", "a/#/b", "+a", "a/b+", "a\nb", None, 5])
def test_an_invalid_topic_is_reported_with_its_account(topic):
    account = {"name": "a", "password": "p", "topics": [{"topic": topic, "access": "read"}]}
    [problem] = mosquitto.mosquitto_problems([account], LISTENERS)
    assert "account 'a'" in problem
    assert repr(topic) in problem


@pytest.mark.parametrize("name", ["a b", "a:b", "a#", "a/b", "a+", "å", "a\n"])
def test_an_invalid_name_is_reported(name):
    [problem] = mosquitto.mosquitto_problems([{"name": name, "password": "p"}], LISTENERS)
    assert repr(name) in problem


@pytest.mark.parametrize("password", [None, "", 5, "a\nb"])
def test_an_invalid_password_is_not_shown(password):
    [problem] = mosquitto.mosquitto_problems([{"name": "a", "password": password}], LISTENERS)
    assert "account 'a'" in problem
    assert "a\nb" not in problem


def test_all_problems_are_reported_together():
    accounts = [{"name": "a"}, {"name": "a", "password": "p"}, {"name": 5, "password": "p"}]
    assert len(mosquitto.mosquitto_problems(accounts, [{"port": 0}])) == 4


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"accounts": [{"password": "p"}]}, "missing required arguments: name found in mosquitto_accounts"),
        (
            {"accounts": [{"name": "a", "topics": [{"topic": "b", "access": "rw"}]}]},
            "value of access must be one of: read, write, readwrite, got: rw found in mosquitto_accounts -> topics",
        ),
        ({"accounts": [{"name": "a", "topics": [{"access": "read"}]}]}, "missing required arguments: topic"),
        ({"listeners": [{"port": "x"}]}, "'mosquitto_listeners'"),
        ({"listeners": [{}]}, "missing required arguments: port found in mosquitto_listeners"),
    ],
)
def test_a_wrong_entry_is_reported_with_its_variable(variables, complaint):
    [error] = argument_errors("mosquitto", **{f"mosquitto_{name}": value for name, value in variables.items()})
    assert complaint in error


@pytest.mark.parametrize(
    "listeners",
    [
        [],
        [{"port": 70000}],
        [{"port": 1, "address": "pi"}],
        [{"port": 1}, {"port": 1, "address": "::1"}],
    ],
)
def test_an_invalid_listener_is_reported(listeners):
    [problem] = mosquitto.mosquitto_problems([], listeners)
    assert problem.startswith("mosquitto_listeners")
