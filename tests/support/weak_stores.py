"""Gateways that forget one condition each, as real servers do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.s3_gateway import Answer, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.s3_gateway import Change

NOTHING: frozenset[str] = frozenset()


def _dropping(header: str, method: str) -> Change:
    return lambda request: frozenset({header}) if request.method == method else NOTHING


def _refusing_right_tags(request: Request) -> Answer | frozenset[str]:
    return Answer(412, "PreconditionFailed") if "If-Match" in request.headers else NOTHING


WEAK: dict[str, tuple[Callable[[Request], Answer | frozenset[str]], str]] = {
    "ignores-if-none-match": (
        _dropping("if-none-match", "PUT"),
        "an object overwritten in spite of If-None-Match",
    ),
    "ignores-if-match": (
        _dropping("if-match", "PUT"),
        "an object overwritten in spite of an If-Match with another tag",
    ),
    "refuses-right-tags": (
        _refusing_right_tags,
        "an object kept in spite of an If-Match with its own tag",
    ),
    "ignores-if-none-match-of-parts": (
        _dropping("if-none-match", "POST"),
        "an object overwritten by a multipart upload in spite of If-None-Match",
    ),
}
"""What each forgets, and what is said of it. Ceph 16.2 is the third and the fourth in one."""
