"""Stages that come with Pagemill and that a job names by `use`, like one of its user's own.

Layer: `worker.stages`; each module holds one stage.
"""
