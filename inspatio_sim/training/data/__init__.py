"""Where training clips come from: made-up rooms, and folders in the layouts of published datasets."""
