"""How vLLM's workers are started and asked, without starting one."""

from __future__ import annotations

import json
import subprocess
import sys
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from nat_dynamo_plugin.config.engine import DEFAULTS, OWN_FLAGS, EngineName
from nat_dynamo_plugin.dialects.scripted import GuidedChoice
from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig, LocalDynamoError, ScriptedAnswer
from nat_dynamo_plugin.local.answers import AnswerBook
from nat_dynamo_plugin.local.engines import ENGINES
from nat_dynamo_plugin.local.engines.vllm import PYTHON_VARIABLE, Vllm
from nat_dynamo_plugin.local.engines.vllm_worker import rest_of
from nat_dynamo_plugin.local.supervisor import remove_shared_memory
from nat_dynamo_plugin.plan.serving import NO_PLAN

WORKER = Path(sys.modules[Vllm.__module__].__file__ or "").with_name("vllm_worker.py")
BOOK = AnswerBook([ScriptedAnswer("a", "yes"), ScriptedAnswer("b", None, [("ls", {"all": True})])])


def written(tmp_path: Path, **fields: Any) -> list[Any]:
    engine = Vllm(LocalDynamoConfig(engine="vllm", **fields), "m")
    engine.prepare(BOOK)
    return list(engine.write(tmp_path))


def flag(argv: list[str], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_all_engines_that_a_config_may_name_are_there() -> None:
    assert set(ENGINES) == set(get_args(EngineName)) == set(DEFAULTS) == set(OWN_FLAGS)


class TestCommands:
    def test_each_worker_has_its_own_socket_for_kv_events(self, tmp_path: Path) -> None:
        commands = written(tmp_path, workers=3)
        assert [one.name for one in commands] == ["worker-0", "worker-1", "worker-2"]
        events = [json.loads(flag(one.argv, "--kv-events-config")) for one in commands]
        assert {one["endpoint"] for one in events} == {f"ipc://{tmp_path}/kv{index}.sock" for index in range(3)}
        assert all(one["enable_kv_cache_events"] for one in events)

    def test_the_model_is_of_the_size_asked_for(self, tmp_path: Path) -> None:
        size = {"layers": 3, "hidden": 256, "vocabulary": 600}
        (command,) = written(tmp_path, workers=1, model=size, kv_blocks=100)
        folder = Path(flag(command.argv, "--model"))
        facts = json.loads((folder / "config.json").read_text())
        assert [facts[key] for key in ("num_hidden_layers", "hidden_size", "vocab_size")] == [3, 256, 600]
        assert facts["num_attention_heads"] == 4 and facts["num_key_value_heads"] == 1
        assert len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]) <= 600
        assert flag(command.argv, "--load-format") == "dummy"
        # vLLM keeps a block for itself and refuses a context that does not fit into the rest.
        assert flag(command.argv, "--max-model-len") == str(99 * 32)

    def test_a_model_of_ones_own_is_taken_as_it_is(self, tmp_path: Path) -> None:
        mine = tmp_path / "mine"
        mine.mkdir()
        facts = {"max_position_embeddings": 2048, "num_hidden_layers": 28, "num_attention_heads": 16, "head_dim": 128}
        (mine / "config.json").write_text(json.dumps(facts | {"num_key_value_heads": 8}))
        (command,) = written(tmp_path, workers=1, model=str(mine), kv_blocks=4096)
        assert flag(command.argv, "--model") == str(mine)
        assert "--load-format" not in command.argv and "--answer-opening" not in command.argv
        assert flag(command.argv, "--max-model-len") == "2048"
        # 28 layers x 8 heads x 128 x (key and value) x 2 bytes x 131,072 tokens are 14 GiB.
        assert command.env["VLLM_CPU_KVCACHE_SPACE"] == "14"

    def test_what_the_user_says_comes_last(self, tmp_path: Path) -> None:
        (command,) = written(tmp_path, workers=1, worker_args=["--seed", "7"], env={"OMP_NUM_THREADS": "9"})
        assert command.argv[-2:] == ["--seed", "7"]
        assert command.env["OMP_NUM_THREADS"] == "9"
        assert command.env["VLLM_HOST_IP"] == "127.0.0.1" and command.env["PYTHONPATH"] == ""

    def test_a_folder_too_deep_for_sockets_is_named(self, tmp_path: Path) -> None:
        deep = tmp_path / ("x" * 90)
        with pytest.raises(LocalDynamoError, match=r"too long for the sockets.*TMPDIR"):
            written(deep)


class TestInstallation:
    async def test_a_python_that_is_not_there_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "python"))
        with pytest.raises(LocalDynamoError, match=r"python', which is not there; `make engine`"):
            await LocalDynamo(LocalDynamoConfig(engine="vllm")).start()

    def test_what_it_lacks_is_named(self) -> None:
        with pytest.raises(LocalDynamoError, match=r"has no vllm; `make engine`"):
            Vllm(LocalDynamoConfig(engine="vllm", engine_python=sys.executable), "m").check_installed()

    def test_what_is_no_python_is_told(self) -> None:
        with pytest.raises(LocalDynamoError, match=r"can not be used: it ended with status 1"):
            Vllm(LocalDynamoConfig(engine="vllm", engine_python="/bin/false"), "m").check_installed()

    def test_it_is_looked_for_beside_our_own_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
        assert Vllm(LocalDynamoConfig(engine="vllm"), "m").python == Path(f"{sys.prefix}-engine/bin/python")


class TestAnswers:
    def test_a_call_leaves_its_answer_as_the_only_choice(self) -> None:
        key: list[str | None] = ["a"]
        dialect = Vllm(LocalDynamoConfig(engine="vllm"), "m").script(lambda: key[0], BOOK)
        assert isinstance(dialect, GuidedChoice)
        assert dialect.say(NO_PLAN).members == {"guided_choice": ["yes"]}
        key[0] = "b"
        assert dialect.say(NO_PLAN).members == {"guided_choice": [BOOK.answers["b"].text()]}
        key[0] = None
        assert not dialect.say(NO_PLAN).members

    @pytest.mark.parametrize(
        ("tokens", "rest"),
        [
            ([7, 1, 2, 9, 9], "abc"),  # the opening is not there: nothing is known, so all is said
            ([1, 2, 50], "abc"),
            ([50, 1, 2, 7, 1, 2], "abc"),  # an answer before it ends before the last opening
            ([1, 2, 10], "bc"),
            ([1, 2, 10, 11, 12], ""),
        ],
    )
    def test_an_answer_goes_on_where_it_was(self, tokens: list[int], rest: str) -> None:
        text = {10: "a", 11: "b", 12: "c", 50: ""}
        assert rest_of("abc", tokens, [1, 2], lambda ids: "".join(text.get(one, "") for one in ids)) == rest

    def test_one_that_broke_off_in_a_character_fails(self) -> None:
        with pytest.raises(ValueError, match="can not be taken up"):
            rest_of("äb", [1, 2, 10], [1, 2], lambda ids: "\ufffd" * len(ids))


class TestWarmUp:
    async def test_every_worker_gives_a_plain_and_a_forced_answer(self) -> None:
        asked: list[tuple[int, bool]] = []

        def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/health":
                endpoints = [("generate", 5), ("generate", 3), ("clear_kv_blocks", 3)]
                return httpx.Response(
                    200, json={"instances": [{"endpoint": name, "instance_id": one} for name, one in endpoints]}
                )
            body = json.loads(request.content)
            asked.append((body["nvext"]["backend_instance_id"], "guided_choice" in body))
            return httpx.Response(200, json={})

        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            await Vllm(LocalDynamoConfig(engine="vllm"), "m").warm_up(client, "http://x")
        assert asked == [(3, False), (3, True), (5, False), (5, True)]


class TestLeftovers:
    def test_shared_memory_bears_the_instances_name_and_is_removed_by_it(self, tmp_path: Path) -> None:
        code = (
            f"import runpy, sys, os; sys.argv = ['x']; worker = runpy.run_path({str(WORKER)!r}, run_name='worker');"
            "worker['name_shared_memory']('nat-dynamo-testing1');"
            "from multiprocessing import get_context, shared_memory, resource_tracker;"
            "one = shared_memory.SharedMemory(create=True, size=8); lock = get_context('spawn').Lock();"
            "print(one.name, flush=True); os.kill(resource_tracker._resource_tracker._pid, 9); os.kill(os.getpid(), 9)"
        )
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        name = said.stdout.strip()
        assert name.startswith("nat-dynamo-testing1-"), said.stderr
        left = {one.name for one in Path("/dev/shm").iterdir() if "nat-dynamo-testing1" in one.name}
        assert name in left and len(left) == 2
        remove_shared_memory(tmp_path / "nat-dynamo-testing1")
        assert not [one for one in Path("/dev/shm").iterdir() if "nat-dynamo-testing1" in one.name]
        with pytest.raises(FileNotFoundError):
            shared_memory.SharedMemory(name)

    def test_the_worker_starts_without_torchvision(self) -> None:
        code = (
            f"import runpy, sys; worker = runpy.run_path({str(WORKER)!r}, run_name='worker');"
            "worker['do_without_pictures']();"
            "import importlib.util as u; there = u.find_spec('torchvision') is not None;"
            "stub = sys.modules.get('transformers.models.qwen2_vl.image_processing_qwen2_vl');"
            "sys.exit(0 if (stub is None) is there else 1)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
