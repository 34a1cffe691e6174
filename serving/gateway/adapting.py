"""What gateways change of a JSON body before it goes to an engine: presets, and files that stand in it by URL.

The body is taken apart, changed and put together once, before the request is sent; an answer's stream is never touched.
A request that neither names a preset nor any URL passes as it came. May not happen in here: the rules themselves.
"""

from __future__ import annotations

import msgspec

from serving.errors import MalformedRequest
from serving.fleet.media import MediaSpec
from serving.fleet.presets import Preset
from serving.gateway import presets
from serving.gateway.endpoints import Endpoint
from serving.gateway.media import parts
from serving.gateway.media.inlining import Inlining
from serving.gateway.ports import MediaSource
from serving.gateway.request import Body, parse

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Adapting:
    """For one gateway."""

    def __init__(self, spec: MediaSpec, source: MediaSource) -> None:
        self._source, self._inlining = source, Inlining(spec, source)

    async def close(self) -> None:
        """Close what is open."""
        await self._source.close()

    async def apply(self, endpoint: Endpoint, body: Body, preset: Preset | None) -> Body:
        """The body as the engine is to get it, but for the model's name. It is read anew: what a preset says counts.

        Raises: PresetRefuses, MediaRefused, MediaUnavailable, MalformedRequest.
        """
        if endpoint.model_in == "form":
            if preset is not None:
                presets.apply(preset, endpoint.name, {})
            return body
        if preset is None and not parts.mentioned(body.data):
            return body
        try:
            members = _MEMBERS.decode(body.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedRequest(f"the request body is not right: {error}") from error
        if preset is not None:
            presets.apply(preset, endpoint.name, members)
        inlined = await self._inlining.apply(members)
        return parse(msgspec.json.encode(members)) if inlined or preset is not None else body
