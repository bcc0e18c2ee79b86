"""A page and its server talk by JSON over one WebSocket; what takes long is done in a thread of that page's own.

    async def go(socket):
        await converse(socket, Talk(Table))

A Table answers a message by an iterator of answers, which are sent as they come. A new message ends the one before:
its iterator is closed at its next answer, so that nothing goes on thinking for a page that asked for something else
or is gone. Each answer carries the "id" of its message.
"""

import asyncio
import contextlib
import json
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, cast

from starlette.websockets import WebSocket, WebSocketDisconnect

MOST = 64
"""conversations at once: each may hold a thread and a search tree"""
TRY_AGAIN_LATER = 1013
"""WebSocket's code of a server that is too busy"""


class Session(Protocol):
    """What a page talks to; made for each page, in its thread."""

    def answers(self, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Answer a message, in the session's thread. Raises ValueError, OSError for what its sender can mend."""
        ...

    def close(self) -> None:
        """End what it holds, in its thread."""
        ...


class Controlled(Session, Protocol):
    """One that also takes messages while it answers."""

    def control(self, message: dict[str, Any]) -> None:
        """Take note, at once, of a message that ends nothing: quick, and in another thread than `answers`. Raises as
        that does.
        """
        ...


_open = 0


class Talk(NamedTuple):
    """How pages talk to sessions of one kind."""

    begin: Callable[[], Session]
    controls: frozenset[str] = frozenset()
    """what of "do" goes to the `control` of a session that is Controlled"""


async def converse(socket: WebSocket, talk: Talk) -> None:
    """Answer a page until it is gone."""
    global _open
    await socket.accept()
    if _open >= MOST:
        await socket.close(TRY_AGAIN_LATER, "too many pages are open")
        return
    _open += 1
    worker = _Worker(talk, asyncio.get_running_loop(), socket)
    try:
        while True:
            try:
                message = _read(await socket.receive_text())
                worker.take(message)
            except (ValueError, KeyError) as error:  # receive_text: KeyError where bytes came
                await socket.send_text(json.dumps({"error": _story(error)}))
    except (WebSocketDisconnect, RuntimeError):  # RuntimeError: it went while something was being sent
        pass
    finally:
        _open -= 1
        worker.end()


def _read(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}"[:200]) from None
    if not isinstance(message, dict) or not isinstance(message.get("do"), str):
        raise ValueError('a message is an object with "do"')
    if not isinstance(message.get("id", 0), int):
        raise ValueError('"id" is a whole number')
    return message


def _story(error: BaseException) -> str:
    text = str(error) if isinstance(error, (ValueError, OSError)) else ""
    return (text or f"{type(error).__name__}: {error}")[:500]


class _Worker:
    """The thread in which a session answers; it begins with the first message."""

    def __init__(self, talk: Talk, loop: asyncio.AbstractEventLoop, socket: WebSocket):
        self.talk, self.loop, self.socket = talk, loop, socket
        self.session: Session | None = None
        self.waiting: dict[str, Any] | None = None
        """the newest message, until it is being answered"""
        self.coming = threading.Condition()
        self.newest = 0
        """its number"""
        self.ended = False
        self.thread: threading.Thread | None = None

    def take(self, message: dict[str, Any]) -> None:
        if message["do"] in self.talk.controls:
            if self.session:  # else there is nothing yet to control
                cast(Controlled, self.session).control(message)
            return
        with self.coming:
            self.newest += 1  # closes the iterator that is open
            self.waiting = message
            self.coming.notify()
        if not self.thread:
            self.thread = threading.Thread(target=self._run, daemon=True)
            self.thread.start()

    def end(self) -> None:
        with self.coming:
            self.newest += 1
            self.ended = True
            self.coming.notify()

    def _next(self) -> tuple[dict[str, Any], int] | None:
        with self.coming:
            self.coming.wait_for(lambda: self.waiting or self.ended)
            message, self.waiting = self.waiting, None
            return None if self.ended or message is None else (message, self.newest)

    def _run(self) -> None:
        try:
            self.session = self.talk.begin()
            while asked := self._next():
                self._answer(self.session, *asked)
        except ConnectionError:
            pass
        finally:
            if self.session:
                self.session.close()

    def _answer(self, session: Session, message: dict[str, Any], number: int) -> None:
        name = message.get("id", 0)
        with contextlib.closing(session.answers(message)) as answers:  # type: ignore[type-var]
            try:
                for answer in answers:
                    if number != self.newest:
                        return
                    self._send({"id": name} | answer)
            except ConnectionError:
                raise
            except Exception as error:  # whatever a message is made of, the next one is answered
                if not isinstance(error, (ValueError, OSError)):
                    traceback.print_exc(file=sys.stderr)
                self._send({"id": name, "error": _story(error)})

    def _send(self, answer: dict[str, Any]) -> None:
        """Waits where the page is slow, so that no heap of answers grows. Raises ConnectionError where it is gone."""
        sending = self.socket.send_text(json.dumps(answer, separators=(",", ":")))
        try:
            asyncio.run_coroutine_threadsafe(sending, self.loop).result()
        except (WebSocketDisconnect, RuntimeError, asyncio.CancelledError) as error:
            sending.close()
            raise ConnectionError("the page is gone") from error
