"""Multipart forms: the gateway and the engine read the same model, or the form is refused."""

from __future__ import annotations

import asyncio

import pytest
from fake_replica import ANSWER
from gateway_rig import Rig, fleet_file
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartParser

from serving.errors import MalformedRequest
from serving.gateway import forms

KIND = "multipart/form-data; boundary=XX"
MODEL = (b'form-data; name="model"', b"qwen3")
FILE = (b'form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav', b"RIFF\x00\r\n\r\n--X\r\n")


def form(*parts: tuple[bytes, bytes], boundary: bytes = b"XX", end: bytes = b"--\r\n") -> bytes:
    """A form of parts given by their disposition and value."""
    body = b"".join(b"--%b\r\nContent-Disposition: %b\r\n\r\n%b\r\n" % (boundary, *part) for part in parts)
    return body + b"--" + boundary + end


async def by_the_engine(data: bytes, kind: str) -> dict[str, object]:
    """The fields as the engine's own server reads them."""
    async def stream():
        yield data

    found = await MultiPartParser(Headers({"content-type": kind}), stream()).parse()
    return {name: value if isinstance(value, str) else await value.read() for name, value in found.multi_items()}


def read(data: bytes, kind: str = KIND) -> dict[bytes, bytes]:
    return {name: data[a:b] for name, (a, b) in forms.parts(data, kind.encode())[1].items()}


@pytest.mark.parametrize("parts", [(MODEL, FILE), (FILE, MODEL)])
async def test_a_form_goes_to_its_model(rig: Rig, parts: tuple) -> None:
    replica = await rig.replica()
    data = form(*parts)
    async with rig.post(data, "/v1/audio/transcriptions", headers={"content-type": KIND}) as answer:
        assert (answer.status, await answer.read()) == (200, ANSWER)
        assert answer.headers["x-flotilla-model"] == "qwen"
    assert replica.last.body == data
    assert await by_the_engine(data, replica.last.headers["content-type"]) == {"model": "qwen3", "file": FILE[1]}
    assert (await rig.record()).endpoint == "transcriptions"


async def test_what_a_file_contains_is_no_part(rig: Rig) -> None:
    replica = await rig.replica()
    inside = form((b'form-data; name="model"', b"llama"))[2:]
    data = form((FILE[0], b'name="model"\r\n\r\nllama\r\n' + inside.replace(b"XX", b"YY")), MODEL)
    async with rig.post(data, "/v1/audio/translations", headers={"content-type": KIND}) as answer:
        assert answer.status == 200
    assert (await rig.record()).model == "qwen"
    assert replica.last.body == data


@pytest.mark.parametrize(("data", "kind", "said"), [
    (form(FILE), KIND, "no part named model"),
    (form(MODEL, MODEL), KIND, "more than one"),
    (form(MODEL, FILE, (b"form-data; name=model", b"llama")), KIND, "more than one"),
    (form((b'form-data; name="model"', b"q" * 300)), KIND, "256 bytes"),
    (form(MODEL), "multipart/form-data", "boundary"),
    (form(MODEL), "multipart/form-data; boundary=", "boundary"),
    (form(MODEL), "multipart/form-data; boundary=XX; boundary=YY", "boundary"),
    (form(MODEL), 'multipart/form-data; boundary="X', "boundary"),
    (form(MODEL), "multipart/mixed; boundary=XX", "multipart/form-data"),
    (form(MODEL), "application/json", "multipart/form-data"),
    (form(MODEL), "multipart/form-data; boundary=YY", "does not begin"),
    (b"hello\r\n" + form(MODEL), KIND, "does not begin"),
    (form(MODEL, end=b""), KIND, "not whole"),
    (form(MODEL)[:-12], KIND, "not whole"),
    (form(MODEL, (b'form-data; name="x"', b"\r\n--XXY")), KIND, "not whole"),
    (form((b'form-data; name="x"; name="model"', b"qwen")), KIND, "Content-Disposition"),
    (form((b'form-data; name="mod\\"el"', b"qwen")), KIND, "Content-Disposition"),
    (form((b'form-data; name="x', b"qwen")), KIND, "Content-Disposition"),
    (form((b'attachment; name="model"', b"qwen")), KIND, "Content-Disposition"),
    (form((b'form-data; name="x"\r\nContent-Disposition: form-data; name="model"', b"qwen")), KIND, "Disposition"),
    (b"--XX\r\nx: y\r\n\r\nqwen\r\n--XX--", KIND, "Content-Disposition"),
    (form(*[(b'form-data; name="x"', b"")] * 300), KIND, "parts"),
    (b"", KIND, "does not begin"),
])
async def test_a_form_that_is_none(door: Rig, data: bytes, kind: str, said: str) -> None:
    async with door.post(data, "/v1/audio/transcriptions", headers={"content-type": kind}) as answer:
        assert answer.status == 400
        assert said in (await answer.json())["error"]["message"]
    assert (await door.record()).outcome == "rejected"


async def test_an_alias_of_an_adapter_is_written_into_the_form(make_rig) -> None:
    rig = await make_rig(fleet_file({"qwen": {"aliases": ["q"], "adapters": {"pirate": {"source": "org/p"}}}}))
    replica = await rig.replica()
    data = form(FILE, (b'form-data; name="model"', b"q:pirate"), (b'form-data; name="stream"', b"true"))
    async with rig.post(data, "/v1/audio/transcriptions", headers={"content-type": KIND}) as answer:
        assert answer.status == 200
    assert replica.last.body == data.replace(b"q:pirate", b"qwen:pirate")
    record = await rig.record()
    assert (record.model, record.stream) == ("qwen", True)


NAMES = st.sampled_from([b"model", b"file", b"stream", b'x"; name="model', b"", b"model ", b"MODEL"])
SHAPES = st.sampled_from([b'form-data; name="%b"', b"form-data; name=%b", b"form-data;name=%b", b"form-data; Name=%b",
                          b'form-data; filename="a;name=model"; name="%b"', b"form-data; name*=utf-8''%b",
                          b'FORM-DATA; name = "%b"', b'form-data; name="%b"; x="y', b"form-data;; name=%b"])


@given(st.lists(st.tuples(SHAPES, NAMES, st.sampled_from([b"a", b"", b"\r\n", b"--XX", b"\r\n--X", b"\r\n\r\n"])),
                min_size=1, max_size=4))
def test_no_form_is_read_in_two_ways(said: list[tuple[bytes, bytes, bytes]]) -> None:
    """Whatever passes is what the engine's own parser finds."""
    data = form(*((shape % name, value) for shape, name, value in said))
    try:
        kind, _ = forms.parts(data, KIND.encode())
        mine = read(data)
    except MalformedRequest:
        return
    theirs = asyncio.run(by_the_engine(data, kind.decode()))
    assert {n.decode(): v for n, v in mine.items()} == {
        n: v.encode() if isinstance(v, str) else v for n, v in theirs.items()}
