"""The verbs of the Makefile and the programs in bin/: what they run, and that they fail if a program that they run fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

SYNTAX_CHECK = ("ARGS=--syntax-check", "INVENTORY=inventories/home")


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make with only the locale that `environment` sets."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=REPOSITORY, env={**own, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "locale",
    [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"LC_ALL": "xx_XX.UTF-8"}, {"LANG": "C.UTF-8", "LC_TIME": "xx_XX.UTF-8"}],
    ids=["C", "POSIX", "not generated", "one category not generated"],
)
def test_a_verb_runs_in_any_locale(locale):
    result = make("verify", *SYNTAX_CHECK, **locale)
    assert result.returncode == 0, result.stderr
    assert "playbook: playbooks/" in result.stdout


def test_a_locale_with_utf_8_is_kept():
    program = ["bin/utf8", "sh", "-c", "echo ${LC_ALL-unset} $LANG"]
    for environment, kept in (({"LANG": "C.UTF-8"}, "unset C.UTF-8"), ({"LC_ALL": "C.utf8", "LANG": "C"}, "C.utf8 C")):
        environment = {"PATH": os.environ["PATH"], **environment}
        result = subprocess.run(program, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
        assert result.stdout.strip() == kept


@pytest.mark.parametrize("command", ["make pi ARGS=--list-tasks INVENTORY=inventories/home", "make fault", "make help"])
def test_a_verb_succeeds_if_nobody_reads_its_output(command):
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        command.split(), cwd=REPOSITORY, stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_playbook_runs_to_its_end_if_nobody_reads_its_output(tmp_path):
    playbook = tmp_path / "playbook.yml"
    playbook.write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.debug: {msg: one}\n"
        f"    - ansible.builtin.file: {{path: {tmp_path}/done, state: touch}}\n"
        "    - ansible.builtin.fail: {}\n"
    )
    with subprocess.Popen([REPOSITORY / "bin/play", playbook], cwd=REPOSITORY, stdout=subprocess.PIPE) as play:
        play.stdout.readline()
        play.stdout.close()
        assert play.wait(60) == 2
    assert (tmp_path / "done").exists()


def test_format_needs_a_device():
    """Without one, it would delete the files of all devices. With --list-tasks, nothing is run even if it does not stop."""
    result = make("format", "ARGS=--list-tasks", "INVENTORY=inventories/home")
    assert result.returncode == 2
    assert "Name the device: make format DEVICE=greenhouse." in result.stderr


class Copy:
    """A directory with some files of the project, in which all other programs only record how they were called.

    A program fails if FAIL occurs in its command line.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls_file = root / "calls"
        self.programs = root / "path"

    def take(self, *names: str) -> None:
        for name in names:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, self.root / name)

    def replace(self, *names: str) -> None:
        for name in names:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                f"#!/bin/sh\ncall='{name} '\"$*\"\n"
                f'echo "$call" >>{self.calls_file}\n'
                'case "$call" in *"$FAIL"*) exit 3 ;; esac\n'
            )
            path.chmod(0o755)

    def run(self, *command: str, fail: str = "nothing fails", **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": f"{self.programs}:{os.environ['PATH']}", "FAIL": fail, **environment}
        self.calls_file.unlink(missing_ok=True)
        return subprocess.run(command, cwd=self.root, env=variables, capture_output=True, text=True, check=False)

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []


@pytest.fixture
def copy(tmp_path) -> Copy:
    return Copy(tmp_path)


class TestMakefile:
    LINTERS = ("ansible-lint", "ansible-playbook", "yamllint", "ruff", "codespell")

    @pytest.fixture(autouse=True)
    def makefile(self, copy):
        copy.take("Makefile", "bin/utf8", ".ci/run")
        copy.replace("bin/play", "bin/prerequisites", "bin/rebuild", "bin/status", "bin/venv", "virtual/pi/pi.py")
        copy.replace(*(f".venv/bin/{name}" for name in (*self.LINTERS, "python")))
        for name in ("requirements.txt", "requirements-test.txt", ".venv/.controller", ".venv/.test"):
            (copy.root / name).touch()

    @pytest.mark.parametrize(
        ("verb", "arguments"),
        [
            ("pi ASK=1", "--ask-pass --ask-become-pass --inventory inventories/home playbooks/site.yml"),
            ("pi INVENTORY=mine", "--inventory mine playbooks/site.yml"),
            (
                "card CARD=/dev/sdb IMAGE=a.img SHA256=1a HOST=pi CONSENT=yes",
                "--inventory inventories/home playbooks/card.yml --extra-vars card_path='/dev/sdb' --extra-vars card_image='a.img'"
                " --extra-vars card_image_sha256=1a --limit pi --extra-vars card_consent=yes",
            ),
            (
                "device NAME=attic SENSORS=dht11,soil",
                "--inventory inventories/home playbooks/device.yml --extra-vars device_name=attic"
                " --extra-vars device_sensors=dht11,soil",
            ),
            ("flash", "--inventory inventories/home playbooks/flash.yml"),
            ("flash DEVICE=attic", "--inventory inventories/home playbooks/flash.yml --limit attic"),
            (
                "format DEVICE=attic",
                "--inventory inventories/home playbooks/flash.yml --tags lopy4_erase_fs,lopy4 --limit attic",
            ),
            ("repair ARGS=--check", "--inventory inventories/home playbooks/repair.yml --check"),
            ("verify", "--inventory inventories/home playbooks/verify.yml"),
            (
                "replay DEVICE=attic SINCE=2026-07-12T14:40",
                "--inventory inventories/home playbooks/replay.yml"
                " --extra-vars replay_device='attic' replay_since='2026-07-12T14:40' replay_until=''",
            ),
            ("feed", "--inventory inventories/home playbooks/feed.yml"),
            (
                "feed FEED=/stick/feed",
                "--inventory inventories/home playbooks/feed.yml --extra-vars feed_directory='/stick/feed'",
            ),
            (
                "pi OFFLINE=1 INVENTORY=inventories/mine/",
                '--inventory inventories/mine/ --extra-vars {"site_offline": true} playbooks/site.yml',
            ),
            (
                "flash OFFLINE=1 FEED=/stick/feed",
                "--inventory inventories/home --extra-vars {\"site_offline\": true} --extra-vars site_feed='/stick/feed'"
                " playbooks/flash.yml",
            ),
        ],
    )
    def test_a_verb_runs_its_playbook(self, copy, verb, arguments):
        assert copy.run("make", *verb.split()).returncode == 0
        assert copy.calls[-1] == f"bin/play {arguments}"

    @pytest.mark.parametrize(
        "inventory", ["mine", "inventories/mine", "inventories/mine/", "inventories/mine/hosts.yml"]
    )
    def test_without_internet_the_controller_is_installed_from_the_feed_of_the_site(self, copy, inventory):
        (copy.root / "inventories/mine").mkdir(parents=True)
        (copy.root / "inventories/mine/hosts.yml").touch()
        (copy.root / "elsewhere").mkdir()
        (copy.root / "mine").symlink_to("elsewhere")  # Ansible does not resolve it
        (copy.root / ".venv/.controller").unlink()
        (copy.root / "bin/venv").write_text(f'#!/bin/sh\necho "$TIG_PI_FEED" >>{copy.calls_file}\n')
        copy.run("make", "pi", "OFFLINE=1", f"INVENTORY={inventory}", "TIG_PI_CACHE=/cache")
        assert "/cache/feed/mine" in copy.calls

    def test_a_verb_that_only_reads_uses_the_demo_while_it_runs(self, copy):
        state = copy.root / "inventories/demo/.virtual/pi.json"
        state.parent.mkdir(parents=True)
        state.touch()
        copy.run("make", "status", "FORMAT=json")
        assert copy.calls == ["bin/venv --check", "bin/status inventories/demo --format json"]
        copy.run("make", "pi")
        assert copy.calls[-1] == "bin/play --inventory inventories/home playbooks/site.yml"

    def test_rebuild_and_restore_have_the_same_options(self, copy):
        options = ["FROM=stick", "ARCHIVE=1a", "HOST=old", "CONSENT=yes"]
        variables = (
            "--extra-vars restore_from=stick --extra-vars restore_archive=1a"
            " --extra-vars restore_host=old --extra-vars restore_consent=yes"
        )
        copy.run("make", "restore", *options)
        assert copy.calls[-1] == f"bin/play --inventory inventories/home playbooks/restore.yml {variables}"
        copy.run("make", "rebuild", *options, "HOST_KEY=SHA256:x", "ASK=1")
        assert copy.calls[-1] == (
            f"bin/rebuild inventories/home --ask-pass --ask-become-pass {variables} --extra-vars reach_host_key=SHA256:x"
        )

    @pytest.mark.parametrize("program", LINTERS)
    def test_lint_fails_if_one_linter_fails(self, copy, program):
        assert copy.run("make", "lint").returncode == 0
        assert copy.run("make", "lint", fail=f".venv/bin/{program} ").returncode != 0

    @pytest.mark.parametrize("command", ["ruff check", "ruff format --check", "demo playbooks", "home playbooks"])
    def test_lint_checks_style_format_and_the_syntax_with_each_inventory(self, copy, command):
        (copy.root / "playbooks").mkdir()
        (copy.root / "playbooks/site.yml").touch()
        assert copy.run("make", "lint", fail=command).returncode != 0

    def test_check_runs_lint_and_unit_tests(self, copy):
        assert copy.run("make", "check").returncode == 0
        assert copy.run("make", "check", fail="-m pytest").returncode != 0
        assert copy.run("make", "check", fail="yamllint").returncode != 0

    @pytest.mark.parametrize("command", [["make", "test"], [".ci/run"]], ids=["make test", ".ci/run"])
    def test_test_fails_if_a_test_fails(self, copy, command):
        assert copy.run(*command).returncode == 0
        assert copy.run(*command, fail="bin/test").returncode != 0
        assert copy.run(*command, fail="bin/prerequisites test").returncode != 0

    def test_settings_of_the_user_for_python_and_ansible_are_ignored(self, copy):
        (copy.root / "bin/play").write_text('#!/bin/sh\necho "${PYTHONPATH-}${PYTHONHOME-} $ANSIBLE_CONFIG"\n')
        result = copy.run("make", "pi", PYTHONPATH="/mine", PYTHONHOME="/mine", ANSIBLE_CONFIG="/mine/ansible.cfg")
        assert result.stdout == f" {copy.root}/ansible.cfg\n"


class TestDrill:
    # Creates what playbooks/drill_prepare.yml creates, and says why it fails, as Ansible does.
    PLAY = """#!/bin/sh
echo "bin/play $*" >>{calls}
case "$*" in *drill_prepare*)
  directory=$(expr "$*" : '.*drill_directory=\\([^ ]*\\)')
  mkdir -p "$directory/inventory/host_vars/pi" && echo '[1883]' >"$directory/ports.json" ;;
  *drill_record*) cat "$(expr "$*" : '.*drill_directory=\\([^ ]*\\)')/result.json" >>{calls} ;;
esac
case "$*" in *"$FAIL"*)
  echo 'fatal: [pi -> localhost]: FAILED! => {{"changed": false, "msg": "'"${{REASON-the reason}}"'"}}'; exit 2 ;;
esac
"""
    UP, DOWN = "virtual/pi/pi.py up ", "virtual/pi/pi.py down "

    @pytest.fixture(autouse=True)
    def drill(self, copy):
        copy.take("bin/drill", "plugins/plugin_utils/steps.py")
        copy.replace("virtual/pi/pi.py")
        (copy.root / "bin/play").write_text(self.PLAY.format(calls=copy.calls_file))
        (copy.root / "bin/play").chmod(0o755)

    def test_the_site_is_only_read_and_told_the_result(self, copy):
        done = copy.run("bin/drill", "mine", "--extra-vars=drill_from=stick")
        assert done.returncode == 0, done.stderr
        played = [call.split("playbooks/")[1].split()[0] for call in copy.calls if "playbooks/" in call]
        assert played == [f"{name}.yml" for name in self.STEPS]
        for call in (call for call in copy.calls if "playbooks/" in call):
            is_on_the_site = "drill_prepare" in call or "drill_record" in call
            assert call.count("--inventory=") == (1 if is_on_the_site else 2)
            assert ("drill_from=stick" in call) == is_on_the_site
        isolated = next(place for place, call in enumerate(copy.calls) if call.startswith("virtual/pi/pi.py isolate "))
        assert "playbooks/restore.yml" in copy.calls[isolated + 1]

    STEPS = ("drill_prepare", "site", "restore", "drill_compare", "verify", "drill_record")

    @pytest.mark.parametrize(
        ("step", "reason", "is_aborted"),
        [
            ("drill_prepare", "There is no archive", True),
            ("pi.py up", "", True),
            ("playbooks/site.yml", "Failed to update apt cache", True),
            ("pi.py isolate", "", True),
            ("playbooks/restore.yml", "unreachable: attic: the target cannot be reached", True),
            ("playbooks/restore.yml", "Failed to connect to the host via ssh: Connection refused", True),
            ("playbooks/restore.yml", "damaged: attic: the repository is damaged", False),
            ("playbooks/drill_compare.yml", "Grafana has no user me", False),
            ("playbooks/verify.yml", "no reading arrives", False),
        ],
    )
    def test_whatever_fails_is_recorded_and_the_throwaway_pi_is_removed(self, copy, step, reason, is_aborted):
        done = copy.run("bin/drill", "mine", fail=step, REASON=reason)
        assert done.returncode == 1
        assert ("the drill could not be carried out" in done.stdout) == is_aborted
        *others, recorded, told = copy.calls
        assert "playbooks/drill_record.yml" in recorded
        result = json.loads(told)
        assert reason in result["problem"]
        assert (result["aborted"], result["hosts"]) == (is_aborted, ["pi"] if reason else [])
        assert others[-1].startswith(self.DOWN)
        # Without an archive nothing is started.
        assert any(call.startswith(self.UP) for call in others) == (step != "drill_prepare")


class TestTimer:
    @pytest.fixture(autouse=True)
    def timer(self, copy):
        copy.take("bin/timer")
        copy.replace("path/systemctl", "path/systemd-analyze")
        (copy.root / "in 50%").mkdir()
        self.units = copy.root / "config/systemd/user"

    def run(self, copy, *arguments: str, **options):
        return copy.run("bin/timer", *arguments, XDG_CONFIG_HOME=str(copy.root / "config"), **options)

    def test_is_installed_and_removed(self, copy):
        assert self.run(copy, "backup", "in 50%", "daily").returncode == 0
        (timer,) = self.units.glob("*.timer")
        assert "OnCalendar=daily\n" in timer.read_text()
        assert f'make backup "INVENTORY={copy.root}/in 50%%"' in timer.with_suffix(".service").read_text()
        assert copy.calls[-2].startswith("path/systemctl --user enable --now ")
        assert self.run(copy, "backup", "in 50%", "never").returncode == 0
        assert list(self.units.iterdir()) == []

    def test_refuses_what_is_no_time(self, copy):
        assert self.run(copy, "drill", "in 50%", "soon", fail="systemd-analyze").returncode == 2
        assert not self.units.exists()


class TestDemo:
    def test_stops_at_the_first_step_that_fails(self, copy):
        copy.take("bin/demo")
        copy.replace("bin/play", "bin/prerequisites", "bin/status", "virtual/pi/pi.py", "path/make")
        assert copy.run("bin/demo").returncode == 0
        assert copy.calls[-1] == "bin/status inventories/demo"
        assert copy.run("bin/demo", fail="playbooks/site.yml").returncode != 0
        assert copy.calls[-1] == "bin/play --inventory inventories/demo playbooks/site.yml"


class TestRebuild:
    def test_runs_its_playbook(self, copy):
        copy.take("bin/rebuild")
        copy.replace("bin/play")
        assert copy.run("bin/rebuild", "mine", "--extra-vars", "restore_from=stick").returncode == 0
        assert copy.calls == ["bin/play --inventory=mine playbooks/rebuild.yml --extra-vars restore_from=stick"]
        assert copy.run("bin/rebuild", "mine", fail="playbooks/rebuild.yml").returncode == 3


class TestSteps:
    """A playbook whose plays are steps, as those of a rebuild are."""

    @pytest.fixture
    def steps(self, tmp_path):
        def run(*titles: str, fail: str = "") -> subprocess.CompletedProcess[str]:
            (tmp_path / "imported.yml").write_text(
                "- {name: One, hosts: localhost, gather_facts: false, tasks: []}\n"
                "- name: Two\n  hosts: localhost\n  gather_facts: false\n  tasks:\n"
                "    - ansible.builtin.assert: {that: step != fail}\n"
                "    - {ansible.builtin.debug: {msg: one is missing}, tags: [report], when: step == 'Reporting'}\n"
            )
            imports = [
                f"- {{import_playbook: imported.yml, vars: {{step: {title}, fail: '{fail}'}}}}\n" for title in titles
            ]
            (tmp_path / "steps.yml").write_text("".join(imports))
            environment = {**os.environ, "ANSIBLE_STDOUT_CALLBACK": "tig_pi.stack.steps", "ANSIBLE_NOCOLOR": "1"}
            command = [REPOSITORY / "bin/play", tmp_path / "steps.yml"]
            return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)

        return run

    def test_are_announced_and_their_durations_are_printed(self, steps):
        result = steps("Reaching", "Restoring", "Restoring", "Verifying")
        assert result.returncode == 0, result.stdout
        announced = [line for line in result.stdout.splitlines() if line.startswith(("==>", "PLAY ["))]
        assert [line.split(" *")[0] for line in announced] == [
            *("==> Reaching", "PLAY [One]", "PLAY [Two]"),
            *("==> Restoring", "PLAY [One]", "PLAY [Two]", "PLAY [One]", "PLAY [Two]"),
            *("==> Verifying", "PLAY [One]", "PLAY [Two]"),
        ]
        durations = re.findall(r"^ *\d+ s  (.*)$", result.stdout, re.MULTILINE)
        assert durations == ["Reaching", "Restoring", "Verifying", "together"]

    def test_have_lines_for_what_people_must_know(self, steps):
        """As `bin/self` shows them."""
        assert "\n==> localhost: one is missing\n" in steps("Reaching", "Reporting").stdout
        assert "missing" not in steps("Reaching").stdout

    def test_name_the_one_that_fails(self, steps):
        result = steps("Reaching", "Restoring", "Verifying", fail="Restoring")
        assert result.returncode == 2
        assert "Stopped at: Restoring." in result.stdout
        assert "Verifying" not in result.stdout


class TestFault:
    def test_that_is_unknown_is_an_error(self):
        result = make("fault", "WHAT=nothing")
        assert result.returncode == 2
        assert "WHAT is one of:" in result.stdout

    def test_needs_the_demo(self, copy):
        copy.take("bin/fault")
        result = copy.run("bin/fault", "wifi")
        assert (result.returncode, result.stderr) == (1, "The demo is not running. Start it with: make demo\n")


class TestScenario:
    def test_fails_if_molecule_fails(self, copy):
        copy.take("bin/scenario", "bin/utf8", "molecule/base/molecule.yml")
        copy.replace(".venv/bin/molecule")
        assert copy.run("bin/scenario", "base", "verify").returncode == 0
        assert copy.calls == [".venv/bin/molecule verify --scenario-name base"]
        assert copy.run("bin/scenario", "base", fail="molecule test").returncode == 3

    def test_that_does_not_exist_is_an_error(self):
        result = subprocess.run([REPOSITORY / "bin/scenario", "nothing"], capture_output=True, text=True, check=False)
        assert result.returncode == 2
        assert result.stderr.startswith("bin/scenario: there is no scenario ")


def test_role_readmes_reports_a_table_that_is_out_of_date(tmp_path):
    role = tmp_path / "roles/clock"
    (role / "meta").mkdir(parents=True)
    (role / "meta/argument_specs.yml").write_text(
        "argument_specs: {main: {options: {clock_port: {type: int, default: 123, description: The port.}}}}"
    )
    (role / "README.md").write_text("# Clock\n<!-- variables --><!-- /variables -->\n")
    (tmp_path / "bin").mkdir()
    shutil.copy(REPOSITORY / "bin/role-readmes", tmp_path / "bin")

    def readmes(*arguments):
        command = [sys.executable, tmp_path / "bin/role-readmes", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    result = readmes("--check")
    assert result.returncode == 1
    assert result.stderr.endswith("clock/README.md. Run bin/role-readmes.\n")
    assert "clock_port" not in (role / "README.md").read_text()
    assert readmes().returncode == 0
    assert "| `clock_port` | `123` | The port. |" in (role / "README.md").read_text()
    assert readmes("--check").returncode == 0
