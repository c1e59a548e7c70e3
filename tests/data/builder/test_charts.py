"""Test the charts of a built data set."""

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from crosstask.data.builder.charts import write_charts
from crosstask.data.builder.stats import compute_statistics

RAIN = "It rained for two days and the river rose by a meter"
BRIDGE = "The mayor opened the bridge"


def make_row(passage, question="", answer="", summary="", answerable=None, entailment=None):
    texts = {"passage": passage, "question": question, "answer": answer, "summary": summary}
    return {"id": "1", "source": "test", **texts, "answerable": answerable, "entailment": entailment}


TRAIN = [
    make_row(RAIN, "How long?", "two days", "Two days of rain.", 1, 0.9),
    make_row(RAIN, "How long?", "two days", "It rained.", 0, 0.5),
    make_row(RAIN, "Who sang?", "", "It rained.", 0),
    make_row(BRIDGE, "Who opened the bridge?", "the old mayor", "The mayor did", 1, 1.0),
]
TEST = [make_row(RAIN, "", "", "It rained."), make_row("A b", "", "", "")]


@pytest.fixture
def figures(monkeypatch):
    """Return a list to which each saved figure is appended."""
    saved = []
    savefig = Figure.savefig

    def spy(self, *args, **kwargs):
        saved.append(self)
        return savefig(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", spy)
    return saved


def test_the_same_statistics_give_the_same_bytes(tmp_path, figures):
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        write_charts(compute_statistics({"train": TRAIN, "test": TEST}), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["labels.png", "lengths.png"]
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes()
    assert b"Matplotlib" not in (folder / "lengths.png").read_bytes()
    assert imread(folder / "lengths.png").shape[:2] == (1200, 1500)
    assert imread(folder / "labels.png").shape[:2] == (675, 2250)
    labels, entailment, compression = figures[1].axes
    assert [line.get_label() for line in entailment.lines] == ["threshold 0.5"]
    assert compression.get_xlabel() == "summary words / passage words"
    assert [text.get_text() for text in labels.texts] == ["50%", "", "50%", "", "", "100%"]


def test_a_long_tail_is_cut_off_and_the_panel_says_so(tmp_path, figures):
    rows = [make_row("word " * (10 + number % 7) + str(number)) for number in range(400)] + [
        make_row("word " * 5000)
    ]
    write_charts(compute_statistics({"train": rows}), tmp_path)
    passages = figures[0].axes[0]
    assert passages.get_xlabel() == "length (words); not shown: 1 above, up to 5,000"
    assert passages.get_xlim()[1] < 20


def test_a_panel_without_data_says_so(tmp_path, figures):
    write_charts(compute_statistics({"train": [], "test": [make_row("a b", answerable=0)]}), tmp_path)
    write_charts(compute_statistics({}), tmp_path)
    texts = [axes.texts[0].get_text() for figure in figures for axes in figure.axes if axes.texts]
    assert texts[:6] == ["no questions", "no answers", "no summaries", "100%", "no judged rows"] + [
        "no rows with a summary"
    ]
    assert "no passages" in texts[6:] and "no rows" in texts[6:]


def test_a_split_has_the_same_color_in_a_panel_without_another_split(tmp_path, figures):
    answered = make_row(BRIDGE, "Who?", "the mayor", "The mayor did", 1, 1.0)
    write_charts(compute_statistics({"train": [make_row(RAIN, "Who?")], "test": [answered]}), tmp_path)
    passages, _, answers, _ = figures[0].axes
    assert answers.patches[0].get_edgecolor() == passages.patches[1].get_edgecolor()
