"""What NAT's entry point loads. Cheap to import: frameworks and Dynamo are imported where they are used."""

from __future__ import annotations

from nat_dynamo_plugin.nat import components, takeover

takeover.take_over_dynamo()
components.register_all()
