"""Traces that tell of calls without their content, as load: a format a file, and one that tells them apart."""
