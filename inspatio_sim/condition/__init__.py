"""Reference, map and poses go in; renders with their provenance come out, and the `Observation` made with them."""
