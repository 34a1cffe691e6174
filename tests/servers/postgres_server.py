"""A PostgreSQL server of the tests' own: in a temporary folder, on a free loopback port, gone when they end."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

PASSWORD = "not-to-be-seen"
USER = "flotilla"


def binaries() -> Path | None:
    """The newest server's programs as Debian installs them, or None."""
    found = [p.parent for p in Path("/usr/lib/postgresql").glob("*/bin/postgres") if (p.parent / "initdb").exists()]
    return max(found, key=lambda p: float(p.parent.name), default=None)


class PostgresServer:
    """One server. `stop` and `start` as an outage would have it; the port stays the same."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder, self._programs = folder, programs
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "log"
        self._made = 0
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port: int = taken.getsockname()[1]
        password = folder / "password"
        password.write_text(PASSWORD)
        if owner := _owner():
            for path in (folder, password):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        made = subprocess.run(
            [*_as_owner(), str(programs / "initdb"), "-D", str(self._data), "-U", USER, "--auth=scram-sha-256",
             f"--pwfile={password}", "--no-sync", "--locale=C", "--encoding=UTF8"],
            capture_output=True, text=True, cwd="/")
        assert made.returncode == 0, made.stderr
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off",
                   "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "16MB",
                   "max_connections": 60, "timezone": "Asia/Kolkata"}  # a day must be UTC's, whatever the server's is
        command = [*_as_owner(), str(self._programs / "postgres"), "-D", str(self._data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self._conninfo("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None and time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it; whoever is connected is thrown out."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # "fast shutdown"
            self._process.wait(30)
            self._process = None

    def database(self, template: str = "template1") -> str:
        """Make a database like another one, by default an empty one. Returns its name."""
        self._made += 1
        name = f"test_{self._made}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def drop(self, name: str) -> None:
        """Drop a database, whoever uses it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """A statement of the server's owner."""
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as db:
            db.execute(statement)  # type: ignore[arg-type]

    def url(self, name: str) -> str:
        """A database's address as FLOTILLA_DATABASE_URL has it."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def _conninfo(self, name: str) -> str:
        return f"host=127.0.0.1 port={self.port} user={USER} password={PASSWORD} dbname={name}"


@contextlib.contextmanager
def running() -> Iterator[PostgresServer]:
    """A server for as long as the block lasts. Needs `binaries`."""
    programs = binaries()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="flotilla-postgres-"))
    try:
        server = PostgresServer(folder, programs)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _owner() -> pwd.struct_passwd | None:
    """Whom the server runs as, because it refuses root."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")


def _as_owner() -> list[str]:
    death = ["--pdeathsig", "INT"]  # also where the tests are killed
    owner = _owner()
    if owner is None:
        return ["setpriv", *death]
    return ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", *death]
