"""Values as small JSON objects in the store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeVar, get_args

from pydantic import ValidationError

from tasks.domain.errors import NewerSchemaError, UnreadableDocumentError
from tasks.domain.value import Value

if TYPE_CHECKING:
    from tasks.storage.store import ObjectStore

Document = TypeVar("Document", bound=Value)


def read_document(kind: type[Document], store: ObjectStore, key: str) -> Document:
    """Read a value.

    Raises:
        ArtifactNotFoundError: No object has this key.
        NewerSchemaError: Only a newer version of this program can read it.
        UnreadableDocumentError: The object is something else.
    """
    return parse_document(kind, store.read(key).content, store.url(key))


def parse_document(kind: type[Document], content: bytes, where: str) -> Document:
    """Make a value of what was read.

    Raises:
        NewerSchemaError: Only a newer version of this program can read it.
        UnreadableDocumentError: It is something else; the message begins with ``where``.
    """
    _require_known_schema(kind, content, where)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "the whole"
        message = (
            f"{where}: cannot be read (expected JSON of a {kind.__name__}, got a fault in "
            f"{field}: {first['msg']}). Was it written by a newer version of this program?"
        )
        raise UnreadableDocumentError(message) from error


def _require_known_schema(kind: type[Value], content: bytes, where: str) -> None:
    """Refuse what a newer version wrote before any field of it is believed."""
    field = kind.model_fields.get("schema_version")
    if field is None:
        return
    known = max(get_args(field.annotation))
    try:
        document = json.loads(content)
    except ValueError:
        return  # the caller says what is wrong
    got = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(got, int) and got > known:
        message = (
            f"{where}: was written by a newer version of onnx-conveyor (expected schema_version "
            f"{known} or less, got {got}). Install a version that knows {got}; this one leaves "
            "the file, and whatever it may name, as they are."
        )
        raise NewerSchemaError(message)
