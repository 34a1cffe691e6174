"""`flotilla doctor` about images: whether the nodes can have them, by pods that failed, nodes and registries. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from serving.kubernetes import fitting, imagenames
from serving.kubernetes.facts import Facts
from serving.kubernetes.finding import Finding

Doc = dict[str, Any]
_FAILING = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")


def images(facts: Facts, docs: list[Doc]) -> Iterator[Finding]:
    """Every image of the release, and those that other pods of the namespace fail to pull. Nothing is pulled."""
    used, failing = imagenames.used(docs), _failing(facts)
    ours = {imagenames.parsed(name) for name in used}
    for image, (name, why) in failing.items():
        yield Finding("images", "wrong" if image in ours else "warning", f"{name} cannot be pulled: {why}",
                      "check repository and tag under image, and image.pullSecrets")
    for name, templates in used.items():
        if imagenames.parsed(name) not in failing:
            yield _of(name, templates, facts)


def _failing(facts: Facts) -> dict[imagenames.Image, tuple[str, str]]:
    """What nodes could not pull for pods of the namespace: the name as the pod has it, and why."""
    found = {}
    for pod in facts.pods.docs:
        if pod["metadata"].get("namespace") != facts.namespace:
            continue
        told = pod.get("status") or {}
        for status in [*(told.get("initContainerStatuses") or ()), *(told.get("containerStatuses") or ())]:
            waiting = (status.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") in _FAILING:
                why = waiting.get("message") or waiting["reason"]
                found[imagenames.parsed(status["image"])] = status["image"], why
    return found


def _of(name: str, templates: list[Doc], facts: Facts) -> Finding:
    image, told = imagenames.parsed(name), facts.images.get(name)
    nodes = [n for n in facts.nodes.docs if any(fitting.allowed(t, n) for t in templates)]
    having = [n for n in nodes if image in _on(n)]
    everywhere = bool(nodes) and len(having) == len(nodes)
    if told is None or told.state == "unreachable":
        if everywhere:
            return Finding("images", "ok", f"{name}: every node that may run it has it")
        why = told.said if told else "no registry was asked"
        on = f"; {len(having)} of {len(nodes)} nodes that may run it have it" if nodes else ""
        return Finding("images", "unknown", f"{name}: {why}{on}",
                       f"kubectl -n {facts.namespace} run try-image --rm -it --restart=Never --image {name} -- true")
    if told.state == "missing":
        return Finding("images", "warning" if everywhere else "wrong", f"{name}: {image.registry} has no such image"
                       + (", although every node has it" if everywhere else ""),
                       "push it, or correct repository and tag under image")
    if told.state == "refused":
        return _refused(name, image, told.login, templates, facts)
    return _there(name, image, nodes, facts)


def _refused(name: str, image: imagenames.Image, login: bool, templates: list[Doc], facts: Facts) -> Finding:
    own = ", ".join(imagenames.pull_secrets(templates))
    if login:
        return Finding("images", "wrong", f"{name}: {image.registry} refuses the pull secret's login for it",
                       f"renew {own or 'it'}, or give its user the right to pull")
    if facts.unknown_secrets:
        return Finding("images", "unknown", f"{name}: {image.registry} wants a login, and you may not read the pull "
                       "secrets")
    return Finding("images", "warning", f"{name}: {image.registry} wants a login, and "
                   + (f"none of {own} is for it" if own else "the release names no pull secret")
                   + "; only nodes that have a login of their own can pull it",
                   f"kubectl -n {facts.namespace} create secret docker-registry NAME --docker-server={image.registry} "
                   "…, and NAME under image.pullSecrets")


def _there(name: str, image: imagenames.Image, nodes: list[Doc], facts: Facts) -> Finding:
    told = facts.images[name]
    unfit = {n["metadata"]["name"]: arch for n in nodes
             if told.architectures and (arch := _architecture(n)) and arch not in told.architectures}
    if unfit:
        return Finding("images", "wrong" if len(unfit) == len(nodes) else "warning",
                       f"{name}: is there for {', '.join(sorted(told.architectures))}, and {len(unfit)} of "
                       f"{len(nodes)} nodes that may run it are {', '.join(sorted(set(unfit.values())))} "
                       f"({_few(unfit)})",
                       "push a variant for them, or keep its pods away by nodeSelector {kubernetes.io/arch: …}")
    return Finding("images", "ok", f"{name}: {image.registry} has it{', by a pull secret' if told.login else ''}"
                   + (f", {told.said[:19]}" if told.said else ""))


def _on(node: Doc) -> set[imagenames.Image]:
    listed = (node.get("status") or {}).get("images") or ()
    return {imagenames.parsed(name) for entry in listed for name in entry.get("names") or ()}


def _architecture(node: Doc) -> str:
    told = ((node.get("status") or {}).get("nodeInfo") or {}).get("architecture")
    return told or (node["metadata"].get("labels") or {}).get("kubernetes.io/arch", "")


def _few(names: dict[str, str]) -> str:
    some = list(names)[:3]
    return ", ".join(some) + (" …" if len(names) > len(some) else "")
