"""A clip whose camera moves goes in; structure from motion (pycolmap) and dense depth come out."""
