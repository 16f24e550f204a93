"""What makes and checks charts/pagemill: generated files, the programs that judge the chart, and their schemas.

Layer: project tooling. The tests below tests/chart use it; `python -m charttools` writes the chart's README.md.
"""
