"""Write the JSON Schemas of all notice types: `python -m app.domain.notices docs/schemas`."""

import sys
from pathlib import Path

from app.domain.notices.json_schema import render

for name, text in render().items():
    Path(sys.argv[1], name).write_text(text, encoding="utf-8")
