"""Rosbags go in and out without a ROS installation: sessions of a world, and recordings of real robots.

`files` reads and writes them (MCAP, sqlite3), `session` records and replays a walk, `export` makes a clip.
"""
