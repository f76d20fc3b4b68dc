"""Writes the tables of README.md anew from the node's own: python ros2_ws/tables.py."""

import re
from pathlib import Path

from inspatio_ros import parameters, topics

README = Path(__file__).with_name("README.md")


def with_tables(text: str) -> str:
    """The README's text, with what stands between its marks replaced."""
    for mark, table in (("parameters", parameters.markdown_table()), ("topics", topics.markdown_tables())):
        found = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end of {mark} -->)", re.DOTALL)
        assert found.search(text), f"no mark {mark!r} in the README"
        text = found.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)
    return text


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
