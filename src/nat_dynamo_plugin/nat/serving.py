"""`nat serve` with its metrics at `/metrics`: what `general.front_end.runner_class` names.

NAT's FastAPI front end makes the class that this setting names in each process that serves, and asks it for its routes;
that is its own way to add one.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from nat.builder.workflow_builder import WorkflowBuilder
from nat.data_models.config import Config
from nat.front_ends.fastapi.fastapi_front_end_plugin_worker import FastApiFrontEndPluginWorker

from nat_dynamo_plugin.telemetry import exporters

PATH = "/metrics"
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""`prometheus-client`'s own: a folder that processes share. Set, metrics of the application's own are shared, too."""


class MetricsWorker(FastApiFrontEndPluginWorker):
    """NAT's front end, with one more route: Prometheus' text at `/metrics`.

    With several processes, by Gunicorn or by `PROMETHEUS_MULTIPROC_DIR`, it is what all of them have counted.

    Raises:
        RuntimeError: `prometheus-client` is not installed.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if find_spec("prometheus_client") is None:
            raise RuntimeError(f"{PATH} needs prometheus-client: pip install 'nat-dynamo-plugin[telemetry]'")
        from nat_dynamo_plugin.telemetry.exposition import Exposition

        self._exposition = Exposition(_folder(self.front_end_config))

    async def add_routes(self, app: FastAPI, builder: WorkflowBuilder) -> None:
        """NAT's routes and ours; called in each process that serves."""
        await super().add_routes(app, builder)
        exporters.prepare()  # or there would be none of our metrics before the first call
        self._exposition.start()

        # Not async: FastAPI runs it in a thread, so reading other processes' files holds no call up.
        def metrics(request: Request) -> Response:
            text, kind = self._exposition.text(request.headers.get("accept", ""))
            return Response(text, media_type=kind)

        app.add_api_route(PATH, metrics, methods=["GET"], include_in_schema=False)


def _folder(front_end: Any) -> Path | None:
    """The folder that the processes share; made here, before Gunicorn forks them, unless the environment names one."""
    if named := os.environ.get(FOLDER_VARIABLE):
        folder = Path(named)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder
    if not front_end.use_gunicorn or front_end.workers < 2:
        return None
    folder = Path(tempfile.mkdtemp(prefix="nat-dynamo-metrics-"))
    made_by = os.getpid()

    def remove() -> None:
        if os.getpid() == made_by:  # the others have it from us
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder
