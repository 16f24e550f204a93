"""Typed fakes that produce a fault on demand. Production never imports them."""
