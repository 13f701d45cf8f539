"""What a power cut leaves of ansible.builtin.apt, and how it is cleaned up."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

# As long as dpkg's journal is here, in files with numbers for names, apt refuses to install anything.
JOURNAL = "/var/lib/dpkg/updates"
# ansible.builtin.apt has this file while it runs with policy_rc_d: 101. If it stays, no package can restart a service any more.
POLICY = "/usr/sbin/policy-rc.d"
# Or the file is empty: after a power cut, the card may have its name and not its content.
POLICY_TEXT = "#!/bin/sh\nexit 101\n"
# The second letter of ${db:Status-Abbrev} of packages that are not half done: not installed, only configuration files, installed.
COMPLETE = "nci"

# The policy is there meanwhile, so that no service starts before its configuration is in place. dpkg exits with 2 if it could not work
# at all, for example since another program uses it: that program may need the policy. It exits with 1 if it could not complete some
# packages, and does not mention those that have to be unpacked again. What dpkg cannot complete, apt may.
CLEAN_UP = f"""
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
policy() {{ printf '{POLICY_TEXT.encode("unicode_escape").decode()}'; }}
is_left() {{ [ ! -s {POLICY} ] || policy | cmp --silent - {POLICY}; }}
if is_left; then policy >{POLICY} && chmod 755 {POLICY}; fi
dpkg --force-confdef --force-confold --configure --pending
code=$?
[ $code -lt 2 ] || exit $code
if is_left; then rm -f {POLICY}; fi
if dpkg-query --show --showformat='${{db:Status-Status}} ${{Package}}\\n' | grep -E '^(half|unpacked|triggers)' >&2; then exit 1; fi
exit $code
"""
INCOMPLETE = 1  # the exit status if packages are left that are not complete


def is_interrupted(statuses: Iterable[str], journal: str = JOURNAL, policy: str = POLICY) -> bool:
    """Whether apt was interrupted on this host, whose packages have these abbreviated statuses. It must not be running."""
    if any(status[1] not in COMPLETE for status in statuses) or any(name.isdigit() for name in os.listdir(journal)):
        return True
    try:
        return Path(policy).read_text(encoding="utf-8", errors="replace") in ("", POLICY_TEXT)
    except FileNotFoundError:
        return False
