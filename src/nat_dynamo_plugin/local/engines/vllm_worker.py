"""Entry point of a worker that computes: Dynamo's own `dynamo.vllm`, in the engine's environment.

Run as a file by another Python than ours, never imported by the package. vLLM starts its engine in a process of its own,
which runs this file as `__mp_main__`; so both get what stands outside `main`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import sys
import types

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PICTURES = "transformers.models.qwen2_vl.image_processing_qwen2_vl"


def _end_with_parent() -> None:
    """The engine's process must not outlive its worker, however that ends."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it went before the request was made
        os._exit(1)


def _do_without_pictures() -> None:
    """Let `dynamo.vllm` be imported where there is no torchvision, of which the CPU's torch has no build.

    Dynamo 1.6.0 imports one function of Transformers' module for Qwen's pictures when it starts, whatever the model.
    """
    if importlib.util.find_spec("torchvision") is None:

        def smart_resize(*_: object, **__: object) -> None:
            raise NotImplementedError("pictures need torchvision, which is not in the engine's environment")

        module = types.ModuleType(_PICTURES)
        module.__dict__["smart_resize"] = smart_resize
        sys.modules[_PICTURES] = module


if sys.platform == "linux":
    _end_with_parent()
_do_without_pictures()

if __name__ == "__main__":
    from dynamo.vllm.main import main

    main()
