"""The package that starts the commands: `--help` at once, and the same as the command's own."""

import os
import subprocess
import sys

import crosstask_commands
import pytest
from test_setup import ROOT
from tiny_run import ENVIRONMENT


def test_the_files_have_what_help_prints():
    script = ROOT / ".ci" / "write_help.py"
    if not script.exists():
        pytest.skip("not a checkout")
    subprocess.run([sys.executable, script, "--check"], check=True, env=ENVIRONMENT, timeout=120)


@pytest.mark.parametrize("name", crosstask_commands.MODULES)
def test_help_imports_nothing_large(name):
    code = "import sys, crosstask_commands; crosstask_commands.main(); assert 'crosstask' not in sys.modules"
    code = f"import sys; sys.argv = ['/bin/{name}', '--help']; {code}"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ, timeout=20
    )
    assert process.stdout.startswith(f"usage: {name} ")


def test_other_arguments_reach_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/bin/crosstask-train", "gone.yaml"])
    with pytest.raises(SystemExit, match="^crosstask-train: error: gone.yaml: cannot be read"):
        crosstask_commands.main()
