"""Who may ask: hosts, origins, tokens, sizes, and what browsers are told.

By default the server is for this machine. A page of another site must not reach it through a browser (`Origin`), not by
a name that its owner points here either (`Host`). From elsewhere nothing is changed without a token.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlsplit

import attrs
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actorflow.errors import WorkflowRuntimeError
from actorflow.server.protocol import Refused, dumped

__all__ = ["CSP", "Guard", "Rules", "is_loopback"]

CSP = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN = frozenset({"/api/health", "/api/ready", "/health"})  # asked by those who watch over the process

PRIVATE = ("/api/", "/workflows", "/handlers", "/events/", "/results/")  # all but the page

Authorize = Callable[[str], bool] | Callable[[str], Awaitable[bool]]


def _lower(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name.rstrip("/").lower() for name in names)


@attrs.frozen(kw_only=True)
class Rules:
    """Who may ask.

    Attributes:
        hosts: Names that the server is known by, besides those of this machine; ``"*"`` for any.
        origins: Origins of pages on other sites that may read and write; ``"*"`` for any.
        credentials: Whether these may send cookies and the like; never with ``"*"``.
        token: What writes need where it is given: a secret, or a function that judges what a client has sent.
        protect_reads: Whether reads need it too.
        body: Bytes of a request's body.

    Raises:
        WorkflowRuntimeError: ``credentials`` with ``"*"``, or an empty token.
    """

    hosts: tuple[str, ...] = attrs.field(default=(), converter=_lower)
    origins: tuple[str, ...] = attrs.field(default=(), converter=_lower)
    credentials: bool = False
    token: str | Authorize | None = attrs.field(default=None, repr=False)
    protect_reads: bool = False
    body: int = 2**20

    def __attrs_post_init__(self) -> None:
        if self.credentials and "*" in self.origins:
            raise WorkflowRuntimeError(
                "WorkflowServer got cors_credentials=True and cors_origins=['*'], which would let every site act for whoever "
                "is logged in; name the origins",
                code="AF350",
            )
        if self.token == "":
            raise WorkflowRuntimeError(
                "WorkflowServer got an empty token, which everybody knows; give a secret, or None", code="AF351"
            )

    async def grants(self, given: str) -> bool:
        """Whether a token is good; takes as long for a wrong one as for a right one."""
        if self.token is None:
            return False
        if isinstance(self.token, str):
            mine, theirs = (hashlib.sha256(text.encode()).digest() for text in (self.token, given))
            return hmac.compare_digest(mine, theirs)
        answer = self.token(given)
        return answer if isinstance(answer, bool) else await answer


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _name_of(authority: str) -> str:
    """The host of ``host:port``."""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


class Guard:
    """Stands before an application, and lets through what the rules allow.

    Args:
        app: The application.
        rules: Who may ask.
    """

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        allowed = self._allowed(origin, headers)

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._mark(message, origin if allowed else None)
            await send(message)

        try:
            self._check_host(scope, headers)
            if origin is not None and not allowed:
                raise Refused(403, "origin", "pages of other sites may not ask; give WorkflowServer(cors_origins=…)")
            if scope["method"] == "OPTIONS" and origin is not None and "access-control-request-method" in headers:
                await self._preflight(headers)(scope, receive, marked)
                return
            await self._check_token(scope, headers)
            limited = _Limited(receive, headers, self._rules.body)
        except Refused as refused:
            await _answer(refused)(scope, receive, marked)
            return
        await self._app(scope, limited, marked)

    # ------------------------------------------------------------------------------------------------ checks
    def _check_host(self, scope: Scope, headers: Headers) -> None:
        name = _name_of(headers.get("host", ""))
        if is_loopback(name) or name in self._rules.hosts or "*" in self._rules.hosts:
            return
        raise Refused(
            421,
            "host",
            "the server is not known by this name; give WorkflowServer(allowed_hosts=[…]) the names that it has",
        )

    def _allowed(self, origin: str | None, headers: Headers) -> bool:
        if origin is None:
            return True
        if origin.lower() in self._rules.origins or "*" in self._rules.origins:
            return True
        parts = urlsplit(origin)
        return parts.scheme in {"http", "https"} and parts.netloc.lower() == headers.get("host", "").lower()

    async def _check_token(self, scope: Scope, headers: Headers) -> None:
        rules, writes = self._rules, scope["method"] not in SAFE
        path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")))
        private = path.startswith(PRIVATE) and path not in OPEN
        if not writes and not (rules.protect_reads and private):
            return
        if rules.token is None:
            server = scope.get("server")
            here = server is None or server[1] is None or is_loopback(str(server[0]))
            if writes and not (here and is_loopback(_name_of(headers.get("host", "")))):
                raise Refused(
                    403, "token", "writes from elsewhere need a token; give WorkflowServer(token=…) one, and send it"
                )
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not await rules.grants(given.strip()):
            raise Refused(
                401,
                "token",
                "send `Authorization: Bearer …` with the server's token",
                headers={"www-authenticate": "Bearer"},
            )

    # ------------------------------------------------------------------------------------------------ answers
    def _preflight(self, headers: Headers) -> Response:
        wanted = headers.get("access-control-request-headers", "")
        return Response(
            status_code=204,
            headers={
                "access-control-allow-methods": "GET, POST, DELETE, OPTIONS",
                "access-control-allow-headers": wanted or "authorization, content-type, last-event-id",
                "access-control-max-age": "600",
            },
        )

    def _mark(self, message: Message, origin: str | None) -> None:
        named = {name.lower() for name, _ in message["headers"]}
        more = [
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"content-security-policy", CSP.encode()),
            (b"cross-origin-resource-policy", b"cross-origin" if self._rules.origins else b"same-origin"),
        ]
        if origin is not None and self._rules.origins:
            anyone = "*" in self._rules.origins
            if anyone or origin.lower() in self._rules.origins:
                more.append((b"access-control-allow-origin", b"*" if anyone else origin.encode("latin-1")))
                if self._rules.credentials:
                    more.append((b"access-control-allow-credentials", b"true"))
        if self._rules.origins:
            more.append((b"vary", b"origin"))
        message["headers"] = [*message["headers"], *(pair for pair in more if pair[0] not in named)]


class _Limited:
    """Receives a body up to a size."""

    def __init__(self, receive: Receive, headers: Headers, most: int) -> None:
        self._receive = receive
        self._most = most
        self._got = 0
        said = headers.get("content-length", "0")
        if not said.isdecimal() or int(said) > most:
            raise self._refusal()

    def _refusal(self) -> Refused:
        return Refused(413, "too_large", f"the body of a request may have {self._most} bytes; send less")

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._got += len(message.get("body", b""))
            if self._got > self._most:
                raise self._refusal()
        return message


def _answer(refused: Refused) -> Response:
    return Response(dumped(refused.body()), refused.status, dict(refused.headers or {}), "application/json")
