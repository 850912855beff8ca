"""Classifying a large source into one file of results, in several runs and on several machines."""
