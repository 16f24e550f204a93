"""Classifying the pages of books: sequence models over finished visual and text rows.

Layer: `worker.embed`. Labels and windows are plain Python; torch is imported in the modules that need it.
"""
