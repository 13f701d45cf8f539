"""The broker's state files after a power cut: a real broker starts on every one, with all that can still be read."""

from __future__ import annotations

import pytest
from state_services import DAMAGE, Broker, copied

PASSWORDS = (
    "greenhouse:$7$1000$AAAAAAAAAAAAAAAA$" + "A" * 86 + "==\n" + "reader:$7$1000$BBBBBBBBBBBBBBBB$" + "B" * 86 + "==\n"
).encode()
CLIENT_IDS = b"account greenhouse 0123456789abcdef\nid greenhouse greenhouse\ncollect reader tig/+/reading\n"
TOPICS = (
    b"#\n# Ansible managed\n#\n\nuser greenhouse\ntopic write tig/greenhouse/reading\n\nuser reader\ntopic read tig/#\n"
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Broker:
    broker = Broker(tmp_path_factory.mktemp("sound"))
    broker.make()
    return broker


@pytest.fixture
def broker(sound, tmp_path):
    made = copied(sound, tmp_path / "root")
    yield made
    made.stop()


def test_an_intact_store_is_not_changed(broker):
    before = broker.path(broker.store).read_bytes()
    result = broker.run("start")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert broker.path(broker.store).read_bytes() == before
    assert broker.report() == {"service": "mosquitto", "damaged": [], "set_aside": []}
    assert broker.start()
    assert broker.there() == {"waiting": broker.waiting, "retained": broker.retained}


@pytest.mark.parametrize("how", DAMAGE)
def test_the_broker_starts_with_every_readable_record(broker, how):
    assert broker.run("start").returncode == 0  # the start before, which keeps a second copy of the sessions
    damaged = broker.damage(broker.path(broker.store), how)
    result = broker.run("start")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("<4>/var/lib/mosquitto/mosquitto.db ")
    assert "Lost: " in result.stdout
    report = broker.report()
    assert report["damaged"] == []
    (aside,) = report["set_aside"]
    assert broker.path(aside["copy"]).read_bytes() == damaged
    assert broker.start(), broker.broker.log.read_text()
    there = broker.there()
    if how == "garbage in the middle":  # a sector of 512 bytes holds a dozen records
        assert there["waiting"] > broker.waiting - 15
        assert there["retained"] > broker.retained - 15
    if how in ("truncated", "NULs at the end"):  # the sessions were in the other half
        assert there["waiting"] > 200
    broker.stop()
    assert broker.run("start").stdout == ""  # and that was all


def test_the_broker_itself_does_not_start_with_a_damaged_store(broker):
    """Why all this: on such a store it does not start."""
    broker.damage(broker.path(broker.store), "NULs")
    assert not broker.start()


@pytest.mark.parametrize("how", ["empty", "truncated", "garbage"])
@pytest.mark.parametrize(
    ("name", "content"),
    [("/etc/mosquitto/passwd", PASSWORDS), ("/etc/mosquitto/acl", TOPICS), ("/etc/mosquitto/accounts", CLIENT_IDS)],
)
def test_accounts_and_topics_are_restored_from_their_second_copy(tmp_path, name, content, how):
    broker = Broker(tmp_path)
    file = broker.path(name)
    copy = broker.path(f"/var/lib/tig-pi/mosquitto/copies/{file.name}")
    for path in (file, copy):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    file.chmod(0o600)
    assert broker.run("start").stdout == ""
    broker.damage(file, how)
    assert "restored from the second copy" in broker.run("start").stdout
    assert file.read_bytes() == content
    assert file.stat().st_mode & 0o777 == 0o600
    # With the copy gone, too, it is left to somebody who knows the accounts.
    broker.damage(file, how)
    broker.damage(copy, "garbage")
    result = broker.run("start")
    assert result.returncode == 1  # a broker that knows no accounts would forget their sessions
    assert "run make repair" in result.stdout
    (left,) = broker.report()["damaged"]
    assert left["file"] == name


def test_an_edited_accounts_file_is_not_damaged(tmp_path):
    broker = Broker(tmp_path)
    file, copy = broker.path("/etc/mosquitto/acl"), broker.path("/var/lib/tig-pi/mosquitto/copies/acl")
    for path in (file, copy):
        path.parent.mkdir(parents=True)
        path.write_bytes(TOPICS)
    file.write_bytes(TOPICS + b"topic read more/#\n")
    assert broker.run("start").stdout == ""
