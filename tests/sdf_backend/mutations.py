"""Files that are damaged at random."""

import random
import re

SEED = 20261130
# Numbers that trip parsers up.
ODD_NUMBERS = [b"-1", b"0", b"1e308", b"nan", b"99999999999", b"18446744073709551616", b"0x10", b"1_000", b""]


def mutate(content: bytes, draw: random.Random) -> bytes:
    """One to three changes: a byte, a slice gone, doubled or moved, or a number that is another."""
    for _ in range(draw.randint(1, 3)):
        start = draw.randrange(len(content) + 1)
        end = min(len(content), start + draw.choice((1, 2, 8, 40)))
        slice_ = content[start:end]
        number = re.compile(rb"-?\d+(\.\d*)?").search(content, start)
        match draw.randrange(5):
            case 0:
                content = content[:start] + bytes(draw.randrange(256) for _ in slice_) + content[end:]
            case 1:
                content = content[:start] + content[end:]
            case 2:
                content = content[:start] + slice_ * draw.choice((2, 50)) + content[end:]
            case 3:
                content = content[:start] + content[end:] + slice_
            case _ if number:
                content = content[: number.start()] + draw.choice(ODD_NUMBERS) + content[number.end() :]
    return content
