"""The tools that agents are offered: their definitions, and results that are made up.

Every parameter is a choice from a list or a small whole number, so that a call that follows the schema is short
whatever the model's weights are.
"""

from __future__ import annotations

from typing import Any

from loadtests.arrivals import toolbox

_ORDERS = [f"A-{number}" for number in range(1001, 1009)]
_ITEMS = [f"sku-{number}" for number in range(21, 37)]
_CHOICES: dict[str, dict[str, list[str]]] = {
    "get_order": {"order": _ORDERS},
    "track_parcel": {"order": _ORDERS, "carrier": ["north", "south", "express"]},
    "refund_order": {"order": _ORDERS, "reason": ["late", "broken", "wrong", "unwanted"]},
    "open_ticket": {"topic": ["delivery", "payment", "account", "product"], "urgency": ["low", "normal", "high"]},
    "get_policy": {"topic": ["returns", "warranty", "shipping", "privacy"]},
    "change_address": {"order": _ORDERS, "kind": ["billing", "delivery"]},
    "search_products": {"category": ["shoes", "coats", "lamps"], "colour": ["black", "white", "green", "red"]},
    "get_product": {"item": _ITEMS},
    "check_stock": {"item": _ITEMS, "shop": ["centre", "harbour", "airport"]},
    "add_to_cart": {"item": _ITEMS, "size": ["small", "medium", "large"]},
    "find_similar": {"item": _ITEMS},
    "get_reviews": {"item": _ITEMS, "order": ["newest", "best", "worst"]},
}


def definitions(kind: str, count: int) -> list[dict[str, Any]]:
    """The first `count` tools of a kind of user, as `tools` of a chat completion takes them."""
    return [_definition(name) for name in toolbox(kind)[:count]]


def choice(name: str) -> dict[str, Any]:
    """`tool_choice` that makes the model call this tool."""
    return {"type": "function", "function": {"name": name}}


def _definition(name: str) -> dict[str, Any]:
    choices = _CHOICES[name]
    properties = {key: {"type": "string", "enum": values} for key, values in choices.items()}
    parameters = {"type": "object", "properties": properties, "required": list(choices), "additionalProperties": False}
    words = name.replace("_", " ")
    return {
        "type": "function",
        "function": {"name": name, "description": f"{words.capitalize()} for the customer.", "parameters": parameters},
    }
