"""An equirectangular panorama goes in; a static Reference comes out, whose views look in all directions."""
