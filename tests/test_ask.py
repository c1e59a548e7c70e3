"""The command that answers: files, stdin, a single question, errors in place, and going on."""

import json
import shutil
import signal
import subprocess
import sys

import pytest
from tiny_run import ENVIRONMENT

from crosstask import ask
from crosstask.data.briefs import generate
from crosstask.utils.output_folder import lock_file

ROWS = [{name: row[name] for name in ("id", "passage", "question")} for row in generate("answer", "test", 4)][
    :8
]


@pytest.fixture
def rows(tmp_path):
    """A semicolon CSV with two rows that cannot be answered."""
    path = tmp_path / "rows.csv"
    lines = [f"{row['id']};{row['passage']};{row['question']}" for row in ROWS]
    lines[3:3] = ["x1;;Who?", "x2;It rained.;" + "why " * 300]
    path.write_text("\n".join(["id;passage;question", *lines, "x3;cut"]) + "\n", encoding="utf-8")
    return path


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_are_answered_in_their_order_with_errors_in_place(trained_run, rows, tmp_path, capsys):
    output = tmp_path / "new" / "out.jsonl"
    ask.main([str(trained_run[1]), str(rows), "-o", str(output), "--batch_size", "3", "--evidence"])
    assert f"3 of {len(ROWS) + 3} rows have an `error` in place of a summary" in capsys.readouterr().err
    answers = read_lines(output)
    ids = [row["id"] for row in ROWS]
    assert [answer["id"] for answer in answers] == [*ids[:3], "x1", "x2", *ids[3:], f"rows:{len(ROWS) + 4}"]
    errors = {answer["id"]: answer["error"] for answer in answers if "error" in answer}
    assert errors["x1"] == "line 5: empty passage"
    assert "no room is left" in errors["x2"]
    assert "expected 3 fields, got 2" in errors[f"rows:{len(ROWS) + 4}"]
    assert {"question", "summary", "answerability", "evidence"} < answers[0].keys()
    # The same as the pipeline's, whatever the batches were.
    ask.main([str(trained_run[1] / "crosstask"), str(rows), "-o", str(tmp_path / "b.jsonl"), "--evidence"])
    for first, second in zip(answers, read_lines(tmp_path / "b.jsonl"), strict=True):
        assert first.get("summary") == second.get("summary")


@pytest.mark.parametrize("kept", [0, 1, 4, 5, 11])
def test_a_stopped_command_goes_on(trained_run, rows, tmp_path, kept):
    complete, output = tmp_path / "complete.jsonl", tmp_path / "out.jsonl"
    command = [str(trained_run[1]), str(rows), "-o"]
    ask.main([*command, str(complete), "--batch_size", "1"])
    lines = complete.read_bytes().splitlines(keepends=True)
    output.write_bytes(b"".join(lines[:kept]) + b"".join(lines[kept : kept + 1])[:20])
    (tmp_path / "out.jsonl.settings.json").write_bytes(
        (tmp_path / "complete.jsonl.settings.json").read_bytes()
    )
    ask.main([*command, str(output), "--batch_size", "1"])
    for answer, expected in zip(read_lines(output), read_lines(complete), strict=True):
        if "error" not in expected:
            expected["answerability"] = pytest.approx(expected["answerability"], abs=1e-6)
        assert answer == expected


@pytest.mark.parametrize(
    "before, after",
    [
        (("Ann won.", "Who won?"), ("Ann won.", "Who lost?")),
        (("Ann won.", "Who won?"), ("Bob won.", "Who won?")),
        (("", "Who won?"), ("Ann won.", "Who won?")),  # a row with an error was mended
        (("Ann won.", "Who won?"), ("", "Who won?")),
    ],
)
def test_answers_to_edited_rows_are_not_kept(trained_run, tmp_path, before, after):
    source, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    command = [str(trained_run[1]), str(source), "-o", str(output)]

    def write(passage, question):
        rows = [{"id": "a", "passage": passage, "question": question}]
        rows += [{"id": f"b{n}", "passage": "It rained.", "question": "What?"} for n in range(3)]
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))

    write(*before)
    ask.main(command)
    answers = output.read_text()
    write(*after)
    with pytest.raises(SystemExit, match="line 1 of .* is no answer to row 'a' as it is now, expected"):
        ask.main(command)
    assert output.read_text() == answers
    write(*before)
    ask.main(command)
    assert output.read_text() == answers


def test_lines_without_a_hash_are_compared_by_id_and_question(trained_run, rows, tmp_path):
    output = tmp_path / "out.jsonl"
    command = [str(trained_run[1]), str(rows), "-o", str(output)]
    ask.main(command)
    answers = read_lines(output)
    old = [{name: value for name, value in line.items() if name != "row_hash"} for line in answers[:5]]
    output.write_text("".join(json.dumps(line) + "\n" for line in old))
    ask.main(command)
    assert [line["id"] for line in read_lines(output)] == [line["id"] for line in answers]
    old[0]["question"] = "Who else?"
    output.write_text("".join(json.dumps(line) + "\n" for line in old))
    with pytest.raises(SystemExit, match="line 1 of .* is no answer to row"):
        ask.main(command)


def test_a_file_that_the_command_did_not_write_is_not_changed(trained_run, rows, tmp_path):
    output = tmp_path / "out.jsonl"
    output.write_text('{"id": "other"}\n')
    with pytest.raises(SystemExit, match="^crosstask-ask: error: -o: .* exists, but no out.jsonl.settings"):
        ask.main([str(trained_run[1]), str(rows), "-o", str(output)])
    assert output.read_text() == '{"id": "other"}\n'


def test_rows_come_from_stdin_and_go_to_stdout(trained_run):
    lines = "".join(json.dumps(row) + "\n" for row in ROWS[:2])
    process = subprocess.run(
        [sys.executable, "-m", "crosstask.ask", str(trained_run[1]), "-"],
        input=lines,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    answers = [json.loads(line) for line in process.stdout.splitlines()]
    assert [answer["id"] for answer in answers] == [row["id"] for row in ROWS[:2]]


def test_a_reader_that_has_read_enough_ends_the_command(trained_run, rows):
    command = [sys.executable, "-m", "crosstask.ask", str(trained_run[1]), str(rows), "--batch_size", "1"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        json.loads(process.stdout.readline())
        process.stdout.close()
        error = process.stderr.read()
    assert process.returncode == 128 + signal.SIGPIPE
    assert "Error" not in error


def test_a_passage_comes_from_stdin_in_any_encoding(trained_run):
    command = [sys.executable, "-m", "crosstask.ask", str(trained_run[1]), "--question", "Who?"]
    command += ["--passage", "-"]
    outputs = [
        subprocess.run(
            [*command, *flags], input=b"It cost 3 \x80.", env=ENVIRONMENT, capture_output=True, timeout=120
        )
        for flags in ([], ["--encoding", "cp1252"])
    ]
    assert b"crosstask-ask: error: --passage: - is not in UTF-8, expected --encoding" in outputs[0].stderr
    assert b"answerability: " in outputs[1].stdout


def test_an_output_belongs_to_one_process_at_a_time(trained_run, rows, tmp_path):
    output = tmp_path / "out.jsonl"
    lock = lock_file(output)
    with pytest.raises(SystemExit, match="-o: .*out.jsonl is in use by another process"):
        ask.main([str(trained_run[1]), str(rows), "-o", str(output)])
    lock.release()
    ask.main([str(trained_run[1]), str(rows), "-o", str(output)])
    lock_file(output).release()


def test_a_model_of_another_kind_is_named(trained_run, rows):
    with pytest.raises(SystemExit, match="has to be a cross-task model, got a T5ForConditionalGeneration"):
        ask.main([str(trained_run[1] / "summarizer"), str(rows)])


def test_options_may_stand_between_the_model_and_the_rows(trained_run, rows, tmp_path):
    outputs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    ask.main([str(trained_run[1]), "--evidence", str(rows), "-o", str(outputs[0])])
    ask.main([str(trained_run[1]), str(rows), "-o", str(outputs[1]), "--evidence"])
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


@pytest.mark.parametrize("size", ["0", "-3", "many"])
def test_a_batch_has_a_row(rows, size, capsys):
    with pytest.raises(SystemExit):
        ask.main(["model", str(rows), "--batch_size", size])
    assert f"expected an integer of 1 or more, got '{size}'" in capsys.readouterr().err


def test_a_single_question_about_a_text_file(trained_run, tmp_path, capsys):
    (tmp_path / "text.txt").write_text(ROWS[0]["passage"], encoding="utf-8")
    ask.main(
        [str(trained_run[1]), "--question", ROWS[0]["question"], "--passage", str(tmp_path / "text.txt")]
    )
    summary, probability = capsys.readouterr().out.splitlines()
    assert probability.startswith("answerability: 0.")


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([], "expected either a file of rows, or --question with --passage"),
        (["rows.csv", "--question", "Who?"], "expected either a file of rows, or --question"),
        (["--question", "Who?"], "--passage: expected a text file beside --question"),
        (
            ["--question", "Who?", "--passage", "gone.txt"],
            "--passage: gone.txt: cannot be read: No such file",
        ),
        (["--question", " ", "--passage", "text.txt"], "`question` is empty"),
        (["latin.csv"], "; --encoding names another encoding, such as cp1252"),
        (["rows.csv", "--encoding", "cp125"], "--encoding: expected one that Python knows"),
        (["rows.csv", "--delimiter", ";;"], "--delimiter: expected one character such as ;, got ';;'"),
        (["rows.csv", "--delimiter", ";"], "the header has no --delimiter ';'; it has commas"),
        (["rows.csv", "--columns", "{text: a}"], "--columns: column 'text' is unknown: expected id"),
        (["gone.csv"], "gone.csv: file not found"),
        (["rows.csv", "--columns", "3"], "--columns: expected {passage: text}, got 3"),
        (["rows.csv", "--adapter", "gone"], "--adapter: gone: "),
        (["rows.csv", "--adapter", "./gone"], "--adapter: ./gone: no such folder"),
        (
            ["rows.csv", "-o", "folder"],
            "-o: folder is a folder, expected a file such as folder/answers.jsonl",
        ),
    ],
)
def test_mistakes_are_one_sentence(trained_run, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("passage,question\nIt rained.,What?\n")
    (tmp_path / "text.txt").write_text("It rained.")
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin.csv").write_bytes(b"passage,question\nIt cost 3 \x80.,What?\n")
    with pytest.raises(SystemExit) as error:
        ask.main([str(trained_run[1]), *arguments])
    message = str(error.value)
    assert message.startswith("crosstask-ask: error: ") and sentence in message and "\n" not in message


def test_a_model_that_does_not_exist_is_said_at_once(tmp_path):
    with pytest.raises(SystemExit, match="no such folder, expected a folder or the Hub id of a model"):
        ask.main([str(tmp_path / "gone"), "--question", "Who?", "--passage", __file__])


@pytest.mark.parametrize("change", ["model", "min_answerability", "evidence"])
def test_another_model_and_other_options_do_not_go_on(trained_run, rows, tmp_path, change):
    output, other = tmp_path / "out.jsonl", tmp_path / "other"
    shutil.copytree(trained_run[1] / "crosstask", other)
    command = [str(rows), "-o", str(output)]
    ask.main([str(trained_run[1]), *command])
    complete = output.read_bytes()
    output.write_bytes(b"".join(complete.splitlines(keepends=True)[:4]))
    if change == "model":
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(config | {"answerability_temperature": 2.0}))
    flags = {"min_answerability": ["--min_answerability", "0.5"], "evidence": ["--evidence"]}.get(change, [])
    with pytest.raises(SystemExit, match=f"out.jsonl was written with another {change}, expected the same"):
        ask.main([str(other), *command, *flags])
    assert len(output.read_bytes().splitlines()) == 4
    # The same model in another folder goes on.
    shutil.copy(trained_run[1] / "crosstask" / "config.json", other)
    ask.main([str(other), *command])
    assert [line["id"] for line in read_lines(output)] == [json.loads(x)["id"] for x in complete.splitlines()]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_passage_reads_the_same_in_every_encoding(trained_run, tmp_path, capsys, encoding):
    text = ROWS[0]["passage"] + "\nTrès bien."
    printed = []
    for name, codec in (("plain.txt", "utf-8"), ("other.txt", encoding)):
        (tmp_path / name).write_bytes(
            text.replace("\n", "\r\n" * (name == "other.txt") or "\n").encode(codec)
        )
        flags = ["--encoding", "cp1252"] if codec == "cp1252" else []
        command = [str(trained_run[1]), "--question", "Who?", "--passage", str(tmp_path / name)]
        if flags:
            with pytest.raises(SystemExit, match="other.txt is not in UTF-8, expected --encoding with"):
                ask.main(command)
        ask.main([*command, *flags])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
