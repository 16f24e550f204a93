"""Deciding what a job needs next: pure, from what is observed to a plan of actions and a status."""
