"""Redirects that keep the method and the body, as OpenAI's own client follows them."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from nat_dynamo_plugin.http.call import Call, Reply, origin_of
from nat_dynamo_plugin.http.flow import Close, Flow, Send
from nat_dynamo_plugin.layers.answer import NO_ANSWER, refused
from nat_dynamo_plugin.telemetry.kinds import Kind

MAX_REDIRECTS = 5
SECRETS = ("authorization", "cookie", "proxy-authorization", "x-api-key", "api-key")
"""Headers that no other origin than the one asked gets."""


class RedirectLayer:
    """Follows 307 and 308 where the server says. Any other redirect would turn the call into a GET, so it stands."""

    def flow(self, call: Call, send: Send) -> Flow:
        """Send until there is an answer."""
        reply: Reply = yield from send(call)
        followed = 0
        while reply.status in (307, 308):
            location = reply.headers.get("location")
            url = urljoin(call.url, location) if location else ""
            yield Close(reply)
            if followed == MAX_REDIRECTS or not url.startswith(("http://", "https://")):
                # The HTTP library would go on where this ends.
                return _refused(call, reply, location)
            followed += 1
            if origin_of(url) != call.origin:
                for name in SECRETS:
                    call.headers.remove(name)
                call.headers.set("host", urlsplit(url).netloc.rpartition("@")[2])
            call.url = url
            reply = yield from send(call)
        return reply


def _refused(call: Call, reply: Reply, location: str | None) -> Reply:
    text = f"{call.origin} answers {reply.status} and redirects to {location or 'nowhere'}, which is not followed"
    return refused(call, NO_ANSWER, text, Kind.REDIRECT.value)
