"""The published OpenAPI document: it holds together, says what the gateway does, and lost nothing in getting small."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gateway_rig import Rig
from jsonschema import Draft202012Validator

from serving.gateway import openapi
from serving.gateway.endpoints import ENDPOINTS
from serving.gateway.errors import TABLE
from serving.gateway.openapi.publish import publish, written
from serving.gateway.openapi.schemas import REF, merge_equal, prune, refs, tidy

DOCUMENT: dict[str, Any] = json.loads(openapi.document())
OPERATIONS = {(m.upper(), p): o for p, item in DOCUMENT["paths"].items() for m, o in item.items()}
OWN = {("GET", p) for p in ("/v1/models", "/v1/models/{model}", "/v1/usage", "/healthz", "/health", "/readyz",
                            "/openapi.json")}


def test_it_has_every_endpoint_of_the_gateway_and_no_other() -> None:
    assert set(OPERATIONS) == {(e.method, e.path.replace("{id}", "{response_id}")) for e in ENDPOINTS} | OWN
    names = [o["operationId"] for o in OPERATIONS.values()]
    assert len(set(names)) == len(names)


def test_its_schemas_are_right_and_all_references_lead_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    assert refs(DOCUMENT) == set(schemas), "none missing, none unused"
    text = json.dumps(DOCUMENT)
    for kind in ("responses", "headers", "parameters"):
        for name in DOCUMENT["components"][kind]:
            assert f'"#/components/{kind}/{name}"' in text, f"{kind}/{name} is used nowhere"
    for part in text.split('"$ref": "#/components/')[1:]:
        kind, name = part.split('"')[0].split("/")
        assert name in DOCUMENT["components"][kind], f"{kind}/{name}"


def test_it_is_small() -> None:
    assert len(openapi.document()) < 300 * 1024


def test_errors_are_those_of_the_table_in_the_form_of_the_endpoint() -> None:
    chat, messages = OPERATIONS["POST", "/v1/chat/completions"], OPERATIONS["POST", "/v1/messages"]
    told = {int(code) for code in chat["responses"]} - {200}
    assert told == {status for status, _, _ in TABLE.values()} - {405, 500}
    assert chat["responses"]["404"]["$ref"].endswith("/Error404")
    assert messages["responses"]["404"]["$ref"].endswith("/Anthropic404")
    said = DOCUMENT["components"]["responses"]
    for status, _, code in TABLE.values():
        assert status in (405, 500) or f"`{code}`" in said[f"Error{status}"]["description"]
    assert "retry-after" in said["Error429"]["headers"] and "retry-after" in said["Error503"]["headers"]


@pytest.mark.parametrize("operation", [k for k in OPERATIONS if k[0] == "POST" and "requestBody" in OPERATIONS[k]])
def test_every_body_names_its_model_and_every_answer_its_cost(operation: tuple[str, str]) -> None:
    made = OPERATIONS[operation]
    (content,) = made["requestBody"]["content"].values()
    schemas = DOCUMENT["components"]["schemas"]
    for one in content["schema"].get("anyOf", [content["schema"]]):
        assert "model" in schemas[one["$ref"].removeprefix(REF)]["required"]
    answer = json.dumps(made["responses"]["200"])
    if not any(name in operation[1] for name in ("tokenize", "count_tokens", "translations")):  # these tell no usage
        assert any("cost" in schemas[name].get("properties", {}) for name in _reached(answer))


def _reached(text: str) -> set[str]:
    todo, found = refs(json.loads(text)), set[str]()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo |= refs(DOCUMENT["components"]["schemas"][name])
    return found


async def test_it_is_served_without_a_key(rig: Rig) -> None:
    async with rig.session.get("/openapi.json", headers={"authorization": ""}) as answer:
        assert answer.status == 200 and await answer.read() == openapi.document()


def test_health_needs_no_key_and_the_rest_does() -> None:
    free = {path for (_, path), o in OPERATIONS.items() if o.get("security") == []}
    assert free == {"/healthz", "/health", "/readyz", "/openapi.json"}
    assert DOCUMENT["security"] == [{"bearer": []}, {"x-api-key": []}]


def test_an_endpoint_that_the_engine_lost_is_named() -> None:
    with pytest.raises(LookupError, match="POST /v1/chat/completions"):
        publish({"openapi": "3.1.0", "paths": {}, "components": {"schemas": {
            name: {"properties": {}} for name in
            ("UsageInfo", "RerankUsage", "ResponseUsage", "AnthropicUsage", "TranscriptionUsageAudio")}}})


def test_tidying_drops_titles_but_not_members_of_that_name() -> None:
    long = "First. " + "word " * 60
    found = tidy({"title": "Noise", "description": long, "properties": {
        "title": {"type": "string", "title": "Title"}, "description": {"type": "string"}}, "default": {"title": 1}})
    assert found == {"description": "First.", "properties": {"title": {"type": "string"},
                                                             "description": {"type": "string"}},
                     "default": {"title": 1}}


def test_equal_schemas_become_one_and_their_users_follow() -> None:
    shape = {"type": "object", "properties": {"a": {"type": "string"}}}
    found = prune(merge_equal({"paths": {"/x": {"anyOf": [{"$ref": REF + "Long"}, {"$ref": REF + "A"}],
                                                "discriminator": {"mapping": {"a": REF + "Long"}}}},
                               "components": {"schemas": {"A": shape, "Long": {**shape, "description": "other words"},
                                                          "Unused": {"type": "null"}}}}))
    assert found == {"paths": {"/x": {"anyOf": [{"$ref": REF + "A"}], "discriminator": {"mapping": {"a": REF + "A"}}}},
                     "components": {"schemas": {"A": shape}}}


def test_what_is_written_reads_back_and_has_a_line_for_each_schema() -> None:
    lines = written(DOCUMENT).decode().splitlines()
    assert json.loads("".join(lines)) == DOCUMENT
    assert sum(line.startswith('"ChatCompletionRequest":') for line in lines) == 1
