"""Object stores: one contract (`store`), its backends, and how a URI becomes one of them (`open`)."""
