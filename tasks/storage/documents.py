"""Values as small JSON objects in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from tasks.domain.errors import UnreadableDocumentError
from tasks.domain.value import Value

if TYPE_CHECKING:
    from tasks.storage.store import ObjectStore

Document = TypeVar("Document", bound=Value)


def read_document(kind: type[Document], store: ObjectStore, key: str) -> Document:
    """Read a value.

    Raises:
        ArtifactNotFoundError: No object has this key.
        UnreadableDocumentError: The object is something else.
    """
    return parse_document(kind, store.read(key).content, store.url(key))


def parse_document(kind: type[Document], content: bytes, where: str) -> Document:
    """Make a value of what was read.

    Raises:
        UnreadableDocumentError: It is something else; the message begins with ``where``.
    """
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
