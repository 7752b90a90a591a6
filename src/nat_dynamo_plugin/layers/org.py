"""Whose call it is, from the first that says so, and a KV cache of its own for each."""

from __future__ import annotations

from nat.builder.context import ContextState

from nat_dynamo_plugin.http.call import Call
from nat_dynamo_plugin.http.flow import Flow, Send
from nat_dynamo_plugin.layers.answer import refused
from nat_dynamo_plugin.question.org import current_org, org_digest, org_scope

SALT = b"x-tenant-id"
"""What keeps KV cache entries apart on Dynamo (1.6, `nvext.cache_salt` and this header)."""

_STATE = ContextState.get()


class OrgLayer:
    """Notes the org's digest in the record, and salts the KV cache with it. Its name leaves with no request.

    Args:
        header: header of the request that NAT is answering which names the org; `None` for none.
        user: whether NAT's user is one.
        default: the org of a call that nobody names one for.
        required: whether such a call is refused where there is no default.
    """

    def __init__(
        self, header: str | None = None, *, user: bool = False, default: str | None = None, required: bool = False
    ) -> None:
        self._header = header
        self._user = user
        self._default = default
        self._required = required

    def flow(self, call: Call, send: Send) -> Flow:
        """Tell whose call it is, and send."""
        org = self._org()
        if org is not None:
            call.record.org = digest = org_digest(org)
            # Beside a salt of the config's or the caller's, which alone would let two orgs share.
            salt = call.headers.get(SALT)
            call.headers.put(SALT, (digest if salt is None else f"{salt}.{digest}").encode("latin-1"))
            with org_scope(org):  # for those further in: limits, caches, cost
                return (yield from send(call))
        if self._required:
            text = "nobody says which org this call is for, and org.required is set: call inside org_scope(...)"
            return refused(call, 403, text, "org_unknown")
        return (yield from send(call))

    def _org(self) -> str | None:
        org = current_org()
        if org is None and self._header is not None and (headers := _STATE.metadata.get().headers) is not None:
            org = (headers.get(self._header) or "").strip() or None
        if org is None and self._user:
            org = (_STATE.user_id.get() or "").strip() or None
        return self._default if org is None else org
