"""The program of a tig-pi sensor node. Module `tig.main` is where it starts."""

VERSION = "1.0.0"
