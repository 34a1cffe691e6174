"""What fake clouds keep: buckets of objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class FakeBuckets:
    """Buckets by name, each with objects by key; where they are served, and the requests they have had."""

    buckets: dict[str, dict[str, bytes]]
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def put(self, bucket: str, prefix: str, folder: Path) -> None:
        """Keep a folder's files below a prefix."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.buckets.setdefault(bucket, {})[f"{prefix}/{path.relative_to(folder)}"] = path.read_bytes()
