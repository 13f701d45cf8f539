"""Backs up the state of this host's services to encrypted repositories, and restores it. Python's standard library and restic."""


class Problem(Exception):
    """Something that a person has to know, under a name that does not change: alerts and tests go by it."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name
