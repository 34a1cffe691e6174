"""The console's routes, beside those of the admin API: the page for everyone, what it shows for admins."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from serving.admin.app import Actor, actor
from serving.console.answers import Stream, event, files
from serving.console.feed import Feed, Frame
from serving.errors import FlotillaError, InvalidKey, NoSuchRow, ScopeMissing

_RECHECK_S = 15.0  # how long a page stays open at most after its key has been revoked


def routes(feed: Feed, clock: Callable[[], float] = time.monotonic) -> APIRouter:
    """The routes. They stand in no document: they serve this page and nothing else."""
    router, page = APIRouter(prefix="/console", include_in_schema=False), files()

    @router.get("")
    async def to_the_page() -> Response:
        return RedirectResponse("console/", 308)

    @router.get("/events")
    async def events(who: Actor, request: Request) -> Response:
        frames = feed.frames()
        first = await anext(frames)

        async def still() -> None:
            await actor(request)

        return Stream(_told(feed.past[:-1], first, frames, still, clock), 200,
                      {"content-type": "text/event-stream"}, frames.aclose)

    @router.get("/{name}")
    async def file(name: str, if_none_match: Annotated[str, Header()] = "") -> Response:
        return _page(name, if_none_match)

    @router.get("/")
    async def index(if_none_match: Annotated[str, Header()] = "") -> Response:
        return _page("index.html", if_none_match)

    def _page(name: str, known: str) -> Response:
        found = page.get(name)
        if found is None:
            raise NoSuchRow(f"the console has no file {name!r}; its page is at /console/")
        if known and known == found.headers["etag"]:
            return Response(status_code=304, headers={k: v for k, v in found.headers.items() if k != "content-length"})
        return found

    return router


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
