from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.admission.prompts import CHUNK_BYTES, MEDIA_BYTES, Prompt, read_prompt

SYSTEM = {"role": "system", "content": "You are a travel agent. " * 200}
TOOLS = [{"type": "function", "function": {"name": f"tool_{n}", "parameters": {"x": "y" * 500}}} for n in range(5)]


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "temperature": 0.5, **fields}).encode()


def common(one: Prompt, two: Prompt) -> int:
    """Bytes that two prompts have in common."""
    keys = {key for key, _ in two.pieces}
    return sum(size for key, size in one.pieces if key in keys)


def chat(text: str, **fields: Any) -> Prompt:
    return read_prompt(body(messages=[SYSTEM, {"role": "user", "content": text}], **fields))


def test_a_common_beginning_of_messages_is_seen() -> None:
    one, two = chat("first question"), chat("second question")
    assert one.size > 4800
    assert one.size - common(one, two) < 100


def test_tools_come_first_wherever_they_stand_in_the_body() -> None:
    one = chat("a", tools=TOOLS)
    two = read_prompt(body(tools=TOOLS, messages=[{"role": "user", "content": "b"}]))
    assert common(one, two) > 2500
    other = chat("a", tools=[*TOOLS[1:], TOOLS[0]])
    assert common(one, other) == 0, "what comes behind another beginning is cached apart"


def test_a_conversation_that_goes_on_contains_what_went_before() -> None:
    messages = [SYSTEM, {"role": "user", "content": "a"}]
    before = read_prompt(body(messages=messages))
    after = read_prompt(body(messages=[*messages, {"role": "assistant", "content": "b"}]))
    assert common(after, before) == before.size < after.size


@pytest.mark.parametrize("whole", ["words " * 3000, list(range(1000, 8000))])
def test_texts_and_token_ids_share_all_but_their_ends(whole: str | list[int]) -> None:
    one, two = read_prompt(body(prompt=whole)), read_prompt(body(prompt=whole[:-500]))
    assert common(one, two) >= two.size - CHUNK_BYTES
    assert all(size <= CHUNK_BYTES for _, size in one.pieces)


def test_responses() -> None:
    one = read_prompt(body(instructions="Be short. " * 300, input="What is this?"))
    two = read_prompt(body(instructions="Be short. " * 300, input=[{"role": "user", "content": "And that?"}]))
    assert common(one, two) == pytest.approx(3000, abs=10)


BASE64 = "QUJDRA==" * 5000
DATA_URL = f"data:image/png;base64,{BASE64}"
PARTS = {
    "chat, image": {"type": "image_url", "image_url": {"url": DATA_URL}},
    "chat, image, detail first": {"type": "image_url", "image_url": {"detail": "low", "url": DATA_URL}},
    "chat, image elsewhere": {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
    "chat, image elsewhere, detail first": {
        "type": "image_url",
        "image_url": {"detail": "low", "url": "https://example.com/cat.png"},
    },
    "chat, audio": {"type": "input_audio", "input_audio": {"data": BASE64, "format": "wav"}},
    "chat, file": {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{BASE64}"}},
    "chat, video": {"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + BASE64}},
    "responses, image": {"type": "input_image", "image_url": DATA_URL, "detail": "auto"},
    "responses, file": {"type": "input_file", "filename": "a.pdf", "file_data": BASE64},
    "responses, screenshot": {"type": "computer_call_output", "output": {"type": "screenshot", "image_url": DATA_URL}},
    "responses, made image": {"type": "image_generation_call", "id": "i", "result": BASE64},
    "other": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64}},
}


def with_part(part: dict[str, Any], text: str = "What is this?") -> Prompt:
    return read_prompt(
        body(messages=[SYSTEM, {"role": "user", "content": [part, {"type": "text", "text": text}]}], tools=TOOLS)
    )


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
class TestMedia:
    def test_take_what_they_take_and_not_their_base64(self, part: dict[str, Any]) -> None:
        alone = with_part({"type": "text", "text": ""})
        assert with_part(part).size - alone.size == pytest.approx(MEDIA_BYTES, abs=150)

    def test_of_equal_prompts_are_shared(self, part: dict[str, Any]) -> None:
        one, two = with_part(part, "one"), with_part(part, "two")
        assert one.size - common(one, two) < 100

    def test_are_not_taken_for_others(self, part: dict[str, Any]) -> None:
        other = json.loads(
            json.dumps(part).replace("QUJDRA==" * 5000, "QUJDRA==" * 4999 + "WFhYWA==").replace("cat", "dog")
        )
        assert with_part(part).size - common(with_part(part), with_part(other)) > MEDIA_BYTES


def test_text_that_speaks_of_images_is_text() -> None:
    text = f'an image is {{"image_url": {{"url": "{DATA_URL}"}}}} and "data:image/png;base64,abc"'
    tool = {"role": "tool", "content": json.dumps({"data": BASE64})}
    prompt = read_prompt(body(messages=[{"role": "user", "content": text}, tool]))
    assert prompt.size > 2 * len(BASE64)


def test_a_body_nested_too_deep_is_no_error() -> None:
    assert read_prompt(b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}") == Prompt()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"null", b'{"prompt":null}', b"{}", b"\xff\xfe", b'{"messages":[1,}', b'{"messages":3'],
)
def test_what_is_no_prompt_is_an_empty_one(content: bytes) -> None:
    assert read_prompt(content) == Prompt()


@given(st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda x: body(messages=x)))
def test_nothing_that_is_sent_is_an_error(content: bytes) -> None:
    prompt = read_prompt(content)
    assert prompt.size <= len(content)
    assert len({key for key, _ in prompt.pieces}) == len(prompt.pieces)
