"""Process settings from the environment: what differs between machines and must not stand in a fleet file.

`flotilla env` prints them, secrets masked. Secrets that the environment does not give are made once and kept in the
state directory, readable by its owner alone.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from serving.errors import ConfigError

PREFIX = "FLOTILLA_"
_EXAMPLE = "topology.kubernetes.io/region"
_MASK = "********"


@dataclass(frozen=True)
class Settings:
    """Settings of this process. Each field is read from FLOTILLA_<NAME>."""

    state_dir: Path = Path(".flotilla")
    fleet: Path = Path("deployments/fleets/laptop.yaml")
    reports_dir: Path = Path("reports")
    base_url: str = ""
    api_key: str = ""
    key_pepper: str = ""
    replica_secret: str = ""
    database_url: str = ""
    quota_url: str = ""
    node_labels: str = ""
    replica_host: str = ""
    replica_ports: str = ""

    SECRET = ("api_key", "key_pepper", "replica_secret", "database_url", "quota_url")
    MEANING = {
        "state_dir": "where the ledger, secrets, checkpoints and the running fleet's state are kept",
        "fleet": "the fleet file used when a command names none",
        "reports_dir": "where load-test reports go",
        "base_url": "the API that `loadtest` calls; empty: the running fleet",
        "api_key": "the key that `loadtest` uses; empty: a key made for the load test",
        "key_pepper": "secret under which API keys are hashed; empty: made once in the state directory",
        "replica_secret": "secret that replicas expect of gateways; empty: made once in the state directory",
        "node_labels": "labels of the node that a process runs on, as JSON or @FILE; for prices that nodes decide",
        "replica_host": "address that replicas listen on and gateways find them by; empty: loopback",
        "replica_ports": "ports that replicas choose from, such as 20000-20999; empty: any that is free",
        "database_url": "the ledger's database, postgresql://…; empty: SQLite in the state directory",
        "quota_url": "where gateways count limits together, redis://…, rediss://… or valkey://…; empty: a process of "
                     "the fleet",
    }

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Settings:
        """Settings from an environment. Raises: ConfigError for an unknown FLOTILLA_ name."""
        known = {PREFIX + f.name.upper(): f for f in fields(cls)}
        inner = {PREFIX + "RUN"}  # set by Flotilla for its own processes
        unknown = [k for k in environ if k.startswith(PREFIX) and k not in known and k not in inner]
        if unknown:
            raise ConfigError(f"unknown setting {unknown[0]}; known: {', '.join(sorted(known))}")
        values = {f.name: Path(environ[k]) if "Path" in str(f.type) else environ[k]
                  for k, f in known.items() if environ.get(k)}
        return cls(**values)  # type: ignore[arg-type]

    def shown(self) -> dict[str, str]:
        """Every setting as text, secrets masked."""
        return {PREFIX + f.name.upper(): _MASK if f.name in self.SECRET and getattr(self, f.name)
                else str(getattr(self, f.name)) for f in fields(self)}

    @property
    def ledger_path(self) -> Path:
        """The ledger's file."""
        return self.state_dir.absolute() / "ledger.db"

    @property
    def labels_file(self) -> Path | None:
        """The file that holds the node's labels, where one does."""
        return Path(self.node_labels[1:]) if self.node_labels.startswith("@") else None

    def labels(self) -> dict[str, str] | None:
        """The node's labels; None where none are known. Raises: ConfigError."""
        if not self.node_labels:
            return None
        text = self.node_labels
        try:
            if (file := self.labels_file) is not None:  # a pod's init container asks its node and leaves them there
                text = file.read_text(encoding="utf-8")
            found = json.loads(text)
        except OSError as error:
            raise ConfigError(f"{PREFIX}NODE_LABELS: {text[1:]} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"{PREFIX}NODE_LABELS is not JSON: {error}") from error
        if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
            example = f'{{"{_EXAMPLE}": "us-east-1"}}'
            raise ConfigError(f"{PREFIX}NODE_LABELS must be a JSON object of texts, such as {example}")
        return found

    def replica_address(self) -> tuple[str, range]:
        """Where a replica listens: address, and ports to choose from (0: whichever is free). Raises: ConfigError."""
        host = self.replica_host or "127.0.0.1"
        if ":" in host:
            raise ConfigError(f"{PREFIX}REPLICA_HOST is {host!r}; replicas listen on IPv4 addresses only")
        if not self.replica_ports:
            return host, range(1)
        low, dash, high = self.replica_ports.partition("-")
        if not (dash and low.isdecimal() and high.isdecimal() and 1024 <= int(low) < int(high) <= 65_535):
            raise ConfigError(f"{PREFIX}REPLICA_PORTS is {self.replica_ports!r}; it must be two ports from 1024 to "
                              "65535, the lower one first, such as 20000-20999")
        return host, range(int(low), int(high) + 1)

    @property
    def database(self) -> str:
        """Where the ledger is, as `Ledger.open` takes it: a URL, or the path of a file."""
        return self.database_url or str(self.ledger_path)

    @property
    def spool_dir(self) -> Path:
        """Where rows wait on disk while the ledger's database is away."""
        return self.state_dir.absolute() / "spool"

    @property
    def checkpoints_dir(self) -> Path:
        """Where small checkpoints are kept."""
        return self.state_dir.absolute() / "checkpoints"

    def pepper(self) -> bytes:
        """The secret under which keys are hashed."""
        return (self.key_pepper or _kept(self.state_dir / "key_pepper")).encode()

    def gateway_secret(self) -> str:
        """The secret that replicas expect."""
        return self.replica_secret or _kept(self.state_dir / "replica_secret")


def _kept(path: Path) -> str:
    """The secret in a file, made at the first call. Two processes at once end with the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        if not path.exists():
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
            try:
                os.link(draft, path)
            except FileExistsError:
                pass
    finally:
        draft.unlink(missing_ok=True)
    return path.read_text().strip()
