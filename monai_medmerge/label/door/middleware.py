"""The door in front of MONAI Label's server: reads each request, checks it, and hands on what may pass."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from http import HTTPStatus
from typing import IO, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from fastapi import HTTPException
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse

from monai_medmerge.errors import MedMergeError, SettingError, causes
from monai_medmerge.label.door.addresses import AbsentError, Call, Route, Served
from monai_medmerge.label.door.privacy import Hider
from monai_medmerge.label.door.routes import ROUTES
from monai_medmerge.label.door.uploads import check_upload

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
logger = logging.getLogger(__name__)
SPOOLED = 1_000_000
LARGEST_JSON = 1_000_000
MOST_FILES = 5_000


class Refusal(Exception):  # noqa: N818
    """An answer in place of what was asked for.

    Args:
        status: of HTTP.
        detail: one line.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Door:
    """An ASGI application around MONAI Label's.

    Args:
        app: MONAI Label's.
        served: gives what is served, once it is.
        origins: web pages of which may ask, such as `http://127.0.0.1:8000`.
        hosts: names under which the server may be asked for; any if empty. A web page elsewhere can give itself the
            address of a server on the machine that shows it, but not its name.
        prefix: of all addresses.
        hider: of absolute paths in answers.
    """

    def __init__(
        self, app: App, served: Callable[[], Served], origins: Collection[str], hosts: Collection[str], prefix: str,
        hider: Hider,
    ) -> None:  # fmt: skip
        self.app = app
        self.served = served
        self.origins = {origin.rstrip("/") for origin in origins}
        self.hosts = set(hosts)
        self.prefix = prefix.rstrip("/")
        self.hider = hider

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        with tempfile.SpooledTemporaryFile(SPOOLED) as body:
            try:
                scope = await self._checked(scope, receive, body)
            except Refusal as refusal:
                answer = JSONResponse({"detail": self.hider(refusal.detail)}, refusal.status)
                return await answer(scope, receive, send)
            body.seek(0)
            return await self._handed_on(scope, _replay(body, receive), send)

    async def _checked(self, scope: Message, receive: Receive, body: IO[bytes]) -> Message:
        """The request as it may go on, with its body in a file."""
        headers = Headers(scope=scope)
        self._see_visitor(headers)
        if scope["method"] == "OPTIONS":
            return scope
        route, chosen = self._route(scope)
        call = Call(chosen, _query(scope["query_string"]))
        try:
            served = self.served()
            if route.takes:
                largest = LARGEST_JSON if route.takes == "json" else served.limits.max_upload_mb * 10**6
                await _copy(receive, body, largest)
            if route.takes == "json":
                _read_json(call, headers, body)
            if route.takes == "form":
                async with Request(scope, _replay(body, receive)).form(max_files=MOST_FILES, max_fields=20) as form:
                    _read_form(call, form, route)
                    route.check(call, served)
                    for name, file, content in call.files:
                        check_upload(content, file, route.files[name])
            else:
                route.check(call, served)
        except (MedMergeError, MultiPartException, HTTPException) as error:
            raise _refusal(error) from error
        return scope if route.handed else {**scope, "query_string": urlencode(call.query).encode()}

    def _see_visitor(self, headers: Headers) -> None:
        origin, host = headers.get("origin"), headers.get("host", "")
        if origin is not None and origin.rstrip("/") not in self.origins:
            raise Refusal(HTTPStatus.FORBIDDEN, "Pages of other origins may not ask; see --origin")
        if self.hosts and urlsplit(f"//{host}").hostname not in self.hosts:
            raise Refusal(HTTPStatus.FORBIDDEN, "The server has another name; see --origin")

    def _route(self, scope: Message) -> tuple[Route, dict[str, str]]:
        path = scope["path"].removeprefix(scope.get("root_path", "")).removeprefix(self.prefix).rstrip("/")
        found = [(route, chosen) for route in ROUTES if (chosen := route.matches(path)) is not None]
        if not found:
            raise Refusal(HTTPStatus.NOT_FOUND, "There is no such address")
        for route, chosen in found:
            if scope["method"] in route.methods:
                return route, chosen
        raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "There is no such method here")

    async def _handed_on(self, scope: Message, receive: Receive, send: Send) -> None:
        """Have MONAI Label answer; errors become one line, and paths in JSON are shortened."""
        answer = _Answer(send, self.hider)
        reason: BaseException | None = None
        try:
            await self.app(scope, receive, answer)
        # Whatever goes wrong in there, a client gets one line, and the log no more than where it was.
        except Exception as error:  # noqa: BLE001
            reason = error
        if not answer.failed and not (reason and not answer.begun):
            return
        refusal = _refusal(reason)
        if refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("%s %s", type(reason).__name__, _place(reason))
        await JSONResponse({"detail": self.hider(refusal.detail)}, refusal.status)(scope, receive, send)


class _Answer:
    """Passes an answer on, JSON without absolute paths, and keeps one that says the server failed."""

    def __init__(self, send: Send, hider: Hider) -> None:
        self.send = send
        self.hider = hider
        self.failed = self.begun = False
        self._start: Message | None = None
        self._json = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.failed = message["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR
            kind = Headers(raw=message.get("headers", [])).get("content-type", "")
            if kind.startswith("application/json"):
                self._start = message
        if self.failed:
            return
        self.begun = True
        if self._start is None:
            await self.send(message)
        elif message["type"] == "http.response.body":
            self._json += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_json(self._start, self.hider(self._json.decode()).encode())

    async def _send_json(self, start: Message, body: bytes) -> None:
        others = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
        # The answer to HEAD tells the length of a body that does not follow.
        length = [(b"content-length", str(len(body)).encode())] if body else []
        await self.send({**start, "headers": [*others, *length]})
        await self.send({"type": "http.response.body", "body": body})


def _refusal(error: BaseException | None) -> Refusal:
    """What a client is told of an error."""
    for cause in causes(error):
        if isinstance(cause, AbsentError | ImageNotFoundException | LabelNotFoundException):
            known = cause.args[0] if isinstance(cause, AbsentError) else "There is no such image or label"
            return Refusal(HTTPStatus.NOT_FOUND, str(known))
        if isinstance(cause, MedMergeError):
            return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, " ".join(str(cause).split()))
        if isinstance(cause, MONAILabelException):
            return Refusal(HTTPStatus.NOT_FOUND, " ".join(str(cause.msg).split()))
        if isinstance(cause, HTTPException):
            status = (
                HTTPStatus.UNPROCESSABLE_ENTITY if cause.status_code == HTTPStatus.BAD_REQUEST else cause.status_code
            )
            return Refusal(status, " ".join(str(cause.detail).split()))
        if isinstance(cause, MultiPartException):
            return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"body: expected a form, found none ({cause.message})")
    return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed; its log says where")


def _place(error: BaseException | None) -> str:
    """File and line where an error began; its message may repeat names of images."""
    trace = error.__traceback__ if error else None
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"at {trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace else "of MONAI Label's own"


def _query(text: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError as error:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "query: expected UTF-8 with up to 20 options") from error
    if len(dict(pairs)) < len(pairs):
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "query: expected each option once")
    # An option that is left empty is none.
    return {name: value for name, value in pairs if value}


def _read_json(call: Call, headers: Headers, body: IO[bytes]) -> None:
    body.seek(0)
    call.body = body.read()
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if call.body and kind != "application/json":
        raise SettingError("application/json", "another type", "body")
    json_text = call.body.decode("utf-8", "replace")
    if call.body and not json_text.strip():
        raise SettingError("JSON", "blanks", "body")


def _read_form(call: Call, form: Any, route: Route) -> None:
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != "files" and any(name == other for other, _, _ in call.files):
                raise SettingError("one file", "several", name)
            call.files.append((name, value.filename or "", value.file))
        elif name in call.texts or name in route.files:
            raise SettingError("a file" if name in route.files else "each field once", "another", "form")
        else:
            call.texts[name] = value


async def _copy(receive: Receive, body: IO[bytes], largest: int) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(HTTPStatus.BAD_REQUEST, "The request ended early")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > largest:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"body: expected up to {largest} bytes, found more")
        body.write(chunk)
        more = message.get("more_body", False)


def _replay(body: IO[bytes], receive: Receive) -> Receive:
    """The body from a file, and then whatever the client does."""
    body.seek(0)
    ended = False

    async def replayed() -> Message:
        nonlocal ended
        if not ended:
            chunk = body.read(SPOOLED)
            ended = len(chunk) < SPOOLED
            return {"type": "http.request", "body": chunk, "more_body": not ended}
        while (message := await receive())["type"] != "http.disconnect":
            pass
        return message

    return replayed
