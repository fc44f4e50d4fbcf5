"""Compare the speed of the engine with the usual ways to evaluate pruned models."""
