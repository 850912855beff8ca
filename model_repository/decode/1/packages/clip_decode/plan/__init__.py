"""Which frames a request selects, and which packets must be decoded for them."""
