"""The program of a tig-pi sensor node. Module `tig.program` is where it starts."""

VERSION = "1.0.0"
