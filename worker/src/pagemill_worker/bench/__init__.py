"""What work costs: prices, and the formulas that turn seconds, requests and bytes into money."""
