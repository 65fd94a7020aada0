"""Layers: what every backbone and head is built from. Nothing here imports anything else of minivit."""
