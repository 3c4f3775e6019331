"""The model card beside an adapter: a page for people, which no reader of adapters looks at."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

# What hubs show of a folder.
CARD_NAME = "README.md"

_MARK = (
    "<!-- Written by keras_mpt with the adapter. A card that was edited stays as it is; where "
    "there is none, the next save writes one. "
)
_END = " -->\n"
# Of no card a part is looked at: what is larger, somebody else wrote.
_LARGEST = 1 << 22


def marked(text: str) -> bytes:
    """A card's content: the text, and a checksum by which an edit is noticed.

    Args:
        text: string.
    """
    # A name may hold halves of characters, which no file can.
    body = text.encode("utf-8", "backslashreplace")
    return body + f"{_MARK}{_checksum(body)}{_END}".encode()


def may_be_replaced(file: Path) -> bool:
    """Whether a card may be written there: nothing is, or a card of ours as it was written.

    Args:
        file: the card's path.
    """
    if not os.path.lexists(file):
        return True
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST:
            return False
        # Git may have written its lines' ends anew.
        content = file.read_bytes().replace(b"\r\n", b"\n")
    except OSError:  # It is not ours to read.
        return False
    body, _, rest = content.rpartition(_MARK.encode())
    return rest == f"{_checksum(body)}{_END}".encode()


def _checksum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]
