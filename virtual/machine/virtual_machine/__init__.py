"""Virtual machines that boot a card with a kernel of their own. machine.py is the command.

What they share with the virtual Pis, whose packages are in ../pi: the image, the feed, published ports, SSH, owners.
"""

from __future__ import annotations

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE.parent / "pi"))

# The partitions of a card, as those of Raspberry Pi OS, but smaller.
MB = 1 << 20
BOOT_START, BOOT_SIZE = 4 * MB, 96 * MB
# What the boot loader reads from the boot partition.
KERNEL, RAM_DISK, COMMAND_LINE = "vmlinuz", "initrd.img", "cmdline.txt"
