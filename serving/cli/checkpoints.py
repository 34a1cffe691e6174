"""`flotilla checkpoint`: small checkpoints of true architectures, to try a family without its weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from serving import checkpoints
from serving.cli.output import EXIT_CODES, as_json, console, table
from serving.cli.run import Json
from serving.errors import ConfigError

_KNOWN = ", ".join(checkpoints.families())
app = typer.Typer(no_args_is_help=True, epilog=EXIT_CODES,
                  help="Small checkpoints with random weights and true architectures, made here from a fixed seed.")


@app.command()
def make(
    arch: Annotated[str, typer.Argument(metavar="ARCH", help=f"A family ({_KNOWN}) or an architecture class, such as "
                                                             "Qwen3ForCausalLM.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make; it must not be there yet, or be "
                                                               "empty.")],
    json: Json = False,
) -> None:
    """Make one checkpoint. Name its folder as a model's `source`; `small:FAMILY` there makes one by itself."""
    try:
        family = checkpoints.family_of(arch)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        if folder.exists():
            raise ConfigError(f"{folder} is there already; name a folder that is not, or remove it")
        made = checkpoints.make_at(family, folder)
    except checkpoints.CheckpointError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror or error}") from error
    recipe = checkpoints.recipe_for(family)
    size = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
    if json:
        as_json({"path": str(made), "family": family, "architecture": recipe.architecture, "bytes": size})
        return
    console.print(f"[green]made[/]  {made}: {recipe.architecture}, {size / 1e6:.1f} MB, random weights",
                  highlight=False, soft_wrap=True)
    if sys.stdout.isatty():
        console.print(f"        in a fleet file: source: {made.absolute()}", highlight=False, soft_wrap=True)


@app.command("list")
def list_(json: Json = False) -> None:
    """List the families there are."""
    found = [(family, checkpoints.recipe_for(family)) for family in checkpoints.families()]
    if json:
        as_json([{"family": family, "architecture": d.architecture, "needs": d.needs} for family, d in found])
        return
    table(["family", "architecture", "needs"], [(family, d.architecture, d.needs) for family, d in found])
