"""
A small site as a project would write it, fully annotated. `test_types` runs a type checker on it; nothing
imports it. Each line of `mistakes.py` that ends in `# error: CODE` must be reported with that code.
"""
