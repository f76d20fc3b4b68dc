"""Actions go in; camera poses come out. Axes, units and pixel centres are stated in `camera`."""
