"""A net for refactorings: records what the project puts out, and says whether it is still the same, to the bit.

    python -m tests.unchanged record FOLDER            before the change
    python -m tests.unchanged check FOLDER             after each step: exit code 0 if all is equal, 1 if not
    python -m tests.unchanged list                     the cases, and what is left out of them and why

`--only PATTERN` (such as `--only 'env-*'`, also several times) chooses cases, `--jobs N` runs N at a time. Recording
some cases again replaces those; this is how a wanted change is taken over. `record` also puts the clips, worlds and
bags that cases begin from into FOLDER/inputs, once: so `check` also says whether old files still open.

Each case runs in a process and a folder of its own, on one thread. Results depend on the processor and on packages:
`check` says if these are not those of the recording. FOLDER has to stay where it is: a recorded bag names its clip. Set
INSPATIO_TEST_DATA for the case `parity`.

The project is reached through `doors` alone, by what its users have: commands, env ids, topics, `World`. When a module
moves, `doors` follows it, and nothing else here does. A new case is a function that returns values by name, and a line
in `cases`.
"""
