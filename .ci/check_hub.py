"""What is published on a Hub is what others get: `check_hub.py RUN WORK EXPECTED PYTHON...`.

RUN is the quickstart's; WORK a folder; EXPECTED what load_check.py saved; each PYTHON one of an environment
without this library. The Hub is that of the tests, on this machine; everything else is as it would be: the
commands, HTTP, and processes that share nothing beside it.
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

run, work, expected, *pythons = sys.argv[1:]
run, work = Path(run).resolve(), Path(work).resolve()
alice, bob, _ = TOKENS
log = []


def command(token, *words, python=None, cwd=work, **variables):
    """Run one as somebody; returns what it printed."""
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
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)
    log.append(done.stdout + done.stderr)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))} failed:\n{log[-1][-4000:]}")
    return done.stdout


def publish(token, kind, source, repo, *flags):
    print(command(token, "crosstask-publish", kind, str(source), "--repo", repo, *flags).strip())


with LoopbackHub() as hub:
    publish(alice, "evaluation", run, "alice/briefs-evaluation", "--license", "apache-2.0")
    facts = ["--license", "apache-2.0", "--language", "en", "--evaluation", "alice/briefs-evaluation"]
    publish(alice, "model", run, "alice/quickstart", *facts)
    publish(alice, "metric", "answer_recall", "alice/answer_recall")

    # A data set of bob's own rows, made from the model card's point of view by somebody else.
    rows = [
        {
            "id": str(n),
            "passage": f"Mayor Ruiz opened bridge {n} in May.",
            "question": "Who opened the bridge?",
        }
        | {"answer": "Mayor Ruiz", "summary": f"Mayor Ruiz opened bridge {n}.", "answerable": 1}
        for n in range(80)
    ]
    (work / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (work / "build.yaml").write_text("data: rows.jsonl\noutput_dir: set\nteacher: none\njudge: none\n")
    command(bob, "crosstask-build", "build.yaml")
    publish(bob, "dataset", work / "set", "bob/bridges", "--license", "cc-by-4.0")

    # He fine-tunes what alice published, whole and as an adapter, and publishes both.
    recipe = "model: alice/quickstart\ndata: bob/bridges\nmax_steps: 20\nper_device_train_batch_size: 8\n"
    recipe += "generation_max_length: 24\nlearning_rate: 0.001\nlicense: apache-2.0\nlanguage: [en]\n"
    (work / "whole.yaml").write_text(
        recipe + "output_dir: whole\npush_to_hub: true\nhub_model_id: bob/whole\n"
    )
    (work / "lora.yaml").write_text(recipe + "output_dir: lora\nlora_r: 8\n")
    for name in ("whole", "lora"):
        shutil.rmtree(work / name, ignore_errors=True)
        command(bob, str(HERE.parent / "train.py"), f"{name}.yaml", python=sys.executable)
    publish(bob, "adapter", work / "lora", "bob/adapter")

    # And two adapters of one base, fused, which is kept once.
    part = shutil.copytree(run / "summarizer", work / "part", dirs_exist_ok=True)
    recipe = recipe.replace("model: alice/quickstart\n", "").replace("max_steps: 20", "max_steps: 4")
    recipe += f"summarizer: {part}\nquestion_answerer: {part}\nshare_base: true\nfusion_num_heads: 4\n"
    (work / "shared.yaml").write_text(recipe + "output_dir: shared\nlora_r: 4\n")
    shutil.rmtree(work / "shared", ignore_errors=True)
    command(bob, str(HERE.parent / "train.py"), "shared.yaml", python=sys.executable)
    publish(bob, "model", work / "shared", "bob/shared", "--license", "apache-2.0", "--language", "en")
    save = [str(HERE / "load_check.py"), "save", str(work / "shared" / "crosstask")]
    command("", *save, str(work / "shared.safetensors"), python=sys.executable)

    for number, python in enumerate(pythons):
        reader = {"python": python, "HF_HOME": str(work / f"reader_{number}")}
        print(
            command("", str(HERE / "load_check.py"), "load", "alice/quickstart", expected, **reader).strip()
        )
        shared = [str(HERE / "load_check.py"), "load", "bob/shared", str(work / "shared.safetensors")]
        print(command("", *shared, **reader).strip())
        print(command("", str(HERE / "read_hub.py"), str(work / "lora" / "crosstask"), **reader).strip())
        # What is in the cache needs no Hub.
        offline = reader | {"HF_HUB_OFFLINE": "1"}
        command("", str(HERE / "load_check.py"), "load", "alice/quickstart", expected, **offline)

    texts = log + [path.read_text(errors="replace") for path in work.rglob("*.json*")]
    for (kind, repo), stored in hub.store.repos.items():
        for path, file in stored.commit_of("main").files.items():
            content = file.content.decode(errors="replace")
            texts.append(content)
            named = [
                name for name in (str(work), str(run), str(Path.home())) if len(name) > 5 and name in content
            ]
            assert not named, f"{kind} {repo}: {path} names {named}"
    assert not any(token in text for text in texts for token in TOKENS), "a token is told"
    private = re.compile(r"optimizer|scheduler\.pt|training_args|events\.out|rng_state|\.lock")
    held = [path for stored in hub.store.repos.values() for path in stored.commit_of("main").files]
    assert not [path for path in held if private.search(path)], held
    for (_, repo), stored in hub.store.repos.items():
        commits = len(list(stored.history("main")))
        assert commits == 2, f"{repo} has {commits} commits, expected the first and one"
print(f"{len(hub.store.repos)} repositories, {len(held)} files, one commit each")
