"""Does visual token pruning keep a multimodal LLM's confidence trustworthy?"""

__version__ = "0.1.0"
