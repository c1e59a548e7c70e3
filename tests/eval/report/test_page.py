import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from urllib.request import urlopen

import pytest

from crosstask.configuration_crosstask import IGNORE_INDEX
from crosstask.eval.report.page import mark_answer, write_html
from crosstask.eval.report.results import Evaluation, SystemResult

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A parsed page: its start tags with attributes, the text by element, and the open elements."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag] = self.texts.get(tag, "") + data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def report(evaluation, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_html(evaluation, path)
    return path


@pytest.fixture(scope="module")
def page(report):
    return Page(report.read_text(encoding="utf-8"))


def test_the_page_has_tables_images_and_twenty_examples(page, evaluation):
    assert page.open == []
    assert len(page.all("table")) == len(page.all("caption")) == 2
    assert len([tag for tag in page.all("article") if tag["class"] == "example"]) == 20
    assert len(page.all("details")) == 21
    images = page.all("img")
    assert len(images) == 4 + 2 + 1  # four metrics, recall against length and reliability, learning curves
    for image in images:
        with urlopen(image["src"]) as file:
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"
        assert len(image["src"]) > 5000 and len(image["alt"]) > 20
    assert "Means: lead-3 0." in images[0]["alt"]
    for name in evaluation.systems:
        assert name in page.texts["thead"] and name in page.texts["h4"]
    assert "entailment: no judge was given" in page.texts["li"]
    assert "crosstask-eval eval.yaml" in page.texts["dd"]


def test_the_table_has_means_intervals_and_p_values(page, evaluation):
    estimate = evaluation.estimates["lead-1"]["answer_recall"]
    assert f"{estimate.mean:.3f}" in page.texts["td"]
    assert f"{estimate.low:.3f} to {estimate.high:.3f}" in page.texts["td"]
    assert f"p = {estimate.p:.3f} *" in page.texts["td"]
    assert f"{estimate.rows} rows" in page.texts["th"] and estimate.rows < len(evaluation.rows)


def test_the_page_loads_nothing(report, page):
    text = report.read_text(encoding="utf-8")
    assert {"script", "link", "iframe", "object", "base"}.isdisjoint(tag for tag, _ in page.tags)
    for _, attributes in page.tags:
        for key in {"src", "href", "srcset", "data", "action"} & set(attributes):
            assert attributes[key].startswith(("data:image/png;base64,", "#"))
    assert "url(" not in text and "@import" not in text
    policy = next(tag["content"] for tag in page.all("meta") if "http-equiv" in tag)
    assert policy.startswith("default-src 'none'")
    assert {"charset": "utf-8"} in page.all("meta")


def test_the_page_is_accessible(page):
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert page.all("html") == [{"lang": "en"}] and page.texts["title"] == "briefs, test"
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(headings, headings[1:], strict=False))
    for _, attributes in page.tags:
        assert attributes.get("aria-labelledby", next(iter(ids))) in ids
    for link in page.all("a"):
        assert link["href"][1:] in ids
    assert all(tag["scope"] in ("row", "col") for tag in page.all("th"))
    for region in page.all("div"):
        if region["class"] == "scroll":
            assert region["tabindex"] == "0" and region["aria-label"]


def test_texts_are_escaped(make_evaluation, tmp_path):
    evaluation = make_evaluation(2, leads=(1,), awkward=True)
    markup = '</style><script>x</script> & "it\'s" {{ 7 * 7 }} $x^'
    evaluation = replace(
        evaluation,
        title=markup,
        notes=[markup],
        settings={"<key>": markup},
        systems={**evaluation.systems, markup: evaluation.systems["lead-1"]},
    )
    write_html(evaluation, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "script" not in dict(page.tags) and page.open == []
    for tag in ("title", "h1", "li", "dd", "th", "h4"):
        assert markup in page.texts[tag]
    assert "<script>alert('&')</script> It is 👩‍🚀 Zoë's | day." in page.texts["details"]
    assert "Who's <i>that</i>? 🤔" in page.texts["h3"] and "Zoë's day 🎉" in page.texts["p"]
    assert "東京タワーは1958年に完成した。" in page.texts["p"]


def test_the_page_is_reproducible_and_does_not_depend_on_the_order_of_rows(make_evaluation, report, tmp_path):
    write_html(make_evaluation(awkward=True), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == report.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.html"]

    evaluation = make_evaluation(awkward=True)
    order = range(len(evaluation.rows) - 1, -1, -1)
    systems = {
        name: replace(
            system,
            summaries=[system.summaries[i] for i in order],
            scores={metric: [values[i] for i in order] for metric, values in system.scores.items()},
            summary_probabilities=system.summary_probabilities
            and [system.summary_probabilities[i] for i in order],
        )
        for name, system in evaluation.systems.items()
    }
    reversed_evaluation = replace(evaluation, rows=[evaluation.rows[i] for i in order], systems=systems)
    write_html(reversed_evaluation, tmp_path / "reversed.html")
    assert (tmp_path / "reversed.html").read_bytes() == report.read_bytes()


@pytest.mark.parametrize("rows", [0, 1, 1000])
@pytest.mark.parametrize("score", [None, 0.5])
def test_no_rows_one_row_and_many_identical_rows(rows, score, tmp_path):
    row = {"id": "1", "passage": "x", "question": "", "answer": "", "summary": "", "answerable": IGNORE_INDEX}
    system = SystemResult([""] * rows, {"answer_recall": [score] * rows}, {"auroc": None}, [])
    evaluation = Evaluation("edge", [row] * rows, {"a": system, "b": system}, baseline="a")
    write_html(evaluation, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert len(page.all("article")) == min(rows, 20)
    assert len(page.all("img")) == (2 if rows and score is not None else 0)


@pytest.mark.parametrize("value", [None, 0.5])
def test_the_table_of_the_judgment_is_left_out_if_it_is_empty(value, tmp_path):
    row = {"id": "1", "passage": "x", "question": "", "answer": "", "summary": "", "answerable": IGNORE_INDEX}
    system = SystemResult([""], {"answer_recall": [0.5]}, {"auroc": value}, [])
    write_html(Evaluation("edge", [row], {"a": system}, baseline="a"), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ("which summaries carry the answer" in page) is (value is not None)


@pytest.mark.parametrize(
    ("text", "answer", "marked"),
    [
        ("Paris in May, paris.", "Paris", "<mark>Paris</mark> in May, <mark>paris</mark>."),
        ("On May 3 and in May.", "3 May", "On <mark>May 3</mark> and in <mark>May.</mark>"),
        ("Built in 1893.", "3", "Built in 1893."),
        ("は1958年に", "1958年", "は<mark>1958年</mark>に"),
        ("a < b & c", "b & c", "a &lt; <mark>b &amp; c</mark>"),
        ("The end.", "the", "<mark>The</mark> end."),
        ("Nothing the matter", " ", "Nothing the matter"),
        ("", "x", ""),
    ],
)
def test_mark_answer(text, answer, marked):
    assert mark_answer(text, answer) == marked


def test_mark_answer_can_ignore_single_words():
    assert mark_answer("On May 3", "3 May", words=False) == "On May 3"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [500, 1280])
def test_a_browser_shows_the_page_without_horizontal_scrolling(report, width, tmp_path):
    """Add a script to the page that reports what the browser shows."""
    script = """<script>addEventListener("load", () => { document.title = JSON.stringify({
        images: [...document.images].filter((image) => image.complete && image.naturalWidth > 0).length,
        tables: document.querySelectorAll("table").length,
        examples: [...document.querySelectorAll(".example")].filter((row) => row.offsetHeight > 50).length,
        overflow: document.documentElement.scrollWidth - innerWidth}) })</script>"""
    text = report.read_text(encoding="utf-8")
    text = text.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    (tmp_path / "page.html").write_text(text.replace("</body>", f"{script}</body>"), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"]
    command += [(tmp_path / "page.html").as_uri()]
    dump = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout.decode()
    counts = json.loads(re.search("<title>(.*?)</title>", dump)[1])
    assert counts["overflow"] <= 0
    assert counts | {"overflow": 0} == {"images": 7, "tables": 2, "examples": 20, "overflow": 0}
