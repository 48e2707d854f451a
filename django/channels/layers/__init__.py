"""Channel layers: what carries the messages. The contract is in base.py; each other module is a layer."""
