"""Lines of text files, of bounded length."""

from collections.abc import Iterator

# The longest line of a real file is a polygon of some thousand corners.
LONGEST_LINE = 1 << 20


def text_lines(data: bytes) -> Iterator[str]:
    """The lines of a text, without their ends and without spaces around them, whatever the encoding.

    Raises `ValueError` for a line that is too long to be one of numbers.
    """
    start, size = 0, len(data)
    while start < size:
        end = data.find(b"\n", start, start + LONGEST_LINE)
        if end < 0 and size - start > LONGEST_LINE:
            raise ValueError(f"it has a line of more than {LONGEST_LINE:,} characters")
        end = size if end < 0 else end
        yield data[start:end].decode("latin-1").strip()
        start = end + 1


def is_unfinished(data: bytes) -> bool:
    """Whether a text ends within a line."""
    return not data.endswith((b"\n", b"\r"))
