"""The rules that all files of the repository follow."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest
import yaml
from conftest import REPOSITORY

ROLES = sorted(path for path in (REPOSITORY / "roles").iterdir() if (path / "tasks/main.yml").exists())
PLAYBOOKS = sorted((REPOSITORY / "playbooks").glob("*.yml"))
# A secret, or a variable that contains some.
SECRET = re.compile(
    r"password|secret_key|credential_secret|(lookup|query)\('tig_pi\.stack\.secret'|[a-z]_(admin|users|accounts|credentials|secrets)\b"
)
# Programs that need no entry in bin/prerequisites: those of Debian's essential packages and of apt; make; those in .venv.
EVERYWHERE = {
    "ansible-playbook",
    "apt-cache",
    "apt-config",
    "apt-get",
    "cat",
    "dpkg",
    "dpkg-deb",
    "env",
    "make",
    "mount",
    "nice",
    "sh",
    "sleep",
    "stat",
    "tar",
    "umount",
}
# Modules and actions that never log their secret arguments.
KEEPS_SECRETS = {"tree", "mqtt_message", "influxdb_schema", "node_red_flows"}


def named(paths):
    return {"argvalues": paths, "ids": [path.stem if path.suffix else path.name for path in paths]}


def defaults_of(role):
    """The file with the defaults of the variables that a role documents. Those of the site are in the playbooks' variables."""
    return (
        REPOSITORY / "playbooks/group_vars/all/10_site.yml" if role.name == "validate" else role / "defaults/main.yml"
    )


def options(role):
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]
    return {name: option for entry in specs.values() for name, option in entry.get("options", {}).items()}


def tasks(document):
    """All tasks of a parsed file, including those in blocks."""
    for task in document or []:
        for part in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"):
            yield from tasks(task.get(part))
        if not {"block", "hosts"} & set(task):
            yield task


@pytest.mark.parametrize("role", **named(ROLES))
def test_defaults_and_argument_specs_agree(role):
    defaults = yaml.safe_load(defaults_of(role).read_text()) or {}
    prefix = "site" if role.name == "validate" else role.name
    specs = options(role)
    assert set(defaults) == {name for name, option in specs.items() if not option.get("required")}
    for name, value in defaults.items():
        assert specs[name].get("default") == value, name
    for name, option in specs.items():
        assert name.startswith(f"{prefix}_"), name
        assert option.get("description"), name


@pytest.mark.parametrize("role", **named(ROLES))
def test_every_default_has_a_comment(role):
    commented = True
    for line in defaults_of(role).read_text().splitlines():
        if line.startswith("#"):
            commented = True
        elif not line.strip():
            commented = False
        elif re.match(r"\w", line):
            assert commented, line


@pytest.mark.parametrize("role", **named(ROLES))
def test_tasks_read_like_a_table_of_contents(role):
    assert len((role / "tasks/main.yml").read_text().splitlines()) <= 25


@pytest.mark.parametrize("role", **named([role for role in ROLES if role.name != "validate"]))
def test_every_role_has_a_scenario(role):
    assert (REPOSITORY / "molecule" / role.name / "molecule.yml").exists()


def text_of(role):
    """Path and text of a role's YAML files and templates, without comments."""
    for path in sorted(role.rglob("*")):
        if path.suffix in (".yml", ".j2"):
            yield path, re.sub(r"#.*", "", path.read_text(encoding="utf-8"))


def helpers():
    """Roles that other roles include, and whose variables they therefore set."""
    for role in ROLES:
        for path, text in text_of(role):
            for task in tasks(yaml.safe_load(text)) if path.parent.name in ("tasks", "handlers") else ():
                for action, arguments in task.items():
                    if action.rsplit(".", 1)[-1] in ("include_role", "import_role"):
                        yield arguments["name"].rsplit(".", 1)[-1]


@pytest.mark.parametrize("role", **named([role for role in ROLES if role.name != "validate"]))
def test_a_role_knows_no_other_role_and_no_group(role):
    others = {"site", *(other.name for other in ROLES)} - {role.name, *helpers()}
    for path, text in text_of(role):
        group = re.search(r"\bgroups\s*[\[.|]|\bgroup_names\b", text)
        assert not group, f"{path} reads {group.group()}"
        other = re.search(rf"(?<![\w./-])_*({'|'.join(others)})_[a-z_]+", text)
        assert not other, f"{path} reads {other.group()}"


@pytest.mark.parametrize("role", **named(ROLES))
def test_tasks_with_a_secret_are_not_logged(role):
    for path in [*role.glob("tasks/*.yml"), *role.glob("handlers/*.yml")]:
        for task in tasks(yaml.safe_load(path.read_text())):
            action = {key.rsplit(".", 1)[-1] for key in task} & {
                *KEEPS_SECRETS,
                "import_tasks",
                "include_tasks",
                "assert",
            }
            if SECRET.search(yaml.safe_dump(task)) and not action:
                assert "no_log" in task, f"{path}: {task.get('name')}"


@pytest.mark.parametrize("playbook", **named(PLAYBOOKS))
def test_tasks_of_playbooks_with_a_secret_are_not_logged(playbook):
    for task in tasks(yaml.safe_load(playbook.read_text())):
        arguments = dict(task.get("ansible.builtin.uri", {}))
        arguments.pop("url_password", None)  # the module itself never logs it
        if SECRET.search(yaml.safe_dump(arguments)):
            assert "no_log" in task, task.get("name")


def test_no_log_never_hides_the_reason_of_a_failure():
    """A task with no_log cannot say why it failed. So it must not fail; the next task checks its result."""
    files = [*PLAYBOOKS, *REPOSITORY.glob("roles/*/tasks/*.yml"), *REPOSITORY.glob("roles/*/handlers/*.yml")]
    for path in files:
        for task in tasks(yaml.safe_load(path.read_text())):
            assert "no_log" not in task or task.get("failed_when") is False, f"{path}: {task.get('name')}"


@pytest.mark.parametrize("playbook", **named(PLAYBOOKS))
def test_playbooks_reach_the_services_without_a_proxy(playbook):
    """A proxy in the environment is for the internet, but would be used even for 127.0.0.1."""
    for play in yaml.safe_load(playbook.read_text()):
        if any("ansible.builtin.uri" in task for task in tasks([play])):
            defaults = play.get("module_defaults", {}).get("ansible.builtin.uri", {})
            assert defaults.get("use_proxy") is False, play["name"]


@pytest.mark.parametrize("role", **named(ROLES))
def test_roles_reach_their_service_without_a_proxy(role):
    for path in [*role.glob("tasks/*.yml"), *role.glob("handlers/*.yml")]:
        for task in tasks(yaml.safe_load(path.read_text())):
            assert task.get("ansible.builtin.uri", {"use_proxy": False}).get("use_proxy") is False, task["name"]


@pytest.mark.parametrize(
    ("task", "is_secret"),
    [
        ("users: '{{ influxdb_users }}'", True),
        ("content: '{{ mosquitto_accounts | mosquitto_acl_file }}'", True),
        ("admin: '{{ influxdb_admin }}'", True),
        ("owner: '{{ grafana_admin_user }}'", False),
        ("name: Converge users, databases and accounts", False),
    ],
)
def test_a_secret_is_recognised_by_the_name_of_its_variable(task, is_secret):
    assert bool(SECRET.search(task)) is is_secret


MESSAGES = {"assert": ("fail_msg", "success_msg"), "fail": ("msg",), "debug": ("msg", "var"), "pause": ("prompt",)}
# Filters with secrets in their input and none in their result, which their own tests check.
NAMES_NO_SECRET = re.compile(r"\|\s*[\w.]+_problems\b")


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def printed(task):
    """The expressions, without quoted strings, in what a task prints: its name, its messages, and the task variables that
    they use.
    """
    variables = task.get("vars") or {}
    values = [task.get("name")]
    for module, options in MESSAGES.items():
        arguments = task.get(f"ansible.builtin.{module}") or {}
        values += [arguments.get(option) for option in options if option != "var"]
        values.append("{{" + arguments.get("var", "") + "}}")
    seen = set()
    while values:
        for text in strings(values.pop()):
            for expression in re.findall(r"{[{%](.*?)[}%]}", text, re.DOTALL):
                expression = re.sub(r"(?<!lookup\()(?<!query\()'[^']*'", "''", expression)
                yield expression
                for name in set(re.findall(r"\w+", expression)) & variables.keys() - seen:
                    seen.add(name)
                    values.append(variables[name])


def prints_a_secret(task):
    return any(SECRET.search(text) and not NAMES_NO_SECRET.search(text) for text in printed(task))


@pytest.mark.parametrize(
    ("task", "is_secret"),
    [
        ("assert: {that: x, fail_msg: 'The password {{ grafana_admin_password }} is too short.'}", True),
        ("assert: {that: x, fail_msg: grafana_admin_password is too short.}", False),
        ("assert: {that: x, success_msg: '{{ influxdb_users }}'}", True),
        ("fail: {msg: '{% if x %}{{ mosquitto_accounts | first }}{% endif %}'}", True),
        ("debug: {msg: ['{{ x }}', '{{ node_red_credential_secret }}']}", True),
        ("debug: {var: telegraf_secrets}", True),
        ("""fail: {msg: "{{ 'The password is wrong.' if x else lookup('tig_pi.stack.secret', 'wifi') }}"}""", True),
        ("""fail: {msg: "{{ 'The password is wrong.' if x else '' }}"}""", False),
        ("{fail: {msg: '{{ __why }}'}, vars: {__why: '{{ __what }}', __what: '{{ influxdb_admin.password }}'}}", True),
        (
            "{assert: {that: x, fail_msg: '{{ __problems }}'}, vars: {__problems: '{{ influxdb_users | tig_pi.stack.influxdb_problems }}'}}",
            False,
        ),
    ],
)
def test_a_message_with_a_secret_is_detected(task, is_secret):
    task = {f"ansible.builtin.{key}" if key in MESSAGES else key: value for key, value in yaml.safe_load(task).items()}
    assert prints_a_secret(task) is is_secret


def test_no_message_has_a_secret():
    files = [*PLAYBOOKS, *REPOSITORY.glob("roles/*/tasks/*.yml"), *REPOSITORY.glob("roles/*/handlers/*.yml")]
    for path in files:
        for task in tasks(yaml.safe_load(path.read_text())):
            assert not prints_a_secret(task), f"{path}: {task.get('name')}"


def test_every_play_of_the_site_stops_at_the_first_error():
    for path in REPOSITORY.glob("playbooks/site*.yml"):
        for play in yaml.safe_load(path.read_text()):
            assert "ansible.builtin.import_playbook" in play or play["any_errors_fatal"] is True, play["name"]


def test_the_tables_of_the_role_readmes_are_up_to_date():
    result = subprocess.run(
        [sys.executable, "bin/role-readmes", "--check"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_no_role_looks_up_a_secret_itself():
    """The playbook passes the value of a secret to a role."""
    for role in ROLES:
        if role.name != "lopy4":
            for path in role.rglob("*.yml"):
                assert "lookup('tig_pi.stack.secret'" not in re.sub(r"#.*", "", path.read_text()), path


RUNS = re.compile(
    r"(^|[._])(run|call|check_call|check_output|check_outputs|nice|Popen|Program|getoutput|system|popen|exec[lv]p?e?)$"
)


def programs(source):
    """The programs that a Python program runs: the first words of its commands, which are lists, tuples or shell scripts."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=function, args=[first, *_]) if RUNS.search(ast.unparse(function)):
                by_shell = any(option.arg == "shell" for option in node.keywords)
                if by_shell or ast.unparse(function) in ("os.system", "os.popen", "subprocess.getoutput"):
                    yield from words_of_shell(first)
                else:
                    yield from first_word(first)
            case ast.Assign(targets=targets, value=value) if any("command" in ast.unparse(one) for one in targets):
                yield from first_word(value)


def first_word(command):
    """The program of a command, if it is a constant. A prefix in a variable, such as sudo, is skipped."""
    match command:
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            for part in parts:
                if isinstance(part, ast.Constant):
                    yield part.value
                    return
                if not isinstance(part, ast.Starred) or "command" in ast.unparse(part):
                    return  # the program is in a variable
                found = list(first_word(part.value))
                yield from found
                if found and not isinstance(part.value, ast.IfExp):
                    return
        case ast.IfExp(body=one, orelse=other):
            yield from first_word(one)
            yield from first_word(other)
        case ast.BinOp(left=left):
            yield from first_word(left)


def words_of_shell(text):
    """The programs in a shell script."""
    for part in re.split(r"[|;&]+", ast.unparse(text).strip("f'\"")):
        if word := part.split():
            yield word[0]


@pytest.mark.parametrize(
    "source",
    [
        "subprocess.run(['jq', '.'])",
        "subprocess.run(['jq'], check=True)",
        "subprocess.run(('jq', '.'))",
        "subprocess.check_output(['jq', '.'])",
        "subprocess.run('jq . <x', shell=True)",
        "subprocess.run(f'cat {x} | jq .', shell=True)",
        "os.system('jq .')",
        "os.execvp(['jq'], ['jq'])",
        "self.run([*self.prefix, 'jq', '.'])",
        "command = [*([] if root else ['sudo']), *['jq', '.']]",
        "command = ['jq'] + options",
    ],
)
def test_a_program_is_found_however_it_is_run(source):
    assert "jq" in programs(source)


def test_every_program_that_runs_on_this_machine_is_a_prerequisite():
    """A fresh machine has nothing else, although a developer's machine has most programs by chance."""
    needs = (REPOSITORY / "bin/prerequisites").read_text()
    listed = {line.split()[1] for line in re.findall(r"^[a-z0-9-]+ [a-z0-9_-]+\b", needs, re.MULTILINE)} | {
        "ssh",
        "sudo",
    }
    with_another = {"mdir": "mcopy", "ssh-keygen": "ssh", "gpgconf": "gpg", "mosquitto_sub": "mosquitto_pub"}
    used = {
        name: path.relative_to(REPOSITORY)
        for folder in ("bin", "packaging", "virtual", "bench", "molecule", "tests")
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and (path.suffix == ".py" or path.read_bytes().startswith(b"#!/usr/bin/env python3"))
        if "modules" not in path.parts  # these run on the virtual LoPy4
        for name in programs(path.read_text(encoding="utf-8"))
        if not name.startswith("/")  # these are on a Pi
    }
    assert {"gpg", "mosquitto_pub", "ssh"} <= used.keys()
    missing = {name: path for name, path in used.items() if not {name, with_another.get(name)} & (listed | EVERYWHERE)}
    assert missing == {}


# Names of files and verbs in texts.
NAMED_FILE = re.compile(
    r"(?<![\w./~\"<>}-])"
    r"((?:roles|playbooks|templates|packaging|virtual|firmware|molecule|bench|bin|docs|plugins|inventories|tests)/[\w./-]*\w)"
    r"(?![\w*<{…\[-]|/?[*<{…])"
)
NAMED_VERB = re.compile(r"`make ([a-z-]+)")
# Files that users create, and files of other projects.
NOT_HERE = re.compile(r"inventories/mine\b|inventories/demo/secrets\b|docs/reference/|docs/en/|firmware/LoPy4-")


def test_every_named_file_and_verb_exists():
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    verbs = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = 0
    for name in set(listed.stdout.splitlines()) - {"tests/test_repository.py"}:
        path = REPOSITORY / name
        if path.suffix not in (".py", ".yml", ".md", ".j2", ".js", ".sh") and path.parent.name != "bin":
            continue
        text = path.read_text(encoding="utf-8")
        for verb in NAMED_VERB.findall(text):
            assert verb in verbs, f"{name}: make {verb}"
        for file in NAMED_FILE.findall(text):
            named += 1
            exists = (REPOSITORY / file).exists() or (path.parent / file).exists()
            assert exists or NOT_HERE.match(file), f"{name}: {file}"
    assert named > 50


def test_every_link_in_a_document_leads_somewhere():
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    links = 0
    for name in listed.stdout.splitlines():
        for target, anchor in re.findall(
            r"\]\(((?!https?:)[^)#\s]*)(?:#([^)\s]+))?\)", (REPOSITORY / name).read_text()
        ):
            links += 1
            file = ((REPOSITORY / name).parent / target).resolve() if target else REPOSITORY / name
            assert file.exists(), f"{name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in slugs, f"{name}: {target}#{anchor}"
    assert links > 30


def test_the_pytest_commands_in_documents_select_tests():
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    commands = [
        command
        for name in listed.stdout.splitlines()
        for command in re.findall(r"pytest (tests/test_\w+\.py)(?: -k (\w+))?", (REPOSITORY / name).read_text())
    ]
    assert len(commands) >= 3
    for path, word in commands:
        tests = re.findall(r"def (test_\w+)", (REPOSITORY / path).read_text())
        assert [test for test in tests if word in test], f"pytest {path} -k {word}"


def test_every_python_program_is_linted():
    """ruff finds programs without .py only if pyproject.toml lists them."""
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.splitlines() if "." not in name.rsplit("/", 1)[-1]]
    programs = {name for name in names if re.match(rb"#!.*python", (REPOSITORY / name).read_bytes())}
    command = [sys.executable, "-m", "ruff", "check", "--show-files"]
    linted = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    assert len(programs) >= 20
    assert programs - {name.removeprefix(f"{REPOSITORY}/") for name in linted} == set()
