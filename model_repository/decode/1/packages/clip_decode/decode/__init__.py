"""Decoding: the protocol of a decoder, its implementations, and the sparse and the full decode that use them."""
