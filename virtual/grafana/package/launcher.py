#!/usr/bin/python3 -EBs
"""Starts the stand-in for Grafana from where its package puts it."""

import sys

sys.path.insert(0, sys.path[0].removesuffix("/bin") + "/stand-in")

from grafana_stand_in.__main__ import main

sys.exit(main())
