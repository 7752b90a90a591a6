"""deploy/: manifests that Kubernetes and Dynamo's operator take, with flags that Dynamo takes."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
import yaml
from kubernetes import client

from nat_dynamo_plugin.config.local import LocalDynamoConfig
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.local.commands import frontend_command
from nat_dynamo_plugin.local.engines.mocker import worker_command
from nat_dynamo_plugin.telemetry.listening import METRICS_ADDRESS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OVERLAYS = ("mocker", "vllm")
SCHEMA = json.loads((Path(__file__).parent / "dynamographdeployment.json").read_text())
BUILT = [DEPLOY / "dynamo" / "overlays" / name for name in OVERLAYS] + [DEPLOY / "agent", DEPLOY / "monitoring"]


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def patched(document: dict[str, Any], operations: list[dict[str, Any]]) -> dict[str, Any]:
    """A document after JSON Patch operations (RFC 6902), of which the overlays use two."""
    result = copy.deepcopy(document)
    for one in operations:
        *path, last = one["path"].strip("/").split("/")
        place: Any = result
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if isinstance(place, list) and last == "-":
            assert one["op"] == "add"
            place.append(one["value"])
        else:
            assert one["op"] == ("replace" if last in place else "add")
            place[last] = one["value"]
    return result


def deployment(overlay: str) -> dict[str, Any]:
    """The DynamoGraphDeployment of an overlay, as kustomize makes it."""
    folder = DEPLOY / "dynamo" / "overlays" / overlay
    (kustomization,) = documents(folder / "kustomization.yaml")
    (base,) = documents(DEPLOY / "dynamo" / "base" / "dynamo.yaml")
    for patch in kustomization["patches"]:
        assert patch["target"] == {"kind": base["kind"], "name": base["metadata"]["name"]}
        base = patched(base, yaml.safe_load((folder / patch["path"]).read_text()))
    return base


def unknown(data: Any, kind: str, where: str = "") -> Iterator[str]:
    """Where data has a field or a type that a model of the Kubernetes client has not."""
    if match := re.fullmatch(r"list\[(.+)\]", kind):
        for index, one in enumerate(data):
            yield from unknown(one, match[1], f"{where}[{index}]")
    elif match := re.fullmatch(r"dict\(str, (.+)\)", kind):
        for name, one in data.items():
            yield from unknown(one, match[1], f"{where}.{name}")
    elif kind in ("str", "int", "bool"):
        if not isinstance(data, {"str": str, "int": int, "bool": bool}[kind]):
            yield f"{where}: {data!r} is no {kind}"
    elif hasattr(client, kind):
        model = getattr(client, kind)
        names = {json_name: name for name, json_name in model.attribute_map.items()}
        for json_name, one in data.items():
            if json_name in names:
                yield from unknown(one, model.openapi_types[names[json_name]], f"{where}.{json_name}")
            else:
                yield f"{where}.{json_name}: {kind} has no such field"


def check(data: dict[str, Any], kind: str) -> None:
    assert list(unknown(data, kind)) == []
    # Required fields: the models refuse to be made without them.
    client.ApiClient().deserialize(SimpleNamespace(data=json.dumps(data)), kind)


class TestTheCheck:
    @pytest.mark.parametrize(
        "data",
        [
            {"spec": {"containers": [{"name": "main", "imge": "x"}]}},
            {"spec": {"containers": [{"name": "main", "command": [1]}]}},
            {"spec": {"containers": [{"name": "main", "ports": [{"containerPort": "80"}]}]}},
        ],
    )
    def test_it_finds_what_is_wrong(self, data: dict[str, Any]) -> None:
        assert len(list(unknown(data, "V1PodTemplateSpec"))) == 1

    def test_it_finds_what_is_missing(self) -> None:
        with pytest.raises(ValueError, match="containers"):
            check({"spec": {}}, "V1PodTemplateSpec")


@pytest.mark.parametrize("overlay", OVERLAYS)
class TestDynamo:
    def test_the_operator_takes_it(self, overlay: str) -> None:
        made = deployment(overlay)
        jsonschema.Draft202012Validator(SCHEMA).validate(made)
        names = [component["name"] for component in made["spec"]["components"]]
        assert names == ["frontend", "worker"]
        for component in made["spec"]["components"]:
            check(component["podTemplate"], "V1PodTemplateSpec")

    @pytest.mark.parametrize("where", ["spec", "component"])
    def test_a_field_that_there_is_not_is_refused(self, overlay: str, where: str) -> None:
        made = deployment(overlay)
        (made["spec"] if where == "spec" else made["spec"]["components"][0])["replica"] = 1
        with pytest.raises(jsonschema.ValidationError, match="replica"):
            jsonschema.Draft202012Validator(SCHEMA).validate(made)

    def test_frontend_and_workers_are_of_one_image(self, overlay: str) -> None:
        containers = [one["podTemplate"]["spec"]["containers"][0] for one in deployment(overlay)["spec"]["components"]]
        assert len({one["image"] for one in containers}) == 1
        pin = (ROOT / "requirements" / "no-deps.txt").read_text()
        version = containers[0]["image"].rpartition(":")[2]
        assert f"ai-dynamo=={version}\n" in pin


def main_container(overlay: str, component: str) -> dict[str, Any]:
    (found,) = [one for one in deployment(overlay)["spec"]["components"] if one["name"] == component]
    container: dict[str, Any] = found["podTemplate"]["spec"]["containers"][0]
    return container


def flags(arguments: list[str]) -> dict[str, str]:
    """Flags by name, in either form, `--a=b` and `--a b`."""
    found: dict[str, str] = {}
    name = ""
    for argument in arguments:
        if argument.startswith("--"):
            name, _, value = argument.partition("=")
            found[name] = value
        else:
            found[name] = argument
    return found


def test_the_frontends_flags_are_the_recommended_ones() -> None:
    """Those of README, which are the embedded Dynamo's, which all figures come from."""
    container = main_container("vllm", "frontend")
    assert container["command"] == ["python3", "-m", "dynamo.frontend"]
    given = flags(container["args"])
    embedded = flags(frontend_command(LocalDynamoConfig(track_output_blocks=True), 8000)[4:])
    del embedded["--http-host"]
    assert given == embedded
    readme = (ROOT / "README.md").read_text().partition("python -m dynamo.frontend ")[2].partition("```")[0]
    del given["--http-port"]
    assert flags(readme.replace("\\", " ").split()) == given


def test_the_page_explains_each_flag() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `--")]
    explained = {flag for row in rows for flag in re.findall(r"`(--[a-z-]+)(?:=[\w-]+)?`", row.split("|")[1])}
    given = flags(main_container("vllm", "frontend")["args"])
    assert explained == set(given) - {"--http-port"} | {"--router-queue-threshold"}
    for name, value in re.findall(r"`(--[a-z-]+)=([\w-]+)`", "\n".join(rows)):
        assert given.get(name, "0") == value, name


def test_the_simulated_workers_are_the_embedded_dynamos() -> None:
    given = flags(main_container("mocker", "worker")["args"])
    config = LocalDynamoConfig(speedup=1, tool_call_parser=None)
    embedded = flags(worker_command(config, Path("Qwen/Qwen3-0.6B"), "Qwen/Qwen3-0.6B", None)[3:])
    del embedded["--max-model-len"]  # the model's own
    assert given == embedded | {"--num-workers": "1", "--speedup-ratio": "1"}


@pytest.mark.parametrize(
    ("module", "component"), [("dynamo.frontend", "frontend"), ("dynamo.mocker", "worker")], ids=["frontend", "mocker"]
)
def test_dynamo_takes_the_flags(module: str, component: str) -> None:
    shown = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"--[a-z][a-z-]*[a-z]", re.sub(r"-\n\s+", "-", shown)))
    assert set(flags(main_container("mocker", component)["args"])) <= known


def test_vllm_tells_the_router_which_blocks_it_holds() -> None:
    given = flags(main_container("vllm", "worker")["args"])
    events = json.loads(given["--kv-events-config"])
    assert events["enable_kv_cache_events"] is True and events["publisher"] == "zmq"


class TestAgent:
    @pytest.fixture
    def parts(self) -> dict[str, dict[str, Any]]:
        return {document["kind"]: document for document in documents(DEPLOY / "agent" / "agent.yaml")}

    def test_kubernetes_takes_it(self, parts: dict[str, dict[str, Any]]) -> None:
        assert set(parts) == {"ConfigMap", "Deployment"}
        for kind, document in parts.items():
            check(document, f"V1{kind}")

    def test_its_llm_is_the_dynamo_beside_it(self, parts: dict[str, dict[str, Any]]) -> None:
        (given,) = yaml.safe_load(parts["ConfigMap"]["data"]["llm.yml"])["llms"].values()
        assert given.pop("_type") == "dynamo"
        config = DynamoModelConfig.model_validate(given)
        made = deployment("mocker")
        frontend = made["spec"]["components"][0]["name"]
        assert config.base_url == f"http://{made['metadata']['name']}-{frontend}:8000/v1"
        for overlay, flag in (("mocker", "--model-name"), ("vllm", "--model")):
            assert config.model_name == flags(main_container(overlay, "worker")["args"])[flag]

    def test_it_is_scraped(self, parts: dict[str, dict[str, Any]]) -> None:
        pod = parts["Deployment"]["spec"]["template"]
        container = pod["spec"]["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        (address,) = [one["value"] for one in container["env"] if one["name"] == METRICS_ADDRESS]
        assert address == f"0.0.0.0:{ports['metrics']}"
        monitors = {one["metadata"]["name"]: one for one in documents(DEPLOY / "monitoring" / "pod-monitors.yaml")}
        spec = monitors["nat-dynamo-agents"]["spec"]
        assert spec["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        assert [one["port"] for one in spec["podMetricsEndpoints"]] == ["metrics"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl")
@pytest.mark.parametrize("folder", BUILT, ids=lambda folder: folder.name)
def test_kustomize_builds_it(folder: Path) -> None:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = [one for one in yaml.safe_load_all(done.stdout) if one]
    if folder.name in OVERLAYS:
        assert made == [deployment(folder.name)]
    if folder.name == "monitoring":
        (dashboard,) = [one for one in made if one["kind"] == "ConfigMap"]
        assert dashboard["metadata"]["labels"] == {"grafana_dashboard": "1"}
        assert json.loads(dashboard["data"]["dashboard.json"])["title"]
