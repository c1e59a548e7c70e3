"""Write the tables and the plot of the fusion study from its results.

    python benchmarks/fusion_report.py

Writes `fusion_study.md` and `fusion_study.svg` beside `ranking.jsonl`, `fusion_study.jsonl`,
`contrastive.jsonl` and `guided_decoding.jsonl` in `benchmarks/results/`. Means are over seeds, with the 95%
interval of Student's t.

`contrastive.jsonl` was written by fusion_study.py with other parts, `--seeds 0 1 2 3 4 5 6 7 8 9` and
`--systems summarizer "gated, whole passages" "gated, whole passages, contrastive 0.3"`. `ranking.jsonl` has
the systems as recipes train them today; the models of the other files did not learn their judgment from wrong
values and own summaries. Results with different parts are not compared.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev

import matplotlib
from fusion_study import SYSTEMS
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
# Two-sided 95% quantiles of Student's t by degrees of freedom.
STUDENT_T = dict(enumerate((12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262), start=1))
ALONE, RANDOM = "summarizer", "gated, random question encoder"
LIGHT = "gated, alpha 0.1, rate 3e-3"
MAIN = ("fine-tuned", "classifier", "gated", RANDOM, LIGHT)
Runs = dict[tuple[str, int], dict[int, dict]]  # results by seed, by system and number of rows
DIFFERENCE = "The difference is to the system without the last variation, for the seeds that both have."
# The lines of the plot: system, decoding, label and style.
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


def main() -> None:
    runs, contrastive = read_runs("fusion_study.jsonl"), read_runs("contrastive.jsonl")
    sizes = list_sizes(runs)
    parts = make_sections(read_runs("ranking.jsonl"), runs, contrastive)
    if guided := list(read_results("guided_decoding.jsonl")):
        parts += ["## Guided decoding, step by step", format_guidance(guided)]
    (RESULTS / "fusion_study.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    draw(runs, sizes, runs[ALONE, 0][0])


def list_sizes(runs: Runs) -> list[int]:
    return sorted({rows for system, rows in runs if system in MAIN})


def make_sections(ranking: Runs, runs: Runs, contrastive: Runs) -> list[str]:
    return [
        "# Comparison of the fusions",
        "On briefs, with the rows and protocol of `benchmarks/fusion_study.py`. "
        + describe_machines(runs | ranking),
        "Answer recall is the share of the answers' words in the summaries; ROUGE-L is computed on the rows "
        "whose reference contains the answer. Decoding is greedy unless stated otherwise.",
        "## By number of joint rows (N)",
        format_sizes(ranking),
        "ranked: `num_beams=4, num_return_sequences=4, answerability_rerank=1.0`; oracle: the candidate with "
        "the highest answer recall; gap closed: (ranked - 4 beams) / (oracle - 4 beams), of means; zeroed: "
        "the states of the question encoder are replaced by zeros in the test. Learning rates: "
        + describe_rates(runs)
        + ".",
        "## By number of joint rows, without negatives",
        "With other parts. The judgment learned from references only.",
        format_sizes(runs),
        "## Variants without negatives, N = 200",
        format_variants(runs, sorted(name for name, rows in runs if rows == 200 and name not in MAIN)),
        "alpha is `answerability_weight`, by default 1. Warm start: only the fusion is trained in the first "
        "third of the steps. Contrastive, whole passages: see below. " + DIFFERENCE,
        "## Contrastive loss among the rows, N = 200",
        "With parts from a second training; the summarizer alone has an answer recall of "
        f"{contrastive[ALONE, 0][0]['test']['answer_recall']:.3f}. " + describe_machines(contrastive),
        format_variants(contrastive, [name for name, rows in contrastive if rows == 200]),
        "Contrastive: the loss has another term, -log sigmoid(log p(summary | question) - log p(summary | "
        "another question about the passage)), times the weight. The other questions are all that the "
        "generator has for the passage, or with whole passages those in the N rows; their summaries are not "
        "used. " + DIFFERENCE,
    ]


def format_sizes(runs: Runs) -> str:
    """Return the table of the main systems for each N."""
    head = ["N", "seeds", "system", "answer recall", "4 beams", "ranked", "oracle", "gap closed", "zeroed"]
    rows = [["0", "", "summarizer alone", *make_cells(runs[ALONE, 0])[1:]]]
    for size in list_sizes(runs):
        for name in MAIN:
            if (name, size) in runs:
                count, *cells = make_cells(runs[name, size])
                rows.append([f"{size:,}", count, name, *cells])
    return format_table([*head, "ROUGE-L", "AUROC", "ECE"], rows)


def read_runs(name: str) -> Runs:
    """Return the results by system and number of rows, then by seed; systems in the order of the study."""
    runs = defaultdict(dict)
    for result in sorted(read_results(name), key=lambda result: list(SYSTEMS).index(result["system"])):
        if result.get("own_summary_steps", 4) == 4:  # the default of recipes
            runs[result["system"], result["rows"]][result["seed"]] = result
    return runs


def read_results(name: str) -> Iterator[dict]:
    path = RESULTS / name
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return map(json.loads, lines)


def describe_machines(runs: Runs) -> str:
    machines = {result["machine"] for seeds in runs.values() for result in seeds.values()}
    return "Measured on " + "; ".join(sorted(machines)) + "."


def describe_rates(runs: Runs) -> str:
    """Return the learning rates of the main systems for each N."""
    rates = {
        system: ", ".join(
            f"{result['learning rate']:g} ({rows:,})"
            for (name, rows), seeds in sorted(runs.items(), key=lambda run: run[0][1])
            if name == system
            for result in list(seeds.values())[:1]
        )
        for system in MAIN[:3]
    }
    return "; ".join(f"{system} {text}" for system, text in rates.items())


def make_cells(seeds: dict[int, dict]) -> list[str]:
    """Return the cells of a system for one N."""
    metrics = [(mode, "answer_recall") for mode in ("test", "beams", "reranked", "oracle", "zeroed")]
    metrics += [("test", "rougeL"), ("judgment", "auroc"), ("judgment", "ece")]
    cells = [
        format_mean([result[mode][metric] for result in seeds.values() if mode in result])
        for mode, metric in metrics
    ]
    return [str(len(seeds)), *cells[:4], format_gap(seeds), *cells[4:]]


def format_gap(seeds: dict[int, dict]) -> str:
    """Return the share of the gap between the best beam and the oracle's choice that ranking closes."""
    results = [result for result in seeds.values() if "oracle" in result]
    if not results:
        return ""
    beams, ranked, oracle = (
        fmean(result[mode]["answer_recall"] for result in results) for mode in ("beams", "reranked", "oracle")
    )
    return f"{(ranked - beams) / (oracle - beams):.0%}"


def compute_interval(values: list[float]) -> float | None:
    """Return half of the 95% interval of the mean, or None for a single value."""
    if len(values) < 2:
        return None
    return STUDENT_T[len(values) - 1] * stdev(values) / len(values) ** 0.5


def format_mean(values: list[float], sign: str = "") -> str:
    if not values:
        return ""
    half = compute_interval(values)
    return f"{fmean(values):{sign}.3f}" + ("" if half is None else f" ± {half:.3f}")


def format_table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def format_variants(runs: Runs, names: list[str]) -> str:
    rows = []
    for name in names:
        seeds = runs[name, 200]
        base = runs.get((name.rpartition(", ")[0], 200), {})
        differences = [
            [
                result[mode]["answer_recall"] - base[seed][mode]["answer_recall"]
                for seed, result in seeds.items()
                if mode in result and seed in base
            ]
            for mode in ("test", "reranked")
        ]
        difference, ranked_difference = (format_mean(values, "+") for values in differences)
        count, recall, _, ranked, _, _, _, *other_cells = make_cells(seeds)
        rows.append([name, count, recall, difference, ranked, ranked_difference, *other_cells])
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
    return format_table(head, rows)


def format_guidance(results: list[dict]) -> str:
    rows = []
    groups = defaultdict(list)
    for result in results:
        groups[result["system"], result["rows"], result["head"]].append(result)
    for (system, count, head), group in groups.items():
        for decoding in (name for name in group[0] if isinstance(group[0][name], dict)):
            metrics = [result[decoding] for result in group]
            rows.append(
                [
                    system,
                    f"{count:,}",
                    head,
                    decoding,
                    str(len(group)),
                    format_mean([values["answer_recall"] for values in metrics]),
                    format_mean([values["rougeL"] for values in metrics]),
                    f"{fmean(values['time'] for values in metrics):.2f}",
                ]
            )
    text = format_table(
        ["system", "N", "head trained on", "decoding", "seeds", "answer recall", "ROUGE-L", "time / beams"],
        rows,
    )
    return "By `benchmarks/guided_decoding.py`. The number behind a decoding is its weight.\n\n" + text


def draw(runs: Runs, sizes: list[int], alone: dict) -> None:
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for system, mode, label, style in LINES:
        x = [rows for rows in sizes if (system, rows) in runs]
        if not x:
            continue
        recalls = [
            [result[mode]["answer_recall"] for result in runs[system, rows].values() if mode in result]
            for rows in x
        ]
        axes.errorbar(
            x,
            [fmean(values) for values in recalls],
            yerr=[compute_interval(values) or 0.0 for values in recalls],
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
    # No date and fixed ids, so that the same results give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "fusion_study"}):
        figure.savefig(RESULTS / "fusion_study.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
