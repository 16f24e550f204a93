"""How everything here is measured and written down: interleaved pairs, whole process trees, the machine beside them."""
