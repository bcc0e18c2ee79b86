"""The server of the pages: what it sends to whom, and to whom it sends nothing.

It serves the files of experiments/web by their exact names, and conversations; it takes no uploads but messages. Pages
of other sites, which a browser would let in, are refused by the Host and Origin that they cannot choose.
"""

import secrets
import socket
from collections.abc import Callable, Mapping
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from experiments.page.conversation import Talk, converse

WEB = Path(__file__).parent.parent / "web"
LARGEST = 10 * 2**20
"""bytes of a message: of a record of games, for instance"""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
COOKIE = "rlkit-token"
HEADERS = {
    # Nothing but our own scripts runs, whatever stands in a record or a run's name.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def app(
    pages: Mapping[str, str],
    lists: Mapping[str, Callable[[], Any]],
    talks: Mapping[str, Talk],
    hosts: set[str] | None,
    token: str | None = None,
) -> ASGIApp:
    """The application.

    Args:
        pages: path -> file of experiments/web. lists: path -> what it answers as JSON, asked in a thread.
        talks: path -> whom a page there talks to.
        hosts: what a request may call this server, with its port; None: anything.
        token: what a visitor must know; None: all may come.
    """
    files = {file.name: file for file in WEB.iterdir() if file.suffix in (".js", ".css", ".html", ".svg")}

    def page(name: str) -> Callable[[Request], Response]:
        return lambda request: FileResponse(files[name])

    def file(request: Request) -> Response:
        found = files.get(request.path_params["name"])
        return FileResponse(found) if found else PlainTextResponse("not found", 404)

    def listed(what: Callable[[], Any]) -> Callable[[Request], Response]:
        return lambda request: JSONResponse(what())

    def talking(talk: Talk) -> Callable[[WebSocket], Any]:
        async def endpoint(socket: WebSocket) -> None:
            await converse(socket, talk)

        return endpoint

    routes = [
        *(Route(path, page(name)) for path, name in pages.items()),
        *(Route(path, listed(what)) for path, what in lists.items()),
        *(WebSocketRoute(path, talking(talk)) for path, talk in talks.items()),
        Route("/web/{name}", file),
    ]
    return Guard(Starlette(routes=routes), hosts, token)


class Guard:
    """Refuses what comes from elsewhere, and adds HEADERS to what goes out."""

    def __init__(self, inner: ASGIApp, hosts: set[str] | None, token: str | None):
        self.inner, self.hosts, self.token = inner, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.inner(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": bytes(refusal.body).decode()})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        await (refusal or self.inner)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.hosts is not None and host.lower() not in self.hosts:
            return PlainTextResponse(f"this server is not called {host[:100]!r}", 403)
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return PlainTextResponse("pages of other sites may not ask here", 403)
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("only GET is answered", 405)
        if self.token is None:
            return None
        asked = parse_qs(scope["query_string"].decode("latin-1"))
        if secrets.compare_digest(_cookie(headers.get("cookie", "")), self.token.encode()):
            return None
        if not secrets.compare_digest(asked.get("token", [""])[0].encode(), self.token.encode()):
            return PlainTextResponse("this page wants the token that the server said when it began: ?token=...", 403)
        left = urlencode({name: values[0] for name, values in asked.items() if name != "token"})
        to = scope["path"] + (f"?{left}" if left else "")
        response = Response(status_code=303, headers={"location": to if not to.startswith("//") else "/"})
        response.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
        return response


def _cookie(text: str) -> bytes:
    try:
        found = SimpleCookie(text).get(COOKIE)
    except Exception:  # http.cookies raises CookieError, and others in old versions
        return b""
    return found.value.encode() if found else b""


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address; port 0: any that is free. Raises OSError with a remedy."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)  # so that a browser that comes at once waits, and is not refused
    except (OSError, OverflowError) as error:
        listening.close()
        raise OSError(f"cannot listen at {host}, port {port} ({error}): choose another by --port, 0 for any") from None
    return listening


def names(host: str, port: int) -> set[str] | None:
    """What a browser on this machine calls a server that listens at its own address; None: at others, anything."""
    if host not in LOOPBACK:
        return None
    return {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
