"""The pages on Kubernetes under deployments/docs: every command of ours and its options are there, the values that the
install page shows make a release, and links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from serving.cli.main import app
from serving.cli.render import as_yaml, fleet_values
from serving.kubernetes import helm, rendered
from serving.kubernetes.values import merged
from serving.plan import Changes, fleet

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "deployments/docs").glob("kubernetes*.md"))


def commands(text: str) -> list[list[str]]:
    """Every `flotilla …` of the shell blocks, alone or in a pod, as words."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.partition(" # ")[0].partition("   #")[0])
            if "flotilla" in words and (words[0] == "flotilla" or "--" in words):
                at = words.index("flotilla", words.index("--") if words[0] != "flotilla" else 0)
                found.append([w for w in words[at + 1:] if w not in (">", "|")])
    return found


def unknown(words: list[str]) -> list[str]:
    """What of a command the program does not know."""
    command, path = typer.main.get_command(app), []
    while hasattr(command, "commands") and words:
        path.append(words[0])
        if words[0] not in command.commands:
            return [" ".join(path)]
        command, words = command.commands[words[0]], words[1:]
    options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    return [f"{' '.join(path)} {w}" for w in words if w.startswith("-") and w.partition("=")[0] not in options]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_commands_are_ours_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    assert not [wrong for words in commands(text) for wrong in unknown(words)]
    for link in re.findall(r"\]\(([^)#]+\.md)\)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(r"`((?:tests|deployments|helm)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


def test_commands_are_found_and_wrong_ones_would_be() -> None:
    found = [c for page in PAGES for c in commands(page.read_text())]
    assert {"doctor", "upgrade", "keys", "cost", "status"} <= {c[0] for c in found}
    assert unknown(["upgrade", "f.yaml", "--rolback"]) == ["upgrade --rolback"] and unknown(["updrade"]) == ["updrade"]


def test_the_install_pages_values_make_a_release() -> None:
    text = (ROOT / "deployments/docs/kubernetes-install.md").read_text()
    (own,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (copied,) = re.findall(r"^cp (\S+) fleet.yaml", text, re.MULTILINE)
    file = ROOT / copied
    values = merged(fleet_values(file, fleet(file, Changes({}))), yaml.safe_load(own))
    docs = rendered.parsed(helm.template(ROOT / "helm/flotilla", "flotilla", "flotilla", [], as_yaml(values)))
    made = set(re.findall(r"--from-literal=(\w+)=", text))
    assert rendered.secrets(docs)["flotilla"] == made, "the page makes every key that its values name"
