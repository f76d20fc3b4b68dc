"""How work runs on this machine: devices, forks, signals. Knows nothing of worlds."""
