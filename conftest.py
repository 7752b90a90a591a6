"""What holds for all tests: none of them fails because the machine is slow."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# By default Hypothesis fails a test whose examples take over 200 ms each, or whose data take long to make.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
