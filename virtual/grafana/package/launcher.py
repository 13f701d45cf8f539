#!/usr/bin/python3 -EBs
"""Start the Grafana stand-in from its place in the package."""

import sys

sys.path.insert(0, sys.path[0].removesuffix("/bin") + "/stand-in")

from grafana_stand_in.__main__ import main

sys.exit(main())
