"""`org:` - who tells which org (tenant, customer, team) a call is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, StringConstraints

from nat_dynamo_plugin.config.block import Block

if TYPE_CHECKING:
    from nat_dynamo_plugin.layers.org import OrgLayer

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class OrgConfig(Block):
    """Who tells a call's org: a scope (`org_scope`) first, then the header, the user, the default."""

    NAME: ClassVar = "org"

    header: _Text | None = Field(
        default=None,
        description="Header of the request to `nat serve` that names the org. Have a proxy that you trust set it "
        "(default: none).",
    )
    nat_user: bool = Field(default=False, description="Whether NAT's user id is the org (default false).")
    default: _Text | None = Field(default=None, description="The org of calls that nobody names one for.")
    required: bool = Field(
        default=False, description="Whether a call of no org is refused with 403, nothing being sent (default false)."
    )

    def layer(self) -> OrgLayer:
        """The layer."""
        from nat_dynamo_plugin.layers.org import OrgLayer

        return OrgLayer(self.header, user=self.nat_user, default=self.default, required=self.required)
