"""The model folder of the embedded Dynamo: a tokenizer trained on the spot, a chat template, no weights.

The tokenizer is a byte-level BPE, so that any text survives encoding and decoding unchanged. It is trained on the
documentation and sources that come with Python (English, code, docstrings), which takes about two seconds, and kept
in the user's cache directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
"""Ends a turn; the model's EOS token."""

CACHE_FOLDER = "XDG_CACHE_HOME"
"""Folder of the folder `nat-dynamo-plugin` that keeps the embedded Dynamo's tokenizer; `~/.cache` if not set."""

VOCABULARY_SIZE = 32_768


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a Llama.

    Attributes:
        layers: transformer layers.
        hidden: hidden size, a multiple of 64, the size of an attention head.
        intermediate: size of the feed-forward layer.
        kv_heads: attention heads that keep keys and values; those that ask are a multiple of it.
        vocabulary: tokens.
    """

    layers: int
    hidden: int
    intermediate: int
    kv_heads: int
    vocabulary: int = VOCABULARY_SIZE


SIMULATED = Shape(layers=16, hidden=2048, intermediate=8192, kv_heads=8)
"""What the mocker computes a KV entry's bytes from: the shape of Llama 3.2 1B."""


def random_shape(layers: int, hidden: int, vocabulary: int) -> Shape:
    """The shape of a model of random weights: a KV head for four that ask where that goes up, as in Llama 3."""
    heads = hidden // 64
    return Shape(layers, hidden, 3 * hidden, heads // 4 if heads % 4 == 0 else 1, vocabulary)


_RECIPE = 1  # raise it when anything below changes what the tokenizer becomes
_SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
_CORPUS_PACKAGES = (
    "asyncio", "collections", "concurrent", "email", "html", "http", "importlib",
    "json", "logging", "multiprocessing", "unittest", "urllib", "xml", "xmlrpc",
)  # fmt: skip

# How today's open models cut text before BPE (the pattern of Qwen2.5's tokenizer.json, with digits in threes).
_WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Hermes style, as Qwen2.5's template writes it: tools in the system turn, calls and results in tags.
CHAT_TEMPLATE = """\
{%- set has_system = messages and messages[0].role == 'system' -%}
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if has_system %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- '# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n' }}
{{- 'You are provided with function signatures within <tools></tools> XML tags:\\n<tools>' }}
{%- for tool in tools %}
{{- '\\n' }}{{- tool | tojson }}
{%- endfor %}
{{- '\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within ' }}
{{- '<tool_call></tool_call> XML tags:\\n<tool_call>\\n' }}
{{- '{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- elif has_system %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}
{%- if message.content %}{{- message.content }}{%- endif %}
{%- for call in message.tool_calls or [] %}
{%- if message.content or not loop.first %}{{- '\\n' }}{%- endif %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{%- if call.function.arguments is string %}
{{- call.function.arguments }}
{%- else %}
{{- call.function.arguments | tojson }}
{%- endif %}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- elif not (loop.first and has_system) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def tokenizer_file(vocabulary: int = VOCABULARY_SIZE) -> Path:
    """The trained tokenizer's `tokenizer.json`, made on first use (about two seconds).

    It is kept in `$XDG_CACHE_HOME/nat-dynamo-plugin` (`~/.cache/...`); where that cannot be written, in a directory
    of this user's under the system's temporary one. Safe to call from several processes at once.

    Raises:
        ImportError: `tokenizers` is not installed.
        OSError: no directory can be written.
    """
    name = f"tokenizer-{_cache_key(vocabulary)}.json"
    trained: str | None = None
    refused: OSError | None = None
    for folder in _cache_folders():
        target = folder / name
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid != os.getuid():  # somebody else's, in a shared temporary directory
                continue
            if target.is_file():
                return target
            trained = trained or _train(vocabulary).to_str()
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=".making-")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(trained)
                Path(temporary).replace(target)  # appears whole or not at all, however many come at once
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            return target
        except OSError as error:
            refused = error
    raise refused or PermissionError("no directory of this user's own to keep the tokenizer in")


def load_tokenizer(tokenizer_json: Path) -> Tokenizer:
    """The tokenizer, ready to encode any text as plain text: special tokens' names in it get no special meaning."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    tokenizer.encode_special_tokens = True
    return tokenizer


def write_model_folder(folder: Path, tokenizer_json: Path, context_length: int, shape: Shape = SIMULATED) -> None:
    """Write what Dynamo reads of a model: config, generation config, tokenizer and chat template; no weights.

    Args:
        folder: made if it is not there.
        tokenizer_json: what `tokenizer_file` gave.
        context_length: tokens of prompt and answer together, at least 1.
        shape: the model's size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(tokenizer_json.read_bytes())
    eos = _SPECIAL_TOKENS.index(TURN_END)
    pad = _SPECIAL_TOKENS.index(END_OF_TEXT)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.hidden // 64,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": 64,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": context_length,
        "torch_dtype": "bfloat16",
        "bos_token_id": pad,
        "eos_token_id": eos,
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "bos_token": None,
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(number): {
                "content": token, "lstrip": False, "normalized": False,
                "rstrip": False, "single_word": False, "special": True,
            }
            for number, token in enumerate(_SPECIAL_TOKENS)
        },
        "chat_template": CHAT_TEMPLATE,
    }  # fmt: skip
    generation_config = {"bos_token_id": pad, "eos_token_id": [eos], "pad_token_id": pad}
    files = {"config": config, "tokenizer_config": tokenizer_config, "generation_config": generation_config}
    for name, data in files.items():
        (folder / f"{name}.json").write_text(json.dumps(data, indent=1))


def answer_opening(tokenizer: Tokenizer) -> list[int]:
    """The tokens with which the template opens an answer, at the end of a prompt; the first is in no text's tokens."""
    turn = tokenizer.token_to_id(TURN_START)
    assert turn is not None
    return [turn, *tokenizer.encode("assistant\n", add_special_tokens=False).ids]


def eos_token_id() -> int:
    """The id that ends an answer."""
    return _SPECIAL_TOKENS.index(TURN_END)


def _cache_key(vocabulary: int) -> str:
    recipe = (_RECIPE, vocabulary, _SPECIAL_TOKENS, _CORPUS_PACKAGES, _WORD_PATTERN, sys.version)
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]


def _cache_folders() -> Iterator[Path]:
    configured = os.environ.get(CACHE_FOLDER)
    with suppress(RuntimeError):  # this user has no home, as in some containers
        yield (Path(configured) if configured else Path.home() / ".cache") / "nat-dynamo-plugin"
    yield Path(tempfile.gettempdir()) / f"nat-dynamo-plugin-{os.getuid()}"


def _corpus() -> Iterator[str]:
    """Python's own manual and the sources of its library: English prose, docstrings and code."""
    yield from import_module("pydoc_data.topics").topics.values()
    library = Path(sysconfig.get_path("stdlib"))
    files = list(library.glob("*.py"))
    for package in _CORPUS_PACKAGES:
        files += (library / package).rglob("*.py")
    for file in sorted(files):
        yield file.read_text(encoding="utf-8", errors="replace")


def _train(vocabulary: int) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(_SPECIAL_TOKENS),
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return tokenizer
