"""Entry point of the simulated workers: Dynamo's mocker, with the tool-call parser that its command line lacks.

Run as a file, never imported by the package. Dynamo 1.6.0 builds each worker's `ModelRuntimeConfig` in
`build_runtime_config`, looked up in `dynamo.mocker.main` at call time; that is the one thing changed in it. Where a
scripted answer may move to another worker, a relay (`relay.py`) sees to it that it goes on there.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

_DISCOVERY_FOLDER = "DYN_FILE_KV"


def main() -> None:
    """Take `--tool-call-parser NAME` and `--resume-answers` off the command line; the rest is the mocker's."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--tool-call-parser")
    parser.add_argument("--resume-answers", type=Path, metavar="TRACE")
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
    if own.resume_answers is not None:
        _start_relay(own.resume_answers)
    mocker.main()


def _start_relay(trace: Path) -> None:
    spec = importlib.util.spec_from_file_location("relay", Path(__file__).parents[1] / "relay.py")
    assert spec is not None and spec.loader is not None
    relay: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = relay
    spec.loader.exec_module(relay)
    relay.Relay(relay.Scripts.read(trace), Path(os.environ[_DISCOVERY_FOLDER])).start()


if __name__ == "__main__":
    main()
