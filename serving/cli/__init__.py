"""`flotilla`: the command line.

Talks to people (tables) and programs (`--json`), and turns Flotilla's errors into exit codes. May not happen in here:
deciding, adding up, starting processes other than through `serving.launch`.
"""

from __future__ import annotations

import sys

from serving.cli.main import app
from serving.cli.output import EXIT, complain
from serving.errors import FlotillaError


def main() -> None:
    """The console script."""
    try:
        app(standalone_mode=True)
    except FlotillaError as error:
        complain(error)
        sys.exit(next(EXIT[c] for c in type(error).__mro__ if c in EXIT))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
