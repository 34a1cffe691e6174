"""`flotilla doctor` about images: names and pull secrets as nodes read them, a registry over HTTP, and what is said."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cluster_samples as samples
import fake_registry
import pytest
from fake_kubernetes import FakeKubernetes
from fake_registry import FakeRegistry
from test_kubernetes_doctor import PRODUCTION, examined

from serving.kubernetes import imagechecks, imagenames
from serving.kubernetes.facts import Facts, Seen
from serving.kubernetes.registries import Registries, Told

Doc = dict[str, Any]


def secret(**auths: Doc) -> Doc:
    """A pull secret."""
    text = json.dumps({"auths": auths})
    return {"data": {".dockerconfigjson": base64.b64encode(text.encode()).decode()}}


@pytest.mark.parametrize(("name", "parts"), [
    ("redis:7", ("docker.io", "library/redis", "7")),
    ("kuberay/operator", ("docker.io", "kuberay/operator", "latest")),
    ("index.docker.io/redis:7", ("docker.io", "library/redis", "7")),
    ("registry.example.com/team/flotilla:0.1.0-gpu", ("registry.example.com", "team/flotilla", "0.1.0-gpu")),
    ("localhost/flotilla:1", ("localhost", "flotilla", "1")),
    ("10.0.0.1:5000/flotilla:1@sha256:ab", ("10.0.0.1:5000", "flotilla", "sha256:ab")),
])
def test_an_images_name(name: str, parts: tuple[str, str, str]) -> None:
    image = imagenames.parsed(name)
    assert (image.registry, image.repository, image.reference) == parts


def test_only_a_registry_of_this_machine_goes_without_tls() -> None:
    assert imagenames.parsed("redis").api == "https://registry-1.docker.io"
    assert imagenames.parsed("10.0.0.1:5000/a").api == "https://10.0.0.1:5000"
    assert imagenames.parsed("127.0.0.1:5000/a").api == "http://127.0.0.1:5000"


@pytest.mark.parametrize(("entry", "image", "fits"), [
    ("registry.example.com", "registry.example.com/a:1", True),
    ("https://registry.example.com/v2/", "registry.example.com/a:1", True),
    ("https://index.docker.io/v1/", "redis:7", True),
    ("*.dkr.ecr.eu-west-1.amazonaws.com", "1234.dkr.ecr.eu-west-1.amazonaws.com/a:1", True),
    ("registry.example.com/team", "registry.example.com/team/a:1", True),
    ("registry.example.com/team", "registry.example.com/teams/a:1", False),
    ("registry.example.com:5000", "registry.example.com/a:1", False),
    ("*.example.com", "a.b.example.com/a:1", False),
])
def test_which_entry_of_a_pull_secret_is_for_an_image(entry: str, image: str, fits: bool) -> None:
    found = list(imagenames.logins(secret(**{entry: {"username": "u", "password": "p"}}), imagenames.parsed(image)))
    assert found == ([("u", "p")] if fits else [])


def test_logins_of_a_pull_secret() -> None:
    image = imagenames.parsed("registry.example.com/team/a:1")
    auth = base64.b64encode(b"robot:with:colons").decode()
    both = secret(**{"registry.example.com": {"auth": auth}, "registry.example.com/team": {"username": "t"}})
    assert list(imagenames.logins(both, image)) == [("t", ""), ("robot", "with:colons")]
    old = {"data": {".dockercfg": base64.b64encode(b'{"registry.example.com": {"username": "o"}}').decode()}}
    assert list(imagenames.logins(old, image)) == [("o", "")]
    for damaged in ({}, {"data": {".dockerconfigjson": "e30="}}, {"data": {".dockerconfigjson": "?"}},
                    {"data": {".dockerconfigjson": base64.b64encode(b"[1]").decode()}}):
        assert list(imagenames.logins(damaged, image)) == []


def asked(registry: FakeRegistry, name: str, *logins: tuple[str, str]) -> Told:
    return Registries().ask(imagenames.parsed(f"{registry.host}/{name}"), logins)


def test_an_open_registry() -> None:
    with fake_registry.running(FakeRegistry({"team/a:1": []})) as registry:
        assert asked(registry, "team/a:1") == Told("there", "sha256:" + "ab" * 32)
        assert registry.asked == ["HEAD /v2/team/a/manifests/1"], "nothing is pulled"
        assert asked(registry, "team/a:2").state == "missing"


@pytest.mark.parametrize("how", ["bearer", "basic"])
def test_a_registry_that_wants_a_login(how: str) -> None:
    with fake_registry.running(FakeRegistry({"a:1": ["amd64", "arm64", "unknown"]}, {"u": "p"}, how)) as registry:
        assert asked(registry, "a:1") == Told("refused")
        assert asked(registry, "a:1", ("u", "wrong")) == Told("refused", login=True)
        told = asked(registry, "a:1", ("u", "wrong"), ("u", "p"))
        assert (told.state, told.login, told.architectures) == ("there", True, {"amd64", "arm64"})
        assert asked(registry, "a:2", ("u", "p")) == Told("missing", login=True)


def test_a_password_goes_only_where_a_token_is_safe() -> None:
    with fake_registry.running(FakeRegistry({})) as elsewhere, \
            fake_registry.running(FakeRegistry({"a:1": []}, {"u": "p"})) as registry:
        registry.realm = f"ftp://{elsewhere.host}/token"
        assert asked(registry, "a:1", ("u", "p")).state == "refused" and not elsewhere.asked


def test_a_registry_that_is_away_is_asked_once() -> None:
    with fake_registry.running(FakeRegistry({"a:1": []})) as registry:
        away = registry.host
    registries = Registries()
    first = registries.ask(imagenames.parsed(f"{away}/a:1"), ())
    assert first.state == "unreachable" and f"{away} cannot be asked from here" in first.said
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serving.kubernetes.registries._asked", None)
        assert registries.ask(imagenames.parsed(f"{away}/b:1"), ()) == first


NAME = "registry.example.com/a:1"


def found(told: Told | None, nodes: list[Doc] | None = None, pull: str = "", unknown: str = "") -> tuple[str, str]:
    """The level and the words about one image."""
    spec: Doc = {"containers": [{"image": NAME}]} | ({"imagePullSecrets": [{"name": pull}]} if pull else {})
    docs = [{"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": {"spec": spec}}}]
    facts = Facts((1, 33), "models", nodes=Seen(tuple(nodes or ())), images={NAME: told} if told else {},
                  unknown_secrets=unknown)
    (one,) = imagechecks.images(facts, docs)
    assert one.fix or one.level in ("ok", "unknown")
    return one.level, one.said


def node(name: str, arch: str = "amd64", image: str = "") -> Doc:
    made = samples.node(name, labels={"kubernetes.io/arch": arch})
    made["status"]["images"] = [{"names": [image]}] if image else []
    return made


@pytest.mark.parametrize(("told", "nodes", "level", "said"), [
    (Told("there", "sha256:" + "ab" * 32), [], "ok", "registry.example.com has it, sha256:abababababab"),
    (Told("there", login=True), [], "ok", "has it, by a pull secret"),
    (Told("there", architectures=frozenset({"amd64"})), [node("a"), node("b", "arm64")], "warning",
     "is there for amd64, and 1 of 2 nodes that may run it are arm64 (b)"),
    (Told("there", architectures=frozenset({"amd64"})), [node("b", "arm64")], "wrong", "are arm64 (b)"),
    (Told("missing"), [node("a")], "wrong", "has no such image"),
    (Told("missing"), [node("a", image=NAME)], "warning", "although every node has it"),
    (Told("refused", login=True), [], "wrong", "refuses the pull secret's login"),
    (Told("refused"), [], "warning", "the release names no pull secret"),
    (Told("unreachable", "away"), [node("a", image=NAME)], "ok", "every node that may run it has it"),
    (Told("unreachable", "away"), [node("a", image=NAME), node("b")], "unknown", "away; 1 of 2 nodes"),
    (None, [], "unknown", "no registry was asked"),
])
def test_what_is_said_of_an_image(told: Told | None, nodes: list[Doc], level: str, said: str) -> None:
    got = found(told, nodes)
    assert got[0] == level and said in got[1], got


def test_what_is_said_of_pull_secrets() -> None:
    assert found(Told("refused"), pull="other") == (
        "warning", f"{NAME}: registry.example.com wants a login, and none of other is for it; only nodes that have a "
        "login of their own can pull it")
    assert found(Told("refused"), unknown="forbidden")[0] == "unknown"


@pytest.mark.parametrize(("password", "level", "said"), [
    ("right-word", "ok", "has it, by a pull secret"), ("old-word", "wrong", "refuses the pull secret's login")])
def test_doctor_asks_with_the_releases_pull_secret(server: FakeKubernetes, kubeconfig: Path, tmp_path: Path,
                                                   password: str, level: str, said: str) -> None:
    with fake_registry.running(FakeRegistry({"flotilla:1": []}, {"u": "right-word"})) as registry:
        docs = samples.objects()
        own = next(d for d in docs if d["kind"] == "Secret")
        own |= secret(**{registry.host: {"username": "u", "password": password}})
        samples.fill(server, docs)
        over = tmp_path / "own.yaml"
        over.write_text(f"image: {{repository: {registry.host}/flotilla, tag: '1'}}\nloadtest: {{enabled: false}}\n")
        code, findings = examined(server, "-f", str(over), "--registries", fleet=PRODUCTION)
    told = {f["said"]: f["level"] for f in findings if f["check"] == "images"}
    assert any(said in text and lev == level for text, lev in told.items()), told
    assert code == (level == "wrong") and not any(password in text for text in told)
