"""The one place that knows the input format: question and passage in, tensors out."""

from __future__ import annotations

import json
import os
from typing import Any

from transformers import AutoTokenizer, BatchEncoding
from transformers.processing_utils import ProcessorMixin

from .configuration_crosstask import IGNORE_INDEX, PROMPT

QUESTION_TOKENIZER = "question_tokenizer"
# Equal keys are one key: 0 also stands for 0.0 and False, 1 for 1.0 and True.
_LABELS = {None: IGNORE_INDEX, "": IGNORE_INDEX, IGNORE_INDEX: IGNORE_INDEX}
_LABELS |= {0: 0, "0": 0, "no": 0, 1: 1, "1": 1, "yes": 1}


class QuestionTooLongError(ValueError):
    """A question that leaves no room for its passage. `index` is its place in the batch."""

    def __init__(self, index, length, limit):
        super().__init__(
            f"question {index} takes {length} tokens with the prompt and the special tokens, and "
            f"`max_source_length` is {limit}: no room is left for the passage."
        )
        self.index = index


class CrossTaskProcessor(ProcessorMixin):
    r"""
    Turns questions, passages and summaries into the inputs of [`CrossTaskForConditionalGeneration`].
    The prompted question is the first segment of a pair, the passage the second; only the passage is
    ever truncated, from its end.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            Of the summarizer.
        question_tokenizer (`PreTrainedTokenizerBase`, *optional*):
            Of the question encoder, where that has a vocabulary of its own.
        prompt (`str`, defaults to `"question: {question} passage:"`):
            Template of the first segment.
        max_source_length (`int`, defaults to 1024):
            Limit of the input in tokens, question and special tokens included. The question encoder's
            input is also limited by its tokenizer's `model_max_length`.
    """

    attributes = ["tokenizer"]
    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        tokenizer,
        question_tokenizer=None,
        prompt=PROMPT,
        max_source_length=1024,
        chat_template=None,  # handed in by transformers, for every processor
    ):
        super().__init__(tokenizer, chat_template=chat_template)
        if "{question}" not in prompt:
            raise ValueError(f"`prompt` has to contain {{question}}, got {prompt!r}.")
        self.question_tokenizer = question_tokenizer
        self.prompt = prompt
        self.max_source_length = max_source_length

    @classmethod
    def get_attributes(cls):
        # transformers 5 reads them off the signature and would ask for both tokenizers.
        return list(cls.attributes)

    def __call__(
        self,
        question=None,
        passage=None,
        summary=None,
        answerable=None,
        return_tensors=None,
        padding=None,
        pad_to_multiple_of=None,
    ):
        r"""
        Args:
            question (`str` or `list[str]`, *optional*):
                The question, or one for each passage. Without, the input is the passage alone, as a
                plain summarizer reads it. An empty one is a prompt without a question.
            passage (`str` or `list[str]`):
                The passage, or one for each question. A single text beside a list serves all of it.
            summary (`str` or `list[str]`, *optional*):
                The target; becomes `labels`.
            answerable (`int` or `list[int]`, *optional*):
                1 where the summary carries the answer, 0 where not, `None` or -100 where not labelled.
            return_tensors (`str`, *optional*):
                `"pt"` for tensors, `"np"` for arrays; lists otherwise.
            padding (`bool` or `"longest"`, *optional*):
                Pad to the longest of the batch. Defaults to `True` with `return_tensors`.
            pad_to_multiple_of (`int`, *optional*):
                Pad on, to a multiple of this length.

        Returns:
            `BatchEncoding` with `input_ids` and `attention_mask`; with a question tokenizer also
            `question_input_ids` and `question_attention_mask`; with a summary `labels` (padded with
            -100), with labels `answerable`. Flat lists for a single input without `return_tensors`.

        Raises:
            QuestionTooLongError: where a question leaves no room for its passage.
            TypeError, ValueError: where an argument is of a wrong type, length or value.
        """
        if padding not in (None, False, True, "longest"):
            raise ValueError(f"`padding` has to be True, False or 'longest', got {padding!r}.")
        values = {"question": question, "passage": passage, "summary": summary}
        # An array or tensor, as a dataset or another model may give them.
        values["answerable"] = answerable.tolist() if hasattr(answerable, "tolist") else answerable
        single = not any(isinstance(value, (list, tuple)) for value in values.values())
        columns = _columns(values)
        batch = dict(self._encode(self.tokenizer, self.max_source_length, columns))
        if self.question_tokenizer is not None:
            encoded = self._encode(*self._question_reader(), columns)
            batch |= {f"question_{name}": value for name, value in encoded.items()}
        if columns["summary"] is not None:
            batch["labels"] = self.tokenizer(text_target=columns["summary"])["input_ids"]
        if columns["answerable"] is not None:
            batch["answerable"] = _to_labels(columns["answerable"])
        if padding if padding is not None else return_tensors is not None:
            rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
            return self.pad(rows, return_tensors, pad_to_multiple_of)
        if single and return_tensors is None:
            batch = {name: values[0] for name, values in batch.items()}
        return BatchEncoding(batch, tensor_type=return_tensors)

    def pad(self, rows, return_tensors="pt", pad_to_multiple_of=None):
        r"""
        Pad encoded inputs to the longest of the batch: on the tokenizer's padding side, and labels on
        the right with -100.

        Args:
            rows (`list[dict]`):
                One mapping an input, as [`~CrossTaskProcessor.__call__`] makes them without padding.
            return_tensors (`str`, *optional*, defaults to `"pt"`):
                `"pt"` for tensors, `"np"` for arrays; lists otherwise.
            pad_to_multiple_of (`int`, *optional*):
                Pad on, to a multiple of this length.

        Raises:
            ValueError: where there are no rows, or rows of unlike keys.
        """
        if not rows:
            raise ValueError("There are no rows to pad.")
        for index, row in enumerate(rows):
            if row.keys() != rows[0].keys():
                raise ValueError(f"Row {index} has the keys {sorted(row)}, the first {sorted(rows[0])}.")
        settings = {"return_tensors": return_tensors, "pad_to_multiple_of": pad_to_multiple_of}
        names = ("input_ids", "attention_mask")
        batch = dict(self.tokenizer.pad([{n: row[n] for n in names} for row in rows], **settings))
        if "question_input_ids" in rows[0]:
            questions = [{n: row[f"question_{n}"] for n in names} for row in rows]
            padded = self.question_tokenizer.pad(questions, **settings)
            batch |= {f"question_{name}": value for name, value in padded.items()}
        if "labels" in rows[0]:
            length = max(len(row["labels"]) for row in rows)
            length += -length % (pad_to_multiple_of or 1)
            batch["labels"] = [
                [*row["labels"], *[IGNORE_INDEX] * (length - len(row["labels"]))] for row in rows
            ]
        if "answerable" in rows[0]:
            batch["answerable"] = [row["answerable"] for row in rows]
        return BatchEncoding(batch, tensor_type=return_tensors)

    def passage_offsets(self, question, passage):
        r"""
        Where in the passage the tokens stand that the question encoder reads.

        Args:
            question (`str`), passage (`str`):
                As in [`~CrossTaskProcessor.__call__`].

        Returns:
            A list with one entry a token, in the order of what the question encoder reads, without padding:
            `(start, end)` in characters of the passage, or `None` for the prompt's and special tokens.

        Raises:
            NotImplementedError: where the tokenizer is a slow one, which keeps no offsets.
        """
        columns = {"question": [question], "passage": [passage]}
        encoded = self._encode(*self._question_reader(), columns, return_offsets_mapping=True)
        return [
            span if sequence == 1 else None
            for sequence, span in zip(encoded.sequence_ids(0), encoded["offset_mapping"][0], strict=True)
        ]

    def _question_reader(self):
        """The tokenizer of what the question encoder reads, and its limit."""
        if self.question_tokenizer is None:
            return self.tokenizer, self.max_source_length
        return self.question_tokenizer, min(self.max_source_length, self.question_tokenizer.model_max_length)

    def _encode(self, tokenizer, limit, columns, **more):
        settings = {"return_token_type_ids": False, "return_attention_mask": True, **more}
        if columns["question"] is None:
            return tokenizer(columns["passage"], truncation=True, max_length=limit, **settings)
        # Not `format`: other braces in a prompt, of JSON say, are text.
        prompts = [self.prompt.replace("{question}", question) for question in columns["question"]]
        special = tokenizer.num_special_tokens_to_add(pair=True)
        for index, ids in enumerate(tokenizer(prompts, add_special_tokens=False)["input_ids"]):
            if len(ids) + special >= limit:
                raise QuestionTooLongError(index, len(ids) + special, limit)
        return tokenizer(prompts, columns["passage"], truncation="only_second", max_length=limit, **settings)

    @property
    def model_input_names(self):
        names = ["input_ids", "attention_mask"]
        if self.question_tokenizer is not None:
            names += [f"question_{name}" for name in names]
        return names

    def to_dict(self, **kwargs):
        # The tokenizer is a folder beside the others' files, not a part of the JSON.
        question_tokenizer, self.question_tokenizer = self.question_tokenizer, None
        try:
            output = super().to_dict(**kwargs)
        finally:
            self.question_tokenizer = question_tokenizer
        output.pop(QUESTION_TOKENIZER, None)
        if question_tokenizer is not None:
            output[QUESTION_TOKENIZER] = QUESTION_TOKENIZER
        return output

    def save_pretrained(self, save_directory, push_to_hub=False, **kwargs):
        """Save tokenizers, settings and this code; arguments as of any processor."""
        os.makedirs(save_directory, exist_ok=True)
        if self.question_tokenizer is not None:
            folder = os.path.join(save_directory, QUESTION_TOKENIZER)
            self.question_tokenizer.save_pretrained(folder)
            _make_portable(folder)
        files = super().save_pretrained(save_directory, **({} if push_to_hub else kwargs))
        _make_portable(save_directory)
        if push_to_hub:  # apart, for the base class leaves out files of folders that were there before
            repo_id = kwargs.pop("repo_id", os.path.basename(os.path.normpath(save_directory)))
            self.push_to_hub(repo_id, **kwargs)
        return files

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """Load from a folder or Hub id; arguments as of any processor."""
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        if isinstance(processor.question_tokenizer, str):
            kwargs.pop("trust_remote_code", None)
            folder = os.path.join(kwargs.pop("subfolder", ""), processor.question_tokenizer)
            processor.question_tokenizer = AutoTokenizer.from_pretrained(
                pretrained_model_name_or_path, subfolder=folder, **kwargs
            )
        return processor


def _columns(values):
    """Every value as a list of one length, or None; a single text beside lists is repeated."""
    lengths = {name: len(value) for name, value in values.items() if isinstance(value, (list, tuple))}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The lists have to be of one length, got {lengths}.")
    if values["passage"] is None:
        raise ValueError("`passage` is needed.")
    count = next(iter(lengths.values()), 1)
    if count == 0:
        raise ValueError("The lists are empty: at least one input is needed.")
    columns = {}
    for name, value in values.items():
        column = list(value) if name in lengths else [value] * count
        columns[name] = None if value is None else column
        for index, text in enumerate(column if name != "answerable" and value is not None else ()):
            if not isinstance(text, str):
                raise TypeError(
                    f"`{name}` has to be a string or a list of strings, got "
                    f"{type(text).__name__} at position {index}."
                )
    return columns


def _to_labels(values):
    labels = []
    for index, value in enumerate(values):
        try:
            labels.append(to_label(value))
        except ValueError as error:
            raise ValueError(f"`answerable` at position {index}: {error}.") from None
    return labels


def to_label(value: Any) -> int:
    r"""
    Convert a label of answerability to the coding that models train on.

    Args:
        value (`int`, `float`, `bool`, `str` or `None`):
            0, 0.0, `False`, `"0"` or `"no"` if the summary lacks the answer; 1, 1.0, `True`, `"1"` or
            `"yes"` if it carries the answer; `None`, `""` or -100 if the row is not labeled.

    Returns:
        `int`: 0, 1 or `IGNORE_INDEX` (-100).

    Raises:
        ValueError: if `value` is anything else.
    """
    try:
        return _LABELS[value.item() if hasattr(value, "item") else value]
    except (KeyError, TypeError, ValueError):  # TypeError: not hashable; ValueError: an array of several
        raise ValueError(
            f"expected a label of 0, 1, 'no' or 'yes' (None, '' or -100 if not labeled), got {value!r:.80}"
        ) from None


def _make_portable(folder):
    """Write the tokenizer's configuration so that transformers 4 and 5 both read it."""
    path = os.path.join(folder, "tokenizer_config.json")
    with open(path, encoding="utf-8") as file:
        settings = json.load(file)
    # transformers 5 calls its generic fast tokenizer by a name that 4 does not know, and stores a list
    # of extra special tokens where 4 expects `additional_special_tokens`.
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("extra_special_tokens"), list):
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        json.dump(settings, file, indent=2, ensure_ascii=False)
    os.replace(path + ".tmp", path)
