"""A preset's name goes in; its sizes, its files or what to do to get them, and weights in its modules come out.

`registry` lists the presets, `find` their files, `identify` tells what a file is, `load` and `convert` read it.
"""
