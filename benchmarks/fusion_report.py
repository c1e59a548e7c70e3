"""The tables and the plot of the fusion study, from the lines that its runs left.

    python benchmarks/fusion_report.py

Writes `fusion_study.md` and `fusion_study.svg` beside `fusion_study.jsonl`, `contrastive.jsonl` and
`guided_decoding.jsonl` in `benchmarks/results/`. Means are over seeds, with the 95% interval of Student's t.

`contrastive.jsonl` is of the same program, with other parts, `--seeds 0 1 2 3 4 5 6 7 8 9` and
`--systems summarizer "gated, whole passages" "gated, whole passages, contrastive 0.3"`; lines of different
parts are not compared.
"""

import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev

import matplotlib
from fusion_study import SYSTEMS
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
# Two-sided, 95%, by degrees of freedom.
STUDENT = dict(enumerate((12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262), start=1))
ALONE, RANDOM = "summarizer", "gated, random question encoder"
LIGHT = "gated, alpha 0.1, rate 3e-3"
MAIN = ("fine-tuned", "classifier", "gated", RANDOM, LIGHT)
DIFFERENCE = (
    "The difference is to the system without the last variation, seed by seed, over the seeds of both."
)
# What is drawn: system, decoding, label and style.
LINES = (
    ("gated", "reranked", "gated, best of 4 beams by answerability too", {"color": "#0b6e4f", "marker": "o"}),
    ("gated", "test", "gated", {"color": "#0b6e4f", "marker": "o", "linestyle": "--"}),
    (LIGHT, "test", "gated, answerability_weight 0.1", {"color": "#0b6e4f", "marker": "*", "markersize": 11}),
    (RANDOM, "test", "gated, question encoder not trained", {"color": "#7fb069", "marker": "v"}),
    ("classifier", "reranked", "classifier, best of 4 beams …", {"color": "#b5541c", "marker": "s"}),
    ("classifier", "test", "classifier", {"color": "#b5541c", "marker": "s", "linestyle": "--"}),
    (
        "fine-tuned",
        "test",
        "summarizer fine-tuned, question in its prompt",
        {"color": "#33508c", "marker": "D"},
    ),
)


def main():
    runs, contrastive = runs_of("fusion_study.jsonl"), runs_of("contrastive.jsonl")
    sizes = sorted({rows for system, rows in runs if system in MAIN})
    alone = runs[ALONE, 0][0]
    parts = [
        "# What each fusion brings",
        "Briefs; parts, rows and protocol as `benchmarks/fusion_study.py` says. " + machines(runs),
        "Answer recall is the share of the answers' words in the summaries, ROUGE-L of the rows whose "
        "reference has the answer; greedy decoding where not said otherwise.",
        "## By the number of joint rows",
        table(
            [
                "N",
                "seeds",
                "system",
                "answer recall",
                "4 beams",
                "ranked",
                "zeroed",
                "ROUGE-L",
                "AUROC",
                "ECE",
            ],
            [
                ["0", "", "summarizer alone", *row_of({0: alone})[1:]],
                *(
                    [f"{rows:,}", str(len(runs[name, rows])), name, *row_of(runs[name, rows])[1:]]
                    for rows in sizes
                    for name in MAIN
                    if (name, rows) in runs
                ),
            ],
        ),
        "ranked: `num_beams=4, num_return_sequences=4, answerability_rerank=1.0`; zeroed: the question "
        "encoder's states are zeros when tested. Learning rates are the best of "
        "1e-4, 3e-4, 1e-3 and 3e-3 on validation rows, where no other is named: " + rates(runs) + ".",
        "## Variants, N = 200",
        variants(runs, sorted(name for name, rows in runs if rows == 200 and name not in MAIN)),
        "alpha is `answerability_weight`, 1 where not said. Warm start: the fusion alone in the first third "
        "of the steps. Contrastive, whole passages: see below. " + DIFFERENCE,
        "## Contrastive loss among the rows, N = 200",
        "From a second training of the parts, whose summarizer alone has an answer recall of "
        f"{contrastive[ALONE, 0][0]['test']['answer_recall']:.3f}. " + machines(contrastive),
        variants(contrastive, [name for name, rows in contrastive if rows == 200]),
        "Contrastive: the loss has -log sigmoid(log p(summary | question) - log p(summary | another question "
        "on the passage)) too, times the weight; the other questions, not their summaries, are all that the "
        "generator has on these passages, with whole passages those of the N rows alone. " + DIFFERENCE,
    ]
    if guided := list(read("guided_decoding.jsonl")):
        parts += ["## Guided decoding, step by step", guidance(guided)]
    (RESULTS / "fusion_study.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    draw(runs, sizes, alone)


def runs_of(name):
    """Lines by system, number of rows and seed; systems in the study's order."""
    runs = defaultdict(dict)
    for line in sorted(read(name), key=lambda line: list(SYSTEMS).index(line["system"])):
        runs[line["system"], line["rows"]][line["seed"]] = line
    return runs


def read(name):
    path = RESULTS / name
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return map(json.loads, lines)


def machines(runs):
    found = {line["machine"] for seeds in runs.values() for line in seeds.values()}
    return "Made on " + "; ".join(sorted(found)) + "."


def rates(runs):
    """What was chosen for each system and N."""
    chosen = {
        system: ", ".join(
            f"{line['learning rate']:g} ({rows:,})"
            for (name, rows), seeds in sorted(runs.items(), key=lambda run: run[0][1])
            if name == system
            for line in list(seeds.values())[:1]
        )
        for system in MAIN[:3]
    }
    return "; ".join(f"{system} {found}" for system, found in chosen.items())


def row_of(seeds):
    """The cells of a system at one N."""
    lines = seeds.values()
    places = [(kind, "answer_recall") for kind in ("test", "beams", "reranked", "zeroed")]
    places += [("test", "rougeL"), ("judgement", "auroc"), ("judgement", "ece")]
    return [
        str(len(seeds)),
        *(cell([line[kind][name] for line in lines if kind in line]) for kind, name in places),
    ]


def interval(values):
    """Half of the 95% interval of the mean; None of a single value."""
    if len(values) < 2:
        return None
    return STUDENT[len(values) - 1] * stdev(values) / len(values) ** 0.5


def cell(values, sign=""):
    if not values:
        return ""
    half = interval(values)
    return f"{fmean(values):{sign}.3f}" + ("" if half is None else f" ± {half:.3f}")


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def variants(runs, names):
    rows = []
    for name in names:
        seeds = runs[name, 200]
        base = runs.get((name.rpartition(", ")[0], 200), {})
        differences = [
            [
                line[kind]["answer_recall"] - base[seed][kind]["answer_recall"]
                for seed, line in seeds.items()
                if kind in line and seed in base
            ]
            for kind in ("test", "reranked")
        ]
        figures = row_of(seeds)
        recall, ranked, *others = figures[1], figures[3], *figures[5:]
        rows.append(
            [name, figures[0], recall, cell(differences[0], "+"), ranked, cell(differences[1], "+"), *others]
        )
    head = [
        "system",
        "seeds",
        "answer recall",
        "difference",
        "ranked",
        "difference",
        "ROUGE-L",
        "AUROC",
        "ECE",
    ]
    return table(head, rows)


def guidance(lines):
    rows = []
    groups = defaultdict(list)
    for line in lines:
        groups[line["system"], line["rows"], line["head"]].append(line)
    for (system, count, head), found in groups.items():
        for kind in (name for name in found[0] if isinstance(found[0][name], dict)):
            rows.append(
                [
                    system,
                    f"{count:,}",
                    head,
                    kind,
                    str(len(found)),
                    cell([line[kind]["answer_recall"] for line in found]),
                    cell([line[kind]["rougeL"] for line in found]),
                    f"{fmean(line[kind]['time'] for line in found):.2f}",
                ]
            )
    text = table(
        ["system", "N", "head trained on", "decoding", "seeds", "answer recall", "ROUGE-L", "time / beams"],
        rows,
    )
    return "From `benchmarks/guided_decoding.py`; the number is the weight.\n\n" + text


def draw(runs, sizes, alone):
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for system, kind, label, style in LINES:
        at = [rows for rows in sizes if (system, rows) in runs]
        values = [
            [line[kind]["answer_recall"] for line in runs[system, rows].values() if kind in line]
            for rows in at
        ]
        axes.errorbar(
            at,
            [fmean(found) for found in values],
            yerr=[interval(found) or 0.0 for found in values],
            label=label,
            capsize=3,
            **{"markersize": 5, "linewidth": 1.6} | style,
        )
    recall = alone["test"]["answer_recall"]
    axes.axhline(
        recall, color="#777777", linewidth=1.2, linestyle=":", label="summarizer, not trained further"
    )
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{rows:,}" for rows in sizes])
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    axes.set_xlabel("joint rows")
    axes.set_ylabel("answer recall")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    # Without a date and with fixed ids, so that the same figures give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "fusion_study"}):
        figure.savefig(RESULTS / "fusion_study.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
