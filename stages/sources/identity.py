"""Ids of records: the one they bring, or else a hash of what they say, numbered when it is said again.

Identity does not depend on the position, so that a resumed run knows its records again in a file that has grown.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.core.errors import ItemError
from pipeline.core.identity import Contents, Identified, Recent


class Identity:
    """Gives the records of one run their ids. What changes: the ids and contents seen lately."""

    def __init__(self, id_field: str | None = None) -> None:
        self._id_field = id_field
        self._contents = Contents()
        self._places = Recent[str]()

    def of_content(self, value: object) -> Identified:
        """Give the id of a record that brings none, see `Contents`."""
        return self._contents.of_content(value)

    def of_bytes(self, data: bytes) -> Identified:
        """Give the id of bytes that could not be read."""
        return self._contents.of_bytes(data)

    def of_fields(self, fields: Mapping[str, object], place: str) -> tuple[Identified, ItemError | None]:
        """Return the id of a record, and what is wrong with it: an id twice, or none where one was asked for.

        `place` is where the record stands; when its id comes again, the message names both places. The later record
        gets the id with a number, so that it too can be told apart.
        """
        try:
            explicit = self._explicit(fields)
        except ItemError as error:
            return self.of_content(fields), error
        if explicit is None:
            return self.of_content(fields), None
        first = self._places.get(explicit)
        if first is None:
            self._places.put(explicit, place)
            return Identified(explicit, explicit), None
        return Identified(self._numbered(explicit, place), explicit), ItemError(
            f"id {explicit!r:.100} was given before, by {first}", type="InvalidInput"
        )

    def _explicit(self, fields: Mapping[str, object]) -> str | None:
        if self._id_field is None:
            return _id(fields.get("id")) or _id(fields.get("custom_id"))
        if self._id_field not in fields:
            raise ItemError(f"the id field {self._id_field!r} is missing", type="InvalidInput")
        value = _id(fields[self._id_field])
        if value is None:
            raise ItemError(f"the id field {self._id_field!r} holds no text and no integer", type="InvalidInput")
        return value

    def _numbered(self, explicit: str, place: str) -> str:
        occurrence = 2
        while self._places.get(f"{explicit}#{occurrence}") is not None:
            occurrence += 1
        self._places.put(f"{explicit}#{occurrence}", place)
        return f"{explicit}#{occurrence}"


def _id(value: object) -> str | None:
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None
