"""Files and folders are written whole or not at all; folders are checked before anything is written."""
