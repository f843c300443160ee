"""Put the table of a test run into docs/reliability.md.

DISINR_RELIABILITY=table.md make test-slow
python scripts/write_reliability.py table.md
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"
START, END = "<!-- table:start -->", "<!-- table:end -->"


def main() -> None:
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        raise SystemExit(__doc__)
    table = Path(sys.argv[1]).read_text().strip()
    text = PAGE.read_text()
    PAGE.write_text(re.sub(f"{START}.*{END}", lambda _: f"{START}\n{table}\n{END}", text, flags=re.S))


if __name__ == "__main__":
    main()
