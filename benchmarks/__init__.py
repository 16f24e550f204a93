"""`make bench`: what Pagemill costs and what it saves, as ratios of two sides measured in one run on one machine.

Project tooling, above every package; nothing in a package may import it. A benchmark answers with figures; it never
passes or fails a test.
"""
