"""Workloads of agents to judge admission by: drawn at random from stated ranges, recorded, and from a public trace."""
