"""Entry point of the simulated workers: Dynamo's mocker, with the tool-call parser that its command line lacks.

Run as a file, never imported by the package. Dynamo 1.6.0 builds each worker's `ModelRuntimeConfig` in
`build_runtime_config`, looked up in `dynamo.mocker.main` at call time; that is the one thing changed here.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any


def main() -> None:
    """Take `--tool-call-parser NAME` off the command line and hand the rest to Dynamo's mocker."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--tool-call-parser")
    own, rest = parser.parse_known_args()
    sys.argv = ["dynamo.mocker", *rest]
    mocker: Any = importlib.import_module("dynamo.mocker.main")
    build = mocker.build_runtime_config

    def build_with_parser(*args: Any, **kwargs: Any) -> Any:
        block_size, runtime_config = build(*args, **kwargs)
        runtime_config.tool_call_parser = own.tool_call_parser
        return block_size, runtime_config

    if own.tool_call_parser is not None:
        mocker.build_runtime_config = build_with_parser
    mocker.main()


if __name__ == "__main__":
    main()
