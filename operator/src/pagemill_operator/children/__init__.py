"""The manifests of child Jobs: pure builders, one file for each concern."""
