"""A limit to how long a call may take that has none of its own, such as the lookup of a name."""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar('T')


def within(seconds: float, call: Callable[[], T]) -> T:
    """The result of a call, which runs in a thread.

    Raises:
        TimeoutError: it takes longer; its thread is left behind.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # raised below, in the thread of the caller
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError(f'no answer within {seconds:g} seconds')
    return results[0]
