"""What the cells of a NOR flash do when they are written, and what is in them when the power fails meanwhile.

Erasing sets every bit of a block, programming only clears bits; a block is erased before it is written again.
"""

WRITE, PROGRAM, ERASE = 1, 2, 3
TORN = ("none", "half", "erased", "garbage")  # what a cut leaves of a block: as it was, half done, all ones, anything


def changed(operation, before, data):
    """What is there after an operation: `before` is the part of the block that it concerns."""
    if operation == ERASE:
        return b"\xff" * len(before)
    if operation == PROGRAM:
        both = int.from_bytes(before, "little") & int.from_bytes(data, "little")
        return both.to_bytes(len(data), "little")
    return data


def torn(operation, before, after, how):
    """What is there after an operation that the power cut short; how: a place in TORN."""
    half = len(after) // 2
    if TORN[how] == "half":
        return after[:half] + (b"\xff" * len(after) if operation == WRITE else before)[half:]
    if TORN[how] == "erased":
        return b"\xff" * len(after)
    if TORN[how] == "garbage":
        import random  # loaded by a device that loses power, and by no other

        return random.Random(before + after).randbytes(len(after))
    return before
