"""Several servers behind one classifier: which one takes the next call, and which ones are left out."""
