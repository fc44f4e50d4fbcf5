"""How fast the engine is beside the ways in which pruned models are evaluated today."""
