"""A share of the records: by what they are, never by where they stand, so that it is the same in a file that grew."""

from __future__ import annotations

from hashlib import blake2b


def share_of(name: str, shares: int) -> int:
    """Return the share, from 1 to `shares`, of records with this id or content.

    Records that say the same have the same name, and so the same share: their occurrences are counted together.
    """
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) % shares + 1
