"""Jobs on a cluster: the one door to its API server, what is asked of it, and what its answers mean for people."""
