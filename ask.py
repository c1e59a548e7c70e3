"""Answer questions about passages with a trained model: `crosstask-ask MODEL [ROWS] [-o OUT.jsonl]`.

    crosstask-ask runs/mine rows.csv -o answers.jsonl
    cat rows.jsonl | crosstask-ask user/name - > answers.jsonl
    crosstask-ask user/name --question "Who paid?" --passage report.txt

The rows need the columns `passage` and `question`. Each row gives one line of JSON, in their order: `id`,
`question`, `summary` and `answerability`, or `id` and `error`; `row_hash` tells whether the row was edited
since. If OUT.jsonl exists, the rows that it has are skipped, so that a command that was stopped goes on. The
model and the options that wrote it are recorded beside it, in OUT.jsonl.settings.json: others do not go on
with it, and neither do edited rows.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import yaml

from crosstask.processing_crosstask import LONG_PASSAGES
from crosstask.utils.errors import ConfigError, DataError, first_line
from crosstask.utils.interrupts import end_on_signal

if TYPE_CHECKING:
    from crosstask import QuestionSummarizationPipeline

Answer = dict[str, Any]
_SETTINGS = ("model", "adapter", "min_answerability", "evidence", "long_passages")
_MODEL_PATTERNS = ("*.safetensors", "*config.json")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `argv` defaults to the command line. A user's mistake ends it with one sentence."""
    # Intermixed: by default, argparse would end the positional arguments at the first option.
    options = _make_parser().parse_intermixed_args(argv)
    try:
        with end_on_signal("crosstask-ask"):
            if (options.rows is None) == (options.question is None):
                raise ConfigError("expected either a file of rows, or --question with --passage")
            if options.question is None:
                answer_rows(options)
            else:
                answer_question(options)
    except (ConfigError, DataError) as error:
        # Readers name the keys of recipes.
        sentence = re.sub("`data_(columns|delimiter|encoding)`", r"--\1", str(error))
        sys.exit(f"crosstask-ask: error: {sentence}")


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crosstask-ask", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="Hub id or folder of a cross-task model, or the folder of its run")
    parser.add_argument(
        "rows", nargs="?", help="file, pattern, folder or Hub id of rows; - for JSONL on stdin"
    )
    parser.add_argument("-o", "--output", help="file of the answers; by default they are printed")
    parser.add_argument("--question", help="a single question, instead of rows")
    parser.add_argument("--passage", help="text file that the question is about; - for stdin")
    parser.add_argument("--columns", type=yaml.safe_load, help="{passage: text}: columns of the rows' file")
    parser.add_argument("--delimiter", help="character between two fields of a CSV file")
    parser.add_argument("--encoding", help="encoding of a text file that is not in UTF-8, such as cp1252")
    parser.add_argument("--adapter", help="Hub id or folder of an adapter to use")
    parser.add_argument(
        "--batch_size", type=_read_count, default=16, help="questions per batch (default: %(default)s)"
    )
    parser.add_argument(
        "--min_answerability",
        type=_read_threshold,
        metavar="NUMBER",
        help="below it, `answered` is false; auto for the model's own threshold",
    )
    parser.add_argument("--evidence", action="store_true", help="add the sentences that a summary rests on")
    parser.add_argument(
        "--long_passages",
        choices=LONG_PASSAGES,
        help="what to read of a passage that is too long: its segments, the parts that fit best to the "
        "question, or its beginning (default: segments if the model was trained with them, otherwise select)",
    )
    return parser


def _read_threshold(word: str) -> float | str:
    try:
        return word if word == "auto" else float(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1 or auto, got {word!r}") from None


def _read_count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of 1 or more, got {word!r}")
    return int(word)


def answer_question(options: argparse.Namespace) -> None:
    """Print the summary for a single question about the text in a file."""
    if options.passage is None:
        raise ConfigError("--passage: expected a text file beside --question")
    passage = _read_passage(options)
    try:
        result = load_pipeline(options)(question=options.question, passage=passage)
    except ValueError as error:  # an empty question or passage, or one that is too long
        raise ConfigError(first_line(error)) from error
    print(result["summary"])
    for name in ("answerability", "answered", "evidence"):
        if result.get(name) is not None:
            print(f"{name}: {result[name]}")


def _read_passage(options: argparse.Namespace) -> str:
    from crosstask.data.readers.opening import read_text

    try:
        path = "/dev/stdin" if options.passage == "-" else options.passage
        text = read_text(Path(path).expanduser(), options.encoding)
    except UnicodeError as error:
        raise ConfigError(
            f"--passage: {options.passage} is not in {options.encoding or 'UTF-8'}, expected --encoding with "
            "the encoding of the file, such as cp1252"
        ) from error
    except (LookupError, DataError) as error:
        raise ConfigError(f"--passage: {first_line(error)}") from error
    return text.replace("\r\n", "\n")


def answer_rows(options: argparse.Namespace) -> None:
    """Write one line per row; rows that the output has already are skipped."""
    from tqdm.auto import tqdm

    from crosstask.utils.files import write_text
    from crosstask.utils.output_folder import lock_file

    records = iter_records(options)
    with ExitStack() as stack:
        output: TextIO = sys.stdout
        if options.output is not None:
            path = Path(options.output).expanduser()
            stack.enter_context(lock_file(path))
            settings = _get_settings(options)
            _check_settings(path, settings)
            output, count = _open_output(path, records)
            stack.enter_context(output)
            write_text(_get_record_path(path), json.dumps(settings, indent=1) + "\n")
            if count:
                print(f"crosstask-ask: {options.output} has {count} answers; going on", file=sys.stderr)
        is_hidden = options.output is None and not sys.stderr.isatty()
        rows = errors = 0
        for answer in tqdm(iter_answers(records, options), unit=" rows", disable=is_hidden, mininterval=1):
            rows, errors = rows + 1, errors + ("error" in answer)
            print(json.dumps(answer, ensure_ascii=False), file=output, flush=True)
    if errors:
        print(
            f"crosstask-ask: {errors} of {rows} rows have an `error` in place of a summary", file=sys.stderr
        )


def iter_records(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield `id`, `passage` and `question` of rows, `id` and `error` of what is no row, and `row_hash`."""
    from crosstask.data.readers import iter_rows
    from crosstask.data.readers.corpus import Part
    from crosstask.data.readers.formats import read_jsonl
    from crosstask.data.readers.rows import Lenience, make_rows

    if not isinstance(options.columns, dict | None):
        raise ConfigError(f"--columns: expected {{passage: text}}, got {options.columns!r}")
    rejects: deque[dict[str, Any]] = deque()
    if options.rows == "-":
        part = Part("stdin", read_jsonl(Path("/dev/stdin"), options.encoding), "stdin", "stdin")
        rows = (row for _, row in make_rows(part, "ask", options.columns or {}, rejects.append, Lenience()))
    else:
        reading = {name: getattr(options, name) for name in ("columns", "delimiter", "encoding")}
        rows = (row for *_, row in iter_rows(options.rows, "ask", **reading, reject=rejects.append))
    for row in rows:
        while rejects:
            yield _make_error(rejects.popleft())
        yield _add_hash({name: row[name] for name in ("id", "passage", "question")})
    while rejects:
        yield _make_error(rejects.popleft())


def _make_error(reject: dict[str, Any]) -> Answer:
    place = next(f"{unit} {reject[unit]}" for unit in ("line", "row", "index") if unit in reject)
    return _add_hash({"id": reject["id"], "error": f"{place}: {reject['reason']}"})


def _add_hash(record: dict[str, Any]) -> dict[str, Any]:
    from crosstask.data.schema import hash_texts

    # Not of the error: it names the line, and its wording may change between versions.
    texts = (record["id"], record.get("question", ""), record.get("passage", ""))
    return record | {"row_hash": f"{hash_texts(*texts):016x}"}


def iter_answers(records: Iterator[dict[str, Any]], options: argparse.Namespace) -> Iterator[Answer]:
    """Yield the answer to each record, in their order. The model is loaded with the first record."""
    waiting: deque[dict[str, Any]] = deque()  # records that were read, but not answered

    def read_inputs() -> Iterator[dict[str, Any]]:
        for record in records:
            waiting.append(record)
            if "error" not in record:
                yield {name: record[name] for name in ("question", "passage")}

    pipe = load_pipeline(options)
    for result in pipe(read_inputs(), batch_size=options.batch_size, on_error="return"):
        while "error" in waiting[0]:
            yield waiting.popleft()
        record = waiting.popleft()
        if "error" in result:  # without its number in the stream, which a command that goes on starts anew
            result = {"error": re.sub(r"^input \d+: ", "", result["error"])}
        yield {"id": record["id"], **result, "row_hash": record["row_hash"]}
    yield from waiting


def load_pipeline(options: argparse.Namespace) -> QuestionSummarizationPipeline:
    """Load the model, its adapter if there is one, and the options of the answers."""
    from transformers import pipeline

    from crosstask import PIPELINE_TASK
    from crosstask.utils.hub_names import find_checkpoint
    from crosstask.utils.pretrained import LOAD_ERRORS

    settings = {"return_evidence": options.evidence or None}
    settings |= {name: getattr(options, name) for name in ("min_answerability", "long_passages")}
    settings = {name: value for name, value in settings.items() if value is not None}
    name = find_checkpoint(options.model)
    try:
        pipe = pipeline(PIPELINE_TASK, model=name, **settings)
    except (*LOAD_ERRORS, KeyError) as error:
        raise ConfigError(f"{options.model}: {first_line(error)}") from error
    if options.adapter is None:
        return pipe
    try:
        pipe.model.load_adapter(find_checkpoint(options.adapter), adapter_name="asked")
    except ConfigError as error:
        raise ConfigError(f"--adapter: {error}") from error
    except (*LOAD_ERRORS, KeyError) as error:
        raise ConfigError(f"--adapter: {options.adapter}: {first_line(error)}") from error
    return pipeline(PIPELINE_TASK, model=pipe.model, processor=pipe.processor, adapter="asked", **settings)


def _get_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the answers depend on, besides the rows: the options, and the files of local models."""
    from crosstask.utils.files import hash_file
    from crosstask.utils.hub_names import find_checkpoint

    settings = {name: getattr(options, name) for name in _SETTINGS}
    for name in ("model", "adapter"):
        folder = Path(find_checkpoint(settings[name])) if settings[name] else None
        if folder is not None and folder.is_dir():  # it may be moved, and may have other weights tomorrow
            files = sorted(file for pattern in _MODEL_PATTERNS for file in folder.glob(pattern))
            settings[name] = {file.name: hash_file(file) for file in files}
    return settings


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Raise an error if another model or other options wrote what an output has already."""
    record = _get_record_path(path)
    if path.is_dir():
        raise ConfigError(f"-o: {path} is a folder, expected a file such as {path / 'answers.jsonl'}")
    if not path.exists() or not path.stat().st_size:
        return
    if not record.exists():
        raise ConfigError(
            f"-o: {path} exists, but no {record.name} that says which model wrote it; expected a new file"
        )
    try:
        written = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"-o: {record} cannot be read: {first_line(error)}") from error
    if changed := [name for name in settings if settings[name] != written.get(name)]:
        raise ConfigError(
            f"-o: {path} was written with another {' and another '.join(changed)}, expected the same, or a "
            "new file"
        )


def _get_record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.settings.json")


def _open_output(path: Path, records: Iterator[dict[str, Any]]) -> tuple[TextIO, int]:
    """Open the output for appending, after the lines that it has, and skip their records."""
    count, end = 0, 0
    if path.exists():
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):  # a process was killed while it wrote this line
                    break
                record = next(records, None)
                if record is None or not _is_answer(line, record):
                    raise ConfigError(
                        f"-o: line {count + 1} of {path} is no answer to row {record and record['id']!r} as "
                        "it is now, expected the output of the same rows, or a new file"
                    )
                count, end = count + 1, end + len(line)
        with open(path, "rb+") as file:
            file.truncate(end)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a", encoding="utf-8"), count
    except OSError as error:
        raise ConfigError(f"-o: {path} cannot be written to ({error.strerror})") from error


def _is_answer(line: bytes, record: Mapping[str, Any]) -> bool:
    """
    Return whether a line of the output answers a record: it has its id and its hash. Lines of earlier
    versions have no hash, but the question, unless there is an error.
    """
    try:
        answer = json.loads(line)
        if "row_hash" in answer:
            return answer["id"] == record["id"] and answer["row_hash"] == record["row_hash"]
        return answer["id"] == record["id"] and answer.get("question") in (None, record.get("question"))
    except (AttributeError, KeyError, TypeError, ValueError):  # the line of another program
        return False


if __name__ == "__main__":
    main()
