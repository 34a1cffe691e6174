"""The console's routes, beside those of the admin API: the page for everyone, what it shows for admins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from serving.admin.app import Actor, actor
from serving.console import exploring
from serving.console.answers import Stream, event, files
from serving.console.feed import Feed, Frame
from serving.console.playing import Asked, Playground
from serving.console.reports import FENCE, Reports
from serving.errors import FlotillaError, InvalidKey, NoSuchRow, ScopeMissing
from serving.fleet.catalogue import Fleet
from serving.ledger.store import Ledger

_RECHECK_S = 15.0  # how long a page stays open at most after its key has been revoked
IfNoneMatch = Annotated[str, Header()]


@dataclass(frozen=True)
class Parts:
    """What the routes serve from."""

    feed: Feed
    fleet: Fleet
    ledger: Ledger
    playground: Playground
    reports: Reports


def routes(parts: Parts, clock: Callable[[], float] = time.monotonic) -> APIRouter:
    """The routes. They stand in no document: they serve this page and nothing else."""
    router = APIRouter(prefix="/console", include_in_schema=False)
    _page(router)
    _requests(router, parts)
    _reports(router, parts.reports)

    @router.get("/events")
    async def events(who: Actor, request: Request) -> Response:
        frames = parts.feed.frames()
        first = await anext(frames)

        async def still() -> None:
            await actor(request)

        return Stream(_told(parts.feed.past[:-1], first, frames, still, clock), 200,
                      {"content-type": "text/event-stream"}, frames.aclose)

    @router.post("/chat")
    async def chat(who: Actor, request: Request, asked: Asked,
                   x_console_key: Annotated[str, Header(max_length=4096)] = "") -> Response:
        own = request.headers["authorization"].partition(" ")[2].strip()
        return await parts.playground.chat(asked, x_console_key.strip() or own)

    return router


def _page(router: APIRouter) -> None:
    page = files()

    def file(name: str, known: str) -> Response:
        found = page.get(name)
        if found is None:
            raise NoSuchRow(f"the console has no file {name!r}; its page is at /console/")
        if known and known == found.headers["etag"]:
            return Response(status_code=304, headers={k: v for k, v in found.headers.items() if k != "content-length"})
        return found

    @router.get("")
    async def to_the_page() -> Response:
        return RedirectResponse("console/", 308)

    @router.get("/")
    async def index(if_none_match: IfNoneMatch = "") -> Response:
        return file("index.html", if_none_match)

    @router.get("/page/{name}")
    async def of_the_page(name: str, if_none_match: IfNoneMatch = "") -> Response:
        return file(name, if_none_match)


def _requests(router: APIRouter, parts: Parts) -> None:
    @router.get("/requests")
    def newest(who: Actor, tenant: str = "", model: str = "", outcome: str = "",
               count: Annotated[int, Query(ge=1, le=exploring.MOST)] = 25) -> dict[str, Any]:
        of = {name: value for name, value in (("tenant", tenant), ("model", model)) if value}
        return {"data": exploring.newest(parts.ledger, count, of, outcome)}

    @router.get("/requests/{request_id}")
    def one(who: Actor, request_id: str) -> dict[str, Any]:
        return exploring.one(parts.ledger, parts.fleet, request_id)

    @router.get("/requests/{request_id}/cost")
    def cost_so_far(who: Actor, request_id: str) -> dict[str, Any]:
        return exploring.cost_so_far(parts.ledger, request_id)


def _reports(router: APIRouter, found: Reports) -> None:
    @router.get("/reports")
    def newest(who: Actor) -> dict[str, Any]:
        return {"data": [asdict(report) for report in found.newest()]}

    @router.post("/reports/{name}")
    async def ticket(who: Actor, name: str) -> dict[str, str]:
        return {"path": f"report/{found.ticket(name)}"}

    @router.get("/report/{ticket}")
    async def page(ticket: str) -> Response:
        body = await asyncio.to_thread(found.page, ticket)
        return Response(body, headers={
            "content-security-policy": FENCE, "content-type": "text/html; charset=utf-8", "cache-control": "no-store",
            "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"})


async def _told(past: Sequence[bytes], first: Frame, frames: AsyncIterator[Frame], still: Callable[[], Awaitable[None]],
                clock: Callable[[], float]) -> AsyncIterator[bytes]:
    """Frames as events; ends with one that says why, once whoever reads may not any more."""
    checked = clock()
    yield event("past", b"[" + b",".join(past) + b"]") + event("now", first.whole)
    async for frame in frames:
        if clock() - checked >= _RECHECK_S:
            checked = clock()
            try:
                await still()
            except (InvalidKey, ScopeMissing) as error:
                yield event("refused", msgspec.json.encode({"message": str(error)}))
                return
            except FlotillaError:  # the keys cannot be read just now
                pass
        yield event("now", frame.whole)
