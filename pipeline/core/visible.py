"""Text for a terminal: what the terminal would obey is shown instead.

Answers of models, names of files and texts of errors come from anywhere; an escape sequence in one of them could move
the cursor, rename the window or hide what follows.
"""

from __future__ import annotations

import re

#: control characters but tab and line feed, and those that turn the direction of text around
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


def visible(text: str) -> str:
    """Return `text` with every character that a terminal would obey written as `\\u001b`; JSON stays the same JSON."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
