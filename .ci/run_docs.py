"""Run the code blocks of the documentation: `run_docs.py FOLDER PAGE...`.

Blocks of a page run in order, Python blocks in one namespace per page. They run in FOLDER, which gets links
to everything in the repository. An HTML comment right above a block makes an exception:

    <!-- needs the Hub -->      not run
    <!-- run by .ci/run -->     not run here, since .ci/run runs this very command
    <!-- takes too long -->     not run
    <!-- file: NAME -->         written to the file NAME in FOLDER
"""

import json
import os
import re
import subprocess
import sys
import traceback
from pathlib import Path

from crosstask.data.briefs import generate

ROOT = Path(__file__).resolve().parents[1]
MARK = r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?"
BLOCK = re.compile(MARK + r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
MARKS = ("needs the Hub", "run by .ci/run", "takes too long")
RUN = ("bash", "python")
SHOWN = ("text", "bibtex", "")  # output, not code


def link_repository(folder):
    """Link everything in the repository into `folder`, and write `rows.jsonl`, the user's own rows."""
    for path in ROOT.iterdir():
        if path.name not in (".git", "build"):
            (folder / path.name).symlink_to(path)
    rows = [row for row in generate("fuse", "train", 40) if row["question"]]
    columns = ("passage", "question", "answer", "summary", "answerable")
    lines = (json.dumps({name: row[name] for name in columns}) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")


def run_page(page, folder):
    """Run the blocks of a page; return how many were run, and exit with the block that fails."""
    namespace, count = {"__name__": "__main__"}, 0
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        mark, language, code = block["mark"], block["language"], block["code"]
        line = text[: block.start("code")].count("\n") + 1
        where = f"{page.relative_to(ROOT)}, line {line}"
        if mark in MARKS or language in SHOWN:
            continue
        if mark and mark.startswith("file: "):
            (folder / mark.removeprefix("file: ")).write_text(code, encoding="utf-8")
            continue
        if language not in RUN:
            sys.exit(
                f"{where}: a {language} block is neither run nor marked; expected one of {MARKS} or a file"
            )
        print(f"--- {where}", flush=True)
        count += 1
        if language == "bash":
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", code], cwd=folder)
            if done.returncode:
                sys.exit(f"{where}: ended with {done.returncode}")
            continue
        try:
            exec(compile(code, where, "exec"), namespace)
        except Exception:
            traceback.print_exc()
            sys.exit(f"{where}: failed")
    return count


def main():
    folder, *pages = map(Path, sys.argv[1:])
    folder, pages = folder.resolve(), [page.resolve() for page in pages]
    folder.mkdir(parents=True)
    link_repository(folder)
    os.chdir(folder)
    counts = {page.name: run_page(page, folder) for page in pages}
    print(f"{sum(counts.values())} blocks of {len(pages)} pages ran: {counts}")


if __name__ == "__main__":
    main()
