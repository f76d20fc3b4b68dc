"""Videos, images and folders go in; a `Clip` comes out: upright frames of one size and rate."""
