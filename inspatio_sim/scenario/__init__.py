"""Scenario files (YAML) go in: a world, steps, expectations. Verdicts come out: JUnit XML, and a page with pictures.

`schema.load_scenario` reads one into `model`, `runner.run_scenario` plays it, `report` writes what came of it.
"""

SUFFIX = ".scenario.yaml"
