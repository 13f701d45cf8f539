"""What a power cut leaves of ansible.builtin.apt, and how it is cleaned up."""

from __future__ import annotations

import os
from pathlib import Path

# As long as dpkg's journal is here, apt refuses to install anything.
JOURNAL = "/var/lib/dpkg/updates"
# ansible.builtin.apt has this file while it runs with policy_rc_d: 101. If it stays, no package can restart a service any more.
POLICY = "/usr/sbin/policy-rc.d"
# Or the file is empty: after a power cut, the card may have its name and not its content.
POLICY_TEXT = "#!/bin/sh\nexit 101\n"

# The policy goes last, so that no service starts before its configuration is in place. What dpkg cannot complete, apt does.
CLEAN_UP = f"""
DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold --configure --pending
if [ ! -s {POLICY} ] || printf '{POLICY_TEXT.encode("unicode_escape").decode()}' | cmp --silent - {POLICY}; then rm -f {POLICY}; fi
"""


def is_interrupted(journal: str = JOURNAL, policy: str = POLICY) -> bool:
    """Whether apt was interrupted on this host. It must not be running."""
    if any(name.isdigit() for name in os.listdir(journal)):
        return True
    try:
        return Path(policy).read_text(encoding="utf-8", errors="replace") in ("", POLICY_TEXT)
    except FileNotFoundError:
        return False
