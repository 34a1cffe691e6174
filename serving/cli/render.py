"""`flotilla render`: what Helm gets, and what the cluster gets, from a checked fleet file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from serving.cli.fleet import load
from serving.cli.output import stderr
from serving.cli.run import FleetFile
from serving.errors import ConfigError
from serving.fleet.catalogue import Fleet, price_book
from serving.kubernetes import clusterfleet, helm
from serving.kubernetes.values import merged
from serving.kubernetes.values import values as chart_values
from serving.serveconfig import serve_config

app = typer.Typer(no_args_is_help=True, help="A fleet file as Helm values, serveConfigV2 or Kubernetes objects.")
CHART = Path("helm/flotilla")
Over = Annotated[list[Path] | None, typer.Option(
    "--values", "-f", help="Values of your own, over those of the fleet. May be repeated.")]


# what Helm's and KubeRay's YAML take for a number or a truth although Python's takes it for a text: 1e3, n
_NOT_A_TEXT_EVERYWHERE = re.compile(r"[-+.0-9].*|y|n", re.IGNORECASE)


class _Text(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Texts of several lines as blocks, so that a person can read them; quotes where another YAML would see none."""


def _style(text: str) -> str | None:
    if "\n" in text:
        return "|"
    return "'" if _NOT_A_TEXT_EVERYWHERE.fullmatch(text) else None


_Text.add_representer(str, lambda dumper, text: dumper.represent_scalar(
    "tag:yaml.org,2002:str", text, style=_style(text)))


def as_yaml(value: Any) -> str:
    """YAML for people."""
    return yaml.dump(value, Dumper=_Text, sort_keys=False, width=120, allow_unicode=True)


def cluster_fleet(file: Path, found: Fleet) -> clusterfleet.ClusterFleet:
    """The fleet as a cluster has it. Raises: ConfigError."""
    def book(name: str) -> str:
        return (file.parent / name).read_text(encoding="utf-8")

    accelerators = book(found.accelerator_prices) if found.accelerator_prices else None
    return clusterfleet.for_cluster(found, book(found.prices), accelerators)


def config(file: Path, cluster: clusterfleet.ClusterFleet, original: Fleet) -> str:
    """serveConfigV2, as text."""
    return as_yaml(serve_config(cluster.fleet, price_book(original, file), clusterfleet.MOUNTED))


def fleet_values(file: Path, found: Fleet) -> dict[str, Any]:
    """The values that a fleet file decides. Raises: ConfigError."""
    cluster = cluster_fleet(file, found)
    return chart_values(cluster, config(file, cluster, found))


def own_values(files: list[Path] | None) -> dict[str, Any]:
    """Values files, merged as Helm does. Raises: ConfigError."""
    result: dict[str, Any] = {}
    for path in files or ():
        try:
            told = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: these values cannot be read: {error}") from error
        if not isinstance(told, dict):
            raise ConfigError(f"{path}: must be a mapping of values, as `helm show values` prints it")
        result = merged(result, told)
    return result


def warn_of_paths(found: Fleet) -> None:
    """Sources that are paths mean another disk on a cluster."""
    for name, spec in found.models.items():
        if spec.source.startswith(("/", ".")):
            stderr.print(f"[yellow]warning[/]  models.{name}: {spec.source} must be there in the pods too, for example "
                         "in the model cache's volume", soft_wrap=True)


@app.command()
def values(file: FleetFile = None, over: Over = None) -> None:
    """Print the chart's values for a fleet: `flotilla render values FLEET | helm install NAME helm/flotilla -f -`."""
    path, found = load(file)
    warn_of_paths(found)
    head = f"# Made by `flotilla render values` from the fleet {found.name!r}. Change the fleet file, not this.\n"
    typer.echo(head + as_yaml(merged(fleet_values(path, found), own_values(over))), nl=False)


@app.command("serve-config")
def serve_config_(file: FleetFile = None) -> None:
    """Print serveConfigV2: what Ray Serve is told to run."""
    path, found = load(file)
    typer.echo(config(path, cluster_fleet(path, found), found), nl=False)


@app.command()
def manifests(
    file: FleetFile = None,
    over: Over = None,
    release: Annotated[str, typer.Option(help="Name of the Helm release.")] = "flotilla",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the release.")] = "flotilla",
    chart: Annotated[Path, typer.Option(help="Flotilla's chart.")] = CHART,
    api_versions: Annotated[list[str] | None, typer.Option(
        "--api-versions", help="An API of the cluster, such as gateway.networking.k8s.io/v1; may be repeated.")] = None,
) -> None:
    """Print the Kubernetes objects that `helm install` would make. Needs helm, not a cluster."""
    path, found = load(file)
    warn_of_paths(found)
    said = helm.template(chart, release, namespace, over or [], as_yaml(fleet_values(path, found)), api_versions or [])
    typer.echo(said, nl=False)
