"""Puts a preset's system prompt, sampling and tools into a request, as each endpoint spells them.

Members of a JSON body in, members out; the caller's own count, are added or are refused as the preset says. May not
happen in here: which preset a name means, sending.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from serving.errors import MalformedRequest, PresetRefuses
from serving.fleet.presets import Preset, ToolSpec

Members = dict[str, msgspec.Raw]
_SYSTEM = ("system", "developer")
_EMPTY = (b"", b"null", b'""', b"[]")
_SAMPLING = ("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "repetition_penalty", "seed",
             "stop")


@dataclass(frozen=True)
class _Dialect:
    """How an endpoint spells things. `sampling`: its member for each field of ours, by the field; `instead`: further
    members that say the same. `prompt`: the member of the system prompt; empty: it stands among the messages.
    `messages`: the member that holds those. `tool`, `choice`: a tool, and which to call."""

    messages: str
    prompt: str
    sampling: Mapping[str, str]
    tool: Callable[[ToolSpec], dict[str, Any]]
    choice: Callable[[str], Any]
    instead: Mapping[str, str]


def _chat_tool(tool: ToolSpec) -> dict[str, Any]:
    return {"type": "function", "function": _bare(tool)}


def _bare(tool: ToolSpec) -> dict[str, Any]:
    return {"name": tool.name, **({"description": tool.description} if tool.description else {}),
            "parameters": tool.parameters}


def _messages_tool(tool: ToolSpec) -> dict[str, Any]:
    bare = _bare(tool)
    return {"input_schema": bare.pop("parameters"), **bare}


def _chat_choice(choice: str) -> Any:
    return choice if choice in ("auto", "none", "required") else {"type": "function", "function": {"name": choice}}


def _responses_choice(choice: str) -> Any:
    return choice if choice in ("auto", "none", "required") else {"type": "function", "name": choice}


def _messages_choice(choice: str) -> Any:
    plain = {"auto": "auto", "none": "none", "required": "any"}
    return {"type": plain[choice]} if choice in plain else {"type": "tool", "name": choice}


_SAME = {name: name for name in _SAMPLING}
_ANTHROPIC = _Dialect(
    "messages", "system", {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "stop": "stop_sequences",
                           "max_tokens": "max_tokens"}, _messages_tool, _messages_choice, {})
_DIALECTS = {
    "chat_completions": _Dialect("messages", "", {**_SAME, "min_p": "min_p", "max_tokens": "max_tokens"}, _chat_tool,
                                 _chat_choice, {"max_tokens": "max_completion_tokens"}),
    "responses": _Dialect("input", "instructions", {**_SAME, "max_tokens": "max_output_tokens"},
                          lambda tool: {"type": "function", **_bare(tool)}, _responses_choice, {}),
    "messages": _ANTHROPIC,
    "count_tokens": _Dialect("messages", "system", {}, _messages_tool, _messages_choice, {}),
}


def apply(preset: Preset, endpoint: str, members: Members) -> None:
    """Change the members of a request to `endpoint` as the preset says. Raises: PresetRefuses, MalformedRequest."""
    dialect = _DIALECTS.get(endpoint)
    if dialect is None:
        raise PresetRefuses(f"{preset.label!r} is a preset, which answers chat completions, responses and messages; "
                            f"ask {preset.spec.model!r} for anything else")
    if preset.spec.system:
        _system(preset, dialect, members)
    _sampling(preset, dialect, members)
    _tools(preset, dialect, members)


def _system(preset: Preset, dialect: _Dialect, members: Members) -> None:
    rule, system = preset.spec.caller.system, preset.spec.system
    given = members.get(dialect.messages)
    if not dialect.prompt and (given is None or not bytes(given).startswith(b"[")):
        return  # no messages: the engine says so
    messages = _messages(given)
    own = dialect.prompt if dialect.prompt and _has(members, dialect.prompt) else ""
    said = next((n for n, message in enumerate(messages) if _role(message) in _SYSTEM), None)
    if own or said is not None:
        if rule == "refuse":
            raise PresetRefuses(f"{preset.label!r} has a system prompt of its own and takes no other; leave out "
                                f"{own or 'the message of role ' + repr(_role(messages[said or 0]))}")
        if rule == "win":
            return
    if dialect.prompt:
        members[dialect.prompt] = _raw(_before(system, _value(members[own]) if own else ""))
        return
    if said == 0:
        first = dict(_value(messages[0]))
        first["content"] = _before(system, first.get("content") or "")
        messages[0] = _raw(first)
    else:
        messages.insert(0, _raw({"role": "system", "content": system}))
    members[dialect.messages] = _raw(messages)


def _before(system: str, own: Any) -> Any:
    """The preset's prompt before the caller's, which is a text or a list of parts."""
    if isinstance(own, list):
        return [{"type": "text", "text": f"{system}\n\n"}, *own]
    if not isinstance(own, str):
        raise MalformedRequest("the system prompt is neither a text nor a list of parts")
    return f"{system}\n\n{own}" if own else system


def _sampling(preset: Preset, dialect: _Dialect, members: Members) -> None:
    refuses = preset.spec.caller.sampling == "refuse"
    for field, value in preset.spec.sampling.model_dump(exclude_defaults=True).items():
        name = dialect.sampling.get(field)
        if name is None:
            continue
        own = next((n for n in (name, dialect.instead.get(field, name)) if _has(members, n)), None)
        if own is None:
            members[name] = _raw(value)
        elif refuses:
            _refuse_more(preset, own, field, value, _value(members[own]))


def _refuse_more(preset: Preset, name: str, field: str, ours: Any, theirs: Any) -> None:
    if field == "max_tokens" and isinstance(theirs, int) and theirs <= ours:
        return  # a shorter answer is always theirs to ask for
    if theirs == (list(ours) if isinstance(ours, tuple) else ours):
        return
    most = f"; at most {ours}" if field == "max_tokens" else ""
    raise PresetRefuses(f"{preset.label!r} decides {name} itself{most}; leave it out")


def _tools(preset: Preset, dialect: _Dialect, members: Members) -> None:
    spec, rule = preset.spec, preset.spec.caller.tools
    has_tools, has_choice = _has(members, "tools"), _has(members, "tool_choice")
    if rule == "refuse" and (has_tools or has_choice):
        raise PresetRefuses(f"{preset.label!r} takes no tools of others; leave out "
                            f"{'tools' if has_tools else 'tool_choice'}")
    if spec.tools and not (has_tools and rule == "win"):
        tools = [dialect.tool(tool) for tool in spec.tools]
        theirs = _value(members["tools"]) if has_tools else []
        if not isinstance(theirs, list):
            raise MalformedRequest("tools are not a list")
        ours = {tool.name for tool in spec.tools}
        if twice := next((n for n in map(_tool_name, theirs) if n in ours), None):
            raise PresetRefuses(f"{preset.label!r} has a tool {twice!r} already; give yours another name")
        members["tools"] = _raw([*tools, *theirs])
    if spec.tool_choice is not None and not has_choice and _has(members, "tools"):
        members["tool_choice"] = _raw(dialect.choice(spec.tool_choice))


def _tool_name(tool: Any) -> str | None:
    if not isinstance(tool, dict):
        return None
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else tool.get("name")
    return name if isinstance(name, str) else None


def _has(members: Members, name: str) -> bool:
    return name in members and bytes(members[name]) not in _EMPTY


def _messages(raw: msgspec.Raw | None) -> list[msgspec.Raw]:
    """Each message as it is written; a text, which /v1/responses takes too, has none."""
    if raw is None or not bytes(raw).startswith(b"["):
        return []
    return _read(_LIST, raw)


def _role(message: msgspec.Raw) -> str:
    return str(_read(_MESSAGE, message).role) if bytes(message).startswith(b"{") else ""


def _value(raw: msgspec.Raw) -> Any:
    return _read(_ANY, raw)


def _read(decoder: msgspec.json.Decoder[Any], raw: msgspec.Raw) -> Any:
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"the request body is not right: {error}") from error


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


class _Message(msgspec.Struct):
    role: Any = ""


_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_MESSAGE = msgspec.json.Decoder(_Message)
_ANY: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
