"""Check that the notebook has the script's code, and outputs: `check_notebook.py SCRIPT NOTEBOOK`."""

import json
import re
import sys
from pathlib import Path

script, notebook = map(Path, sys.argv[1:])
cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
code = ["".join(cell["source"]).strip() for cell in cells if cell["cell_type"] == "code"]
parts = re.split(r"^# %%(.*)$", script.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
expected = [
    text.strip() for kind, text in zip(parts[::2], parts[1::2], strict=True) if "markdown" not in kind
]
assert code == expected, f"{notebook} is not made from {script}: run `make notebook`"
outputs = [output for cell in cells for output in cell.get("outputs", ())]
assert len(outputs) >= 5 and not any(output["output_type"] == "error" for output in outputs), outputs
print(f"{notebook.name}: {len(code)} code cells as in {script.name}, {len(outputs)} outputs")
