"""What the tests of the device's program share: a real MicroPython, and a network to take away from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lopy4_bench import LOADER

from .board import Board

HERE = Path(__file__).parent
FIRMWARE = HERE.parents[1] / "firmware"
# The interpreter of the tests; $MICROPYTHON names another one, such as an older release.
MICROPYTHON = Path(os.environ.get("MICROPYTHON") or Path(sys.executable).with_name("micropython"))


def write_loader(folder: Path) -> None:
    """boot.py and main.py in the root of a device, as the uploader writes them."""
    for name, text in LOADER.items():
        (folder / name).write_bytes(text)


def evaluate(
    code: str, data=None, profile: str = "pycom", speed: float = 1, timeout: float = 60, drivers=None, **settings
):
    """Run code in the real MicroPython with `data` in hand; returns what it leaves in `result`, as JSON carries it.

    drivers: name -> text of further drivers in the program. settings: of the board.
    """
    with tempfile.TemporaryDirectory() as folder, Board(profile, speed, **settings) as board:
        Path(folder, "data.json").write_text(json.dumps(data))
        library = FIRMWARE / "lib"
        if drivers:
            library = Path(shutil.copytree(library, Path(folder, "lib"), ignore=shutil.ignore_patterns("__pycache__")))
            for name, text in drivers.items():
                (library / "tig/drivers" / f"{name}.py").write_text(text)
        Path(folder, "run.py").write_text(
            'import json\nwith open("data.json") as f:\n    data = json.load(f)\nresult = None\n'
            f'{code}\nwith open("result.json", "w") as f:\n    json.dump(result, f)\n'
        )
        ran = subprocess.run(
            [MICROPYTHON, "-X", "heapsize=32M", "run.py"],
            cwd=folder,
            env=board.environment(library),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        violations = {name: sensor.violations for name, sensor in board.hardware.sensors.items() if sensor.violations}
        assert not violations, f"not as the sensors' data sheets have it: {violations}"
        return json.loads(Path(folder, "result.json").read_text(), parse_float=_single)


def _single(text: str) -> float:
    """As many digits as a board's floats have: with single precision 84.0 is written as 84.00001."""
    return float(f"{float(text):.6g}")
