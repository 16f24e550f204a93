"""The whole command under faults: test-only entry points around the real one. Production never imports them."""
