"""Frames of videos, for pages that show them. Needs the package av, in a process of its own."""
