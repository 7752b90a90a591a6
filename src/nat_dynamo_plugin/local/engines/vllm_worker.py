"""Entry point of a worker that computes: Dynamo's own `dynamo.vllm`, in the engine's environment.

    python vllm_worker.py [--answer-opening ID,ID,...] FLAGS OF dynamo.vllm

Run as a file by another Python than ours. vLLM starts its engine in a process of its own, which runs this file as
`__mp_main__`; so both do what stands below `main`.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.util
import os
import secrets
import signal
import sys
import types
from collections.abc import Callable, Sequence
from multiprocessing import shared_memory, synchronize
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_NAME_VARIABLE = "NAT_DYNAMO_LOCAL_DIR"  # its last part is the instance's own
_PICTURES = "transformers.models.qwen2_vl.image_processing_qwen2_vl"


def end_with_parent() -> None:
    """The engine's process must not outlive its worker, however that ends."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it went before the request was made
        os._exit(1)


def name_shared_memory(name: str) -> None:
    """Let what is made in shared memory bear the instance's name, by which it is found when this process is killed."""
    made: Any = lambda *_: f"/{name}-{secrets.token_hex(6)}"  # noqa: E731
    shared_memory._make_filename = made  # type: ignore[attr-defined]
    synchronize.SemLock._make_name = staticmethod(made)  # type: ignore[attr-defined]


def do_without_pictures() -> None:
    """Let `dynamo.vllm` be imported where there is no torchvision, of which the CPU's torch has no build.

    Dynamo 1.6.0 imports one function of Transformers' module for Qwen's pictures when it starts, whatever the model.
    """
    if importlib.util.find_spec("torchvision") is None:

        def smart_resize(*_: object, **__: object) -> None:
            raise NotImplementedError("pictures need torchvision, which is not in the engine's environment")

        module = types.ModuleType(_PICTURES)
        module.__dict__["smart_resize"] = smart_resize
        sys.modules[_PICTURES] = module


def rest_of(choice: str, tokens: Sequence[int], opening: Sequence[int], decode: Callable[[Sequence[int]], str]) -> str:
    """What is still to be said of a forced answer.

    Dynamo migrates a request by sending it to another worker with the tokens said so far at the end of its prompt, and
    the grammar of a choice begins anew there.

    Args:
        choice: the whole answer.
        tokens: the prompt, as the worker gets it.
        opening: the tokens with which the chat template opens an answer; the first is in no text's tokens.
        decode: the text of tokens.

    Raises:
        ValueError: it broke off within a character, or said something else; no text is better than a wrong one.
    """
    for place in range(len(tokens) - 1, -1, -1):
        if tokens[place] == opening[0]:
            said = decode(tokens[place + len(opening) :])
            if not choice.startswith(said):
                raise ValueError("a scripted answer broke off where it can not be taken up")
            return choice[len(said) :]
    return choice


def go_on_with_answers(opening: Sequence[int], model: Path) -> None:
    """Let a forced answer go on where it was when its worker died."""
    handlers: Any = importlib.import_module("dynamo.vllm.handlers")
    tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(str(model / "tokenizer.json"))
    build = handlers.build_sampling_params

    def build_rest(request: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        options = request.get("sampling_options") or {}
        choice = (options.get("guided_decoding") or {}).get("choice")
        if choice and len(choice) == 1:
            rest = rest_of(choice[0], request["token_ids"], opening, tokenizer.decode)
            guided = {**options["guided_decoding"], "choice": [rest]}
            request = {**request, "sampling_options": {**options, "guided_decoding": guided}}
        return build(request, *args, **kwargs)

    handlers.build_sampling_params = build_rest


def main() -> None:
    """Take our flag off the command line; the rest is Dynamo's."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--answer-opening", default="")
    parser.add_argument("--model", type=Path)
    own, _ = parser.parse_known_args()
    place = sys.argv.index("--answer-opening") if own.answer_opening else None
    if place is not None:
        del sys.argv[place : place + 2]
        go_on_with_answers([int(one) for one in own.answer_opening.split(",")], own.model)
    importlib.import_module("dynamo.vllm.main").main()


if __name__ in ("__main__", "__mp_main__"):
    end_with_parent()
    do_without_pictures()
    if _NAME_VARIABLE in os.environ:
        name_shared_memory(Path(os.environ[_NAME_VARIABLE]).name)

if __name__ == "__main__":
    main()
