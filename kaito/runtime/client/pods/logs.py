"""Reads the log of a container as lines, while they are written."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

LINE_BYTES: Final = 2**20
"""Longer lines are returned in parts."""


async def lines_of(chunks: AsyncIterator[bytes]) -> AsyncGenerator[str]:
    """Yields the lines without their ends, and the last one also if it has none. Bytes that are not UTF-8 are replaced.

    A line that is longer than `LINE_BYTES` is yielded in parts.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
        while len(rest) >= LINE_BYTES:
            yield rest[:LINE_BYTES].decode(errors="replace")
            rest = rest[LINE_BYTES:]
    if rest:
        yield rest.decode(errors="replace")
