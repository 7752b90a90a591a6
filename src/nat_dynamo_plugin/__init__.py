"""Make agents built with NVIDIA NeMo Agent Toolkit run well on NVIDIA Dynamo."""
