"""The metrics that NAT gets to know. A new one is a file of its own and a line here."""

from nat_dynamo_plugin.evaluators import kv_reuse as kv_reuse
from nat_dynamo_plugin.evaluators import question_latency as question_latency
from nat_dynamo_plugin.evaluators import ttft as ttft
from nat_dynamo_plugin.evaluators import worker_stickiness as worker_stickiness
