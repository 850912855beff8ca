"""The commands `classify` and `embed`, and what the client's other commands share with them, such as their options."""
