"""What goes wrong with the embedded Dynamo, and the check that it is installed at all."""

from __future__ import annotations

from importlib.util import find_spec

INSTALL_HINT = (
    "install it with\n"
    '    pip install "nat-dynamo-plugin[local]"\n'
    "    pip install --no-deps ai-dynamo==1.6.0\n"
    "(--no-deps, because one of ai-dynamo's requirements cannot be built from the ordinary package index and is not "
    "needed here)"
)


class LocalDynamoError(RuntimeError):
    """The embedded Dynamo cannot be started or has died; the message says why and where the logs are."""


def check_installed(*further: str) -> None:
    """Refuse to go on without Dynamo's frontend.

    Args:
        further: modules that are needed besides.

    Raises:
        LocalDynamoError: names what is missing and how to install it.
    """
    for module in ("dynamo.frontend", *further, "dynamo._core", "tokenizers", "zmq"):
        try:
            found = find_spec(module) is not None
        except ImportError:
            found = False
        if not found:
            raise LocalDynamoError(f"`local:` needs NVIDIA Dynamo, but {module!r} is not installed; {INSTALL_HINT}")
