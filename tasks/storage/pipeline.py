"""Many pieces of work under way at once, in order, in little memory."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = 4


def pipelined(
    work: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Yield ``work(item)`` for each item, in order, with up to ``ahead`` of them under way.

    Items are taken one by one, so that at most ``ahead`` + 1 items or results exist at a
    time. The first error ends it: what was not begun by then never begins, and what was has
    ended when this returns.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(_pool().submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        wait([each for each in waiting if not each.cancel()])


@cache
def _pool() -> ThreadPoolExecutor:
    """Return the threads of this process.

    They are kept: glibc gives new threads memory of their own, which grows with every
    transfer (by about 8 MiB each, measured).
    """
    return ThreadPoolExecutor(WORKERS, thread_name_prefix="transfer")
