"""What can be classified, whatever it is given as: files, folders, addresses, lists of them."""
