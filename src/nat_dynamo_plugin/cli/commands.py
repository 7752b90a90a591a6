"""`nat dynamo ...`: the group of our commands. NAT imports this at every start, so it imports next to nothing."""

from __future__ import annotations

import warnings
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

_EMBEDDED = "nat_dynamo_plugin.cli.embedded.commands"
_COMMANDS = {
    "up": (_EMBEDDED, "Start an embedded Dynamo for any client."),
    "status": (_EMBEDDED, "Show those that run."),
    "logs": (_EMBEDDED, "Print what one has logged."),
    "down": (_EMBEDDED, "End them."),
    "replay": ("nat_dynamo_plugin.cli.replay.command", "Play a recording on clusters of several sizes."),
    "cache": ("nat_dynamo_plugin.cli.cache.command", "Look at a response cache in Redis, clear or check it."),
    "report": ("nat_dynamo_plugin.cli.report.command", "Write a page about evaluations: failures, reuse, times."),
    "doctor": ("nat_dynamo_plugin.cli.doctor.command", "Find out what a server does with what we send."),
    "bench": ("nat_dynamo_plugin.cli.bench.command", "Does the plugin pay on this server?"),
    "top": ("nat_dynamo_plugin.cli.top.command", "Show what a server, a nat serve or a nat eval is doing."),
}


class _Lazy(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        _ignore_authlib()
        command: Any = getattr(import_module(_COMMANDS[cmd_name][0]), cmd_name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _ignore_authlib() -> None:
    """Say nothing of what NAT imports from authlib, about which no user can do anything."""
    with suppress(ImportError):
        from authlib.deprecate import AuthlibDeprecationWarning  # type: ignore[import-untyped]

        warnings.simplefilter("ignore", AuthlibDeprecationWarning)


@click.command("dynamo", cls=_Lazy)
def dynamo() -> None:
    """Run, look at and compare NVIDIA Dynamo for agents."""
