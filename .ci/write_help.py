"""Write what the commands print for --help, for the package that starts them: `write_help.py [--check]`."""

import io
import os
import sys
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path

import crosstask_commands

FOLDER = Path(crosstask_commands.__file__).parent
os.environ["COLUMNS"] = "100"  # the width of the lines

for name, module in crosstask_commands.MODULES.items():
    with redirect_stdout(io.StringIO()) as text, suppress(SystemExit):
        import_module(module).main(["--help"])
    path = FOLDER / f"{name}.txt"
    if "--check" not in sys.argv:
        path.write_text(text.getvalue(), encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != text.getvalue():
        sys.exit(f"{path.name} is not what {name} --help prints: run python .ci/write_help.py")
