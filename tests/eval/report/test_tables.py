import re
from dataclasses import replace

from crosstask.eval.report.results import Evaluation, SystemResult
from crosstask.eval.report.tables import format_evaluation, format_name, format_number, format_table


def test_the_table_marks_the_best_and_significant_values(evaluation):
    text = format_evaluation(evaluation)
    head, rule, baseline, shorter, *_ = text.splitlines()
    assert re.split(r"\s{2,}", head) == ["system", "rouge1", "rougeL", "answer recall", "length"]
    assert "*" not in baseline and baseline.startswith("lead-3") and "±" in baseline
    assert "*" in shorter
    line = next(line for line in text.splitlines() if line.startswith("cross-task"))
    assert line.count(">") == 3  # the references match themselves; a length has no best value
    assert "> the best of its column." in text and "* differs from lead-3 at p < 0.05" in text
    assert "accuracy" in text and "Note: entailment: no judge was given" in text


def test_the_table_fits_a_terminal_and_names_hidden_metrics(evaluation):
    systems = {
        f"a system with a rather long name, number {number}": SystemResult(
            result.summaries,
            {f"{name}_{copy}": values for copy in range(4) for name, values in result.scores.items()},
        )
        for number, result in enumerate(evaluation.systems.values())
    }
    text = format_evaluation(replace(evaluation, systems=systems, baseline=None, notes=[]))
    *table, last = text.splitlines()
    assert max(map(len, table)) <= 120
    assert last.startswith("Not shown for want of room: ") and last.endswith("length 3.")
    assert "differs from" not in text


def test_a_table_has_aligned_columns():
    rows = {
        "lead": {"answer_recall": "0.417", "rouge1": "0.500"},
        "crosstask": {"answer_recall": "1.000", "auroc": ">0.877"},
    }
    assert format_table(rows).split("\n") == [
        "system     answer recall  rouge1   auroc",
        "---------  -------------  ------  ------",
        "lead               0.417   0.500       -",
        "crosstask          1.000       -  >0.877",
    ]


def test_a_table_without_systems_or_metrics():
    assert format_table({}) == "system\n------"
    assert format_table({"lead": {}}).split("\n")[-1] == "lead"


def test_an_undefined_mean_is_shown_as_a_dash():
    row = {"id": "1", "passage": "x", "question": "", "answer": "", "summary": "", "answerable": 0}
    text = format_evaluation(Evaluation("title", [row], {"a": SystemResult([""], {"rouge1": [None]})}))
    assert text.splitlines()[2].split() == ["a", "-"]


def test_names_and_numbers_are_formatted_for_readers():
    assert format_name("answer_recall") == "answer recall"
    assert format_number(0.12345) == "0.123" and format_number(12.34, 1) == "12.3"
    assert format_number(None) == "-"
