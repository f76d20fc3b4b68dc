"""Rosbags go in and out without a ROS installation: sessions of a world, and what real robots recorded.

`files` reads and writes them (MCAP, sqlite3), `session` records a walk and replays it, `export` makes a clip of one.
"""
