"""The inference engine: from questions and kept visual tokens to option logits."""
