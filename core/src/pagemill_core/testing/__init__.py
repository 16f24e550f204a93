"""Fakes and servers that tests lean on: typed, tested, and out of reach of production code."""
