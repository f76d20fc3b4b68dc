"""Files go out whole or not at all; folders are checked before anything is written into them."""
