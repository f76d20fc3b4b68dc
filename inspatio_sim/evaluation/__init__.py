"""How good generated frames are, against frames that are known to be right: fidelity, statistics, camera, drift."""
