"""What a question about size is about: a catalogue entry, or a checkpoint by its own config.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serving.errors import ConfigError, nearest
from serving.fleet.models import entries, hubconfig
from serving.fleet.models.architecture import Architecture
from serving.fleet.models.weights import Format


@dataclass(frozen=True)
class Subject:
    """A model with the forms in which its weights come: by precision's name, format and (if known) bytes loaded."""

    name: str
    title: str
    licence: str
    size: Architecture
    formats: dict[str, tuple[Format, float | None]]
    context: int
    pooling: bool = False


def subject_of(model: str, catalogue: Path, precision: str | None = None) -> Subject:
    """The model of a name or path. Raises: ConfigError for one that is not there, or a precision that it lacks."""
    path = Path(model)
    if path.is_dir() or path.suffix == ".json":
        size, form = hubconfig.read(path)
        return Subject(model, path.name or model, "unknown", size, {form.compute: (form, None)}, size.context)
    entry = entries.load(catalogue).named(model)
    formats = entry.formats
    if precision is not None and precision not in formats:
        near = nearest(precision, formats)
        raise ConfigError(f"{entry.name} has no {precision!r} weights; "
                          + (f"did you mean {near!r}?" if near else f"it has {', '.join(formats)}"))
    licence = entry.licence.name + (" (gated)" if entry.licence.gated else "")
    return Subject(entry.name, entry.title, licence, entry.size,
                   {precision: formats[precision]} if precision else formats, entry.context, entry.pooling)
