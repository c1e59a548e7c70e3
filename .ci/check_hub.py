"""Publish on a loopback Hub and read it with other environments: `check_hub.py RUN WORK EXPECTED PYTHON...`.

RUN is the folder of the quickstart's run, WORK an empty folder, EXPECTED the file that load_check.py has
saved. Each PYTHON belongs to an environment without this library. The Hub is that of the tests; the
commands, HTTP and the separation of the processes are real.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
from loopback_hub import TOKENS, LoopbackHub  # noqa: E402

ALICE, BOB, _ = TOKENS
RECIPE = (
    "model: alice/quickstart\ndata: bob/bridges\nmax_steps: 20\nper_device_train_batch_size: 8\n"
    "generation_max_length: 24\nlearning_rate: 0.001\nlicense: apache-2.0\nlanguage: [en]\n"
)
PRIVATE_FILES = re.compile(r"optimizer|scheduler\.pt|training_args|events\.out|rng_state|\.lock")

run, work, expected, *pythons = sys.argv[1:]
run, work = Path(run).resolve(), Path(work).resolve()
log = []


def call(token, *words, python=None, **variables):
    """Run a command as the owner of a token, who may be nobody (""); return what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(work / f"home_{token}"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        **variables,
    }
    if token:
        environment["HF_TOKEN"] = token
    words = [python, *words] if python else words
    process = subprocess.run(words, cwd=work, env=environment, capture_output=True, text=True)
    log.append(process.stdout + process.stderr)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, words))} failed:\n{log[-1][-4000:]}")
    return process.stdout


def publish(token, kind, source, repo_id, *flags):
    print(call(token, "crosstask-publish", kind, str(source), "--repo", repo_id, *flags).strip())


def train(name, recipe):
    """Train as Bob, in the folder `name`."""
    (work / f"{name}.yaml").write_text(recipe + f"output_dir: {name}\n")
    shutil.rmtree(work / name, ignore_errors=True)
    call(BOB, str(HERE.parent / "train.py"), f"{name}.yaml", python=sys.executable)


def publish_alice():
    publish(ALICE, "evaluation", run, "alice/briefs-evaluation", "--license", "apache-2.0")
    metadata = ["--license", "apache-2.0", "--language", "en", "--evaluation", "alice/briefs-evaluation"]
    publish(ALICE, "model", run, "alice/quickstart", *metadata)
    publish(ALICE, "metric", "answer_recall", "alice/answer_recall")


def publish_bob():
    """Build a data set, train Alice's model on it in full and with LoRA, fuse two adapters of one base."""
    rows = [
        {
            "id": str(number),
            "passage": f"Mayor Ruiz opened bridge {number} in May.",
            "question": "Who opened the bridge?",
            "answer": "Mayor Ruiz",
            "summary": f"Mayor Ruiz opened bridge {number}.",
            "answerable": 1,
        }
        for number in range(80)
    ]
    (work / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (work / "build.yaml").write_text("data: rows.jsonl\noutput_dir: set\nteacher: none\njudge: none\n")
    call(BOB, "crosstask-build", "build.yaml")
    publish(BOB, "dataset", work / "set", "bob/bridges", "--license", "cc-by-4.0")

    train("whole", RECIPE + "push_to_hub: true\nhub_model_id: bob/whole\n")
    train("lora", RECIPE + "lora_r: 8\n")
    publish(BOB, "adapter", work / "lora", "bob/adapter")

    part = shutil.copytree(run / "summarizer", work / "part", dirs_exist_ok=True)
    recipe = RECIPE.replace("model: alice/quickstart\n", "").replace("max_steps: 20", "max_steps: 4")
    recipe += (
        f"summarizer: {part}\nquestion_answerer: {part}\nshare_base: true\nfusion_num_heads: 4\nlora_r: 4\n"
    )
    train("shared", recipe)
    publish(BOB, "model", work / "shared", "bob/shared", "--license", "apache-2.0", "--language", "en")
    save = [str(HERE / "load_check.py"), "save", str(work / "shared" / "crosstask")]
    call("", *save, str(work / "shared.safetensors"), python=sys.executable)


def read_everything(number, python):
    """Load and use everything in another environment, with an empty cache."""
    reader = {"python": python, "HF_HOME": str(work / f"reader_{number}")}
    load = [str(HERE / "load_check.py"), "load"]
    print(call("", *load, "alice/quickstart", expected, **reader).strip())
    print(call("", *load, "bob/shared", str(work / "shared.safetensors"), **reader).strip())
    print(call("", str(HERE / "read_hub.py"), str(work / "lora" / "crosstask"), **reader).strip())
    call("", *load, "alice/quickstart", expected, **reader, HF_HUB_OFFLINE="1")  # from the cache


def check_contents():
    """Check that each repository has one commit beside the first, and no private files, names or tokens."""
    texts = log + [path.read_text(errors="replace") for path in work.rglob("*.json*")]
    folders = [name for name in (str(work), str(run), str(Path.home())) if len(name) > 5]
    count = 0
    for (repo_type, repo_id), repo in hub.store.repos.items():
        for path, file in repo.get_commit("main").files.items():
            content = file.content.decode(errors="replace")
            texts.append(content)
            named = [folder for folder in folders if folder in content]
            assert not named, f"{repo_type} {repo_id}: {path} names {named}"
            assert not PRIVATE_FILES.search(path), f"{repo_type} {repo_id}: {path} is private"
            count += 1
        commits = len(list(repo.history("main")))
        assert commits == 2, f"{repo_id} has {commits} commits, expected the initial one and one more"
    assert not any(token in text for text in texts for token in TOKENS), "a token was printed or stored"
    print(f"{len(hub.store.repos)} repositories, {count} files, one commit each")


with LoopbackHub() as hub:
    publish_alice()
    publish_bob()
    for number, python in enumerate(pythons):
        read_everything(number, python)
    check_contents()
