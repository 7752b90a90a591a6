"""NAT's custom payload fields as `X-Payload-*` headers, as its own OpenAI client sends them."""

from __future__ import annotations

import logging
import re

from nat.builder.context import ContextState
from nat.llm.utils.constants import LLMHeaderPrefix

from nat_dynamo_plugin.http.call import Call
from nat_dynamo_plugin.http.flow import Flow, Send

logger = logging.getLogger(__name__)

_STATE = ContextState.get()

MAX_VALUE_CHARS = 4096
"""Longest value that is sent; servers take 8 to 64 KB of headers in all."""
_NAME = re.compile(r"[A-Za-z0-9_!#$%&'*+.^`|~-]{1,128}")  # a token of RFC 9110, section 5.6.2
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?|")


class PayloadHeadersLayer:
    """Adds the fields of the workflow's input that its schema does not know. One that fits no header is left out."""

    def flow(self, call: Call, send: Send) -> Flow:
        """Add the headers, and send."""
        extra = getattr(_STATE.input_message.get(), "model_extra", None)
        for key, value in (extra or {}).items():
            text = "" if value is None else str(value)
            if value is None:
                continue
            if len(text) <= MAX_VALUE_CHARS and _NAME.fullmatch(key) and _VALUE.fullmatch(text):
                call.headers.set(f"{LLMHeaderPrefix.PAYLOAD}-{key.replace('_', '-')}", text)
            else:
                logger.debug("The payload field %r can not travel in a header", key)
        return send(call)
