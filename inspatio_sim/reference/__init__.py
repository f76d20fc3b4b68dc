"""A clip with geometry, on a timeline: `Reference`, its folder on disk, its cache and its clock."""
