"""The vision-language half: models that see, pictures, and what they are asked about them.

May use every room of `studio`, which in turn knows this package by name only: its registries import
a module of `vlm` on first use, and without this folder the rest works.
"""
