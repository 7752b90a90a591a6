"""Calls kept with what was asked and answered, so that an agent can be run again on engines without a model."""
