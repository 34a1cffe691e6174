"""Presets and media in the fleet file: versions, digests, references, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_samples import FLEET, line_of, write

from serving.errors import ConfigError
from serving.fleet.catalogue import Fleet, load
from serving.fleet.routing import Routes

PRESETS = """\
presets:
  shop:
    description: sells
    versions:
      1: {model: llama, system: Old.}
      "2":
        model: small
        system: You sell shoes.
        sampling: {temperature: 0, stop: [END]}
        tools: [{name: find}]
        tool_choice: find
  firm: {current: a, versions: {a: {model: qwen}, b: {model: chat}}}
routes:
  chat: {variants: {qwen: 9, llama: 1}}
media: {hosts: [images.example.com, "*.pictures.example.com"], max_mib: 2}
"""
HEARS = "      max_model_len: 2048\n      tool_call_parser: hermes\n"
FULL = FLEET.replace("      max_model_len: 2048\n", HEARS) + PRESETS


def read(folder: Path, text: str = FULL) -> Fleet:
    return load(write(folder, text))


def test_a_name_means_its_current_version(tmp_path: Path) -> None:
    fleet = read(tmp_path)
    assert (fleet.presets["shop"].served, fleet.presets["firm"].served) == ("2", "a")
    routes = Routes.of(fleet)
    for name, label, model in (("shop", "shop@2", "qwen"), ("shop@1", "shop@1", "llama"), ("firm", "firm@a", "qwen")):
        target = routes.resolve(name, "demo", 0)
        assert (target.name, target.model, target.preset and target.preset.label) == (label, model, label)
    assert not routes.spreads("firm") and set(routes.variants("firm@b")) == {"qwen", "llama"}
    assert {routes.resolve("firm@b", "demo", key << 40).model for key in range(99)} == {"qwen", "llama"}


def test_a_digest_changes_with_what_a_version_says_and_with_nothing_else(tmp_path: Path) -> None:
    one = read(tmp_path).presets["shop"].versions["2"]
    again = read(tmp_path, FULL.replace("description: sells", "description: helps")).presets["shop"].versions["2"]
    other = read(tmp_path, FULL.replace("You sell shoes.", "You sell boots.")).presets["shop"].versions["2"]
    assert one.digest == again.digest != other.digest
    assert len(one.digest) == 12


WRONG = {
    "a preset that is a model": ("  firm:", "  llama:", ["presets.llama", "is a model already", "for the preset"]),
    "a preset that is an alias": ("  firm:", "  small:", ["alias 'small' of 'qwen' already names 'small'"]),
    "a version of no model": ("{model: llama, system", "{model: lama, system", [
        "presets.shop.versions.1.model", "did you mean 'llama'?"]),
    "a version of a preset": ("{model: chat}", "{model: shop}", ["presets.firm.versions.b.model", "'shop' is not"]),
    "a current version that is not there": ("current: a", "current: c", ["presets.firm.current", "'c' is not known"]),
    "no version": ("versions: {a: {model: qwen}, b: {model: chat}}", "versions: {}", ["presets.firm.versions"]),
    "tools for a model that reads no calls": (HEARS, "      max_model_len: 2048\n", [
        "presets.shop.versions.2.tools", "'qwen', which answers, reads no tool calls", "tool_call_parser"]),
    "a choice of no tool": ("tool_choice: find", "tool_choice: fnid", ["'fnid' is neither a choice nor a tool"]),
    "a tool's bad name": ("{name: find}", "{name: find it}", ["presets.shop.versions.2.tools.0.name", "find it"]),
    "a tool twice": ("[{name: find}]", "[{name: find}, {name: find}]", ["the tool 'find' stands there twice"]),
    "an unknown key": ("sampling: {temperature", "sampling: {temprature", ["did you mean 'temperature'?"]),
    "too hot": ("temperature: 0", "temperature: -1", ["sampling.temperature", "found -1"]),
    "a host with a scheme": ("[images.example.com", '["https://images.example.com"', ["media.hosts", "without scheme"]),
    "a host with a port": ("[images.example.com", '["images.example.com:80"', ["media.hosts", "port"]),
    "an address": ("[images.example.com", "[10.0.0.1", ["media.hosts", "addresses are never fetched from"]),
    "a number": ("[images.example.com", '["2130706433"', ["media.hosts", "is not a host's name"]),
    "every host": ("[images.example.com", '["*"', ["media.hosts", "is not a host's name"]),
    "a host in capitals": ("[images.example.com", "[Images.example.com", ["media.hosts", "lower case"]),
    "a type that is none": ("max_mib: 2", "types: [text/html]", ["media.types", "'text/html'"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_with_place_and_remedy(name: str, tmp_path: Path) -> None:
    right, put, said = WRONG[name]
    assert FULL.count(right) == 1
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, FULL.replace(right, put))
    for part in said:
        assert part in str(caught.value)


def test_lines_are_named(tmp_path: Path) -> None:
    line = line_of(FULL, "model: llama, system")
    with pytest.raises(ConfigError, match=f"fleet.yaml:{line}: presets.shop.versions.1"):
        read(tmp_path, FULL.replace("{model: llama, system", "{model: lama, system"))


def test_hosts(tmp_path: Path) -> None:
    media = read(tmp_path).media
    allowed = ("images.example.com", "a.pictures.example.com", "a.b.pictures.example.com")
    refused = ("", "example.com", "pictures.example.com", "a.images.example.com", "images.example.com.",
               "images.example.com.evil.org", "evilpictures.example.com", "images-example.com")
    assert all(map(media.allows, allowed)) and not any(map(media.allows, refused))
    assert Fleet.model_fields["media"].default_factory().hosts == ()  # type: ignore[misc]


@pytest.mark.parametrize("key", ["allowed_media_domains", "allowed_local_media_path", "enable_lora", "max_loras"])
def test_what_follows_from_a_section_is_not_an_engines_argument(tmp_path: Path, key: str) -> None:
    text = FULL.replace(HEARS, f"{HEARS}      args: {{{key}: 1}}\n")
    with pytest.raises(ConfigError, match="follows from the section"):
        read(tmp_path, text)
