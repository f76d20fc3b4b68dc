"""Scenario files (YAML) go in: a world, steps, expectations. Verdicts come out, as JUnit XML and a page with images.

`schema.load_scenario` reads one into `model`, `runner.run_scenario` plays it, `report` writes the results.
"""

SUFFIX = ".scenario.yaml"
