"""One module a row of the table: what is compared with what, how often, and which figure is held against the target."""
