"""The input format of the cross-task model: question and passage in, tensors out."""

from __future__ import annotations

import copy
import math
import os
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn
from transformers import AutoTokenizer, BatchEncoding, PretrainedConfig, PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin

from .configuration_crosstask import IGNORE_INDEX, PROMPT, check_segments, get_max_lengths
from .loading_crosstask import find_run_model, make_tokenizer_portable, prepare_tokenizer
from .sentences_crosstask import check_unicode, iter_sentence_spans, join_spans, score_bm25, split_span

QUESTION_TOKENIZER = "question_tokenizer"  # attribute of the processor, and folder of a checkpoint
# The labels of answerability by their spellings, in lower case with "_" for "-" and spaces. They are those of
# YAML, pandas and Excel (an empty cell, and their words for a missing value), and the class names of question
# answering and of natural-language inference, where a summary that does not entail the answer lacks it.
_LABELS = {
    **dict.fromkeys("1 yes y true t wahr ja vrai oui verdadero answerable entailment entailed".split(), 1),
    **dict.fromkeys("0 -0 no n false f falsch nein faux non falso unanswerable not_answerable".split(), 0),
    **dict.fromkeys(("not_entailment", "not_entailed", "neutral", "contradiction"), 0),
    **dict.fromkeys(("", "nan", "na", "n/a", "#n/a", "<na>", "none", "null", "nat"), IGNORE_INDEX),
    str(IGNORE_INDEX): IGNORE_INDEX,
}
LONG_PASSAGES = ("segments", "select", "truncate")  # see `CrossTaskProcessor.encode_long`
TRUNCATED = "_truncated"  # end of the keys that say which inputs were cut


class QuestionTooLongError(ValueError):
    """
    The question at position `index` of a batch leaves no room for its passage: it takes `length` tokens, and
    segments have `stride` more in common.
    """

    def __init__(self, index: int, length: int, limit: int, name: str, stride: int = 0):
        self.index = index
        overlap = f", `stride` is {stride}" if stride else ""
        self.reason = (
            f"takes {length} tokens with the prompt and the special tokens{overlap}, and `{name}` is "
            f"{limit}: no room is left for the passage."
        )
        super().__init__(f"question {index} {self.reason}")


class CrossTaskProcessor(ProcessorMixin):
    r"""
    Turn questions, passages and summaries into the inputs of [`CrossTaskForConditionalGeneration`].

    The prompted question is the first segment of a pair, and the passage the second. Only the passage is
    truncated, at its end, whatever `truncation_side` the tokenizers have: it is set to "right".

    With `max_segments` above 1, a long passage is cut into segments, and each is an input with the question
    in front. [`~CrossTaskProcessor.select_passage`] shortens a long passage for a model without segments.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer of the summarizer.
        question_tokenizer (`PreTrainedTokenizerBase`, *optional*):
            Tokenizer of the question encoder, if that has another vocabulary.
        prompt (`str`, *optional*, defaults to `"question: {question} passage:"`):
            Template of the first segment.
        max_source_length (`int`, *optional*, defaults to 1024):
            Maximum length of the input in tokens, including the question and special tokens.
        max_segments (`int`, *optional*, defaults to 1):
            Maximum number of segments of `max_source_length` tokens that a passage is cut into. Above 1, each
            input is a list of segments, even if it has only one. The rest of the passage is truncated.
        stride (`int`, *optional*, defaults to 0):
            Number of passage tokens that a segment has in common with the one before.
        max_question_length (`int`, *optional*):
            Maximum length of the question encoder's input in tokens, if it is lower. That input is also
            limited by the `model_max_length` of the question tokenizer.
        max_summary_length (`int`, *optional*):
            Maximum length of a target summary in tokens. If `None`, summaries are not truncated.

    Raises:
        ValueError: if a tokenizer has no padding token or cannot cut segments, the prompt has no
            `{question}`, or the numbers do not describe segments.

    [`~CrossTaskProcessor.limit_lengths`] lowers the limits to what a model can read and write.
    """

    attributes = ["tokenizer"]
    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        question_tokenizer: PreTrainedTokenizerBase | None = None,
        prompt: str = PROMPT,
        max_source_length: int = 1024,
        max_segments: int = 1,
        stride: int = 0,
        max_question_length: int | None = None,
        max_summary_length: int | None = None,
        chat_template: str | None = None,  # transformers passes it to every processor
    ):
        super().__init__(tokenizer, chat_template=chat_template)
        prepare_tokenizer(tokenizer, "tokenizer")
        if isinstance(question_tokenizer, PreTrainedTokenizerBase):  # not the name of its folder
            prepare_tokenizer(question_tokenizer, QUESTION_TOKENIZER)
        if "{question}" not in prompt:
            raise ValueError(f"`prompt` has to contain {{question}}, got {prompt!r}.")
        self.question_tokenizer = question_tokenizer
        self.prompt = prompt
        check_segments(max_segments, stride, max_source_length)
        self.max_source_length = max_source_length
        self.max_segments = max_segments
        self.stride = stride
        self.max_question_length = max_question_length
        self.max_summary_length = max_summary_length

    @classmethod
    def from_tasks(
        cls, summarizer: str | os.PathLike, question_answerer: str | os.PathLike, **kwargs: Any
    ) -> CrossTaskProcessor:
        """
        Create the processor of a model that [`~CrossTaskForConditionalGeneration.from_tasks`] composes. Call
        [`~CrossTaskProcessor.limit_lengths`] with the model before you encode long passages for it.

        Args:
            summarizer, question_answerer (`str` or `os.PathLike`): Hub id or folder of each checkpoint.
            kwargs: Arguments of [`CrossTaskProcessor`], such as `max_source_length`.
        """
        tokenizers = [AutoTokenizer.from_pretrained(name) for name in (summarizer, question_answerer)]
        is_shared = tokenizers[0].get_vocab() == tokenizers[1].get_vocab()
        return cls(*tokenizers[: 1 if is_shared else 2], **kwargs)

    def limit_lengths(self, model: nn.Module | PretrainedConfig) -> list[str]:
        """
        Lower the limits to the numbers of positions for which the parts of a model have embeddings.

        Args:
            model (`PreTrainedModel` or `PretrainedConfig`):
                A cross-task model, another sequence-to-sequence model, or the configuration of one.

        Returns:
            `list[str]`: A sentence for each encoder that reads less than `max_source_length` was before.
        """
        source_length, sentences = self.max_source_length, []
        for name, positions in get_max_lengths(model).items():
            limit = getattr(self, name)
            if positions < (math.inf if limit is None else limit):
                setattr(self, name, int(positions))
                if name != "max_summary_length" and positions < source_length:
                    sentences.append(
                        f"`{name}` is {int(positions)}, the number of positions that the model has, and not "
                        f"{source_length}."
                    )
        return sentences

    @classmethod
    def get_attributes(cls) -> list[str]:
        # transformers 5 would read both tokenizers off the signature, and require both.
        return list(cls.attributes)

    def __call__(
        self,
        question: str | Sequence[str] | None = None,
        passage: str | Sequence[str] | None = None,
        summary: str | Sequence[str] | None = None,
        answerable: Any = None,
        return_tensors: str | None = None,
        padding: bool | str | None = None,
        pad_to_multiple_of: int | None = None,
        return_truncated: bool = False,
    ) -> BatchEncoding:
        r"""
        Encode one input or a batch. A single text beside a list is used for every row of the batch.

        Args:
            question (`str` or `list[str]`, *optional*):
                The questions. If `None`, the input is the passage alone, as a plain summarizer reads it. An
                empty question is encoded as a prompt without a question.
            passage (`str` or `list[str]`):
                The passages.
            summary (`str` or `list[str]`, *optional*):
                The target summaries, which become `labels`.
            answerable (`int` or `list[int]`, *optional*):
                1 if the summary carries the answer, 0 if not, `None` or -100 if the row is not labeled. Other
                spellings are converted by [`to_label`].
            return_tensors (`str`, *optional*):
                `"pt"` for tensors or `"np"` for arrays. If `None`, return lists.
            padding (`bool` or `"longest"`, *optional*):
                Whether to pad to the longest row of the batch. Defaults to `True` with `return_tensors`, and
                to `False` without.
            pad_to_multiple_of (`int`, *optional*):
                Pad to a multiple of this length, but not above the limits.
            return_truncated (`bool`, *optional*, defaults to `False`):
                Whether to return which inputs were cut: one boolean per row under `input_ids_truncated`,
                `question_input_ids_truncated` and `labels_truncated`. Not with padding.

        Returns:
            `BatchEncoding` with `input_ids` and `attention_mask`; with a question tokenizer or a lower
            `max_question_length` also `question_input_ids` and `question_attention_mask`; with summaries
            `labels`, padded with -100; with labels of answerability `answerable`. The values of a single
            input without `return_tensors` have no batch dimension. With `max_segments` above 1, ids and
            masks have the shape `(batch_size, segments, length)`.

        Raises:
            QuestionTooLongError: if a question leaves no room for its passage.
            TypeError, ValueError: if an argument has a wrong type, length or value.
        """
        if padding not in (None, False, True, "longest"):
            raise ValueError(f"`padding` has to be True, False or 'longest', got {padding!r}.")
        if hasattr(answerable, "tolist"):  # an array or a tensor
            answerable = answerable.tolist()
        inputs = {"question": question, "passage": passage, "summary": summary, "answerable": answerable}
        is_single = not any(isinstance(value, (list, tuple)) for value in inputs.values())
        columns = _to_columns(inputs)
        batch: dict[str, Any] = {}
        for prefix, (tokenizer, _, limit) in self._get_readers().items():
            encoded, is_truncated = self._encode(tokenizer, limit, columns)
            batch |= {f"{prefix}{key}": ids for key, ids in encoded.items()}
            batch[f"{prefix}input_ids{TRUNCATED}"] = is_truncated
        if columns["summary"] is not None:
            limit, texts = self.max_summary_length, {"text_target": columns["summary"]}
            encoded, is_truncated = _tokenize(
                self.tokenizer, texts, truncation=limit is not None, max_length=limit
            )
            batch |= {"labels": encoded["input_ids"], f"labels{TRUNCATED}": is_truncated}
        if not return_truncated:
            batch = {key: column for key, column in batch.items() if not key.endswith(TRUNCATED)}
        if columns["answerable"] is not None:
            batch["answerable"] = _to_labels(columns["answerable"])
        if padding if padding is not None else return_tensors is not None:
            if return_truncated:
                raise ValueError("`return_truncated` needs `padding=False` and no `return_tensors`.")
            rows = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
            return self.pad(rows, return_tensors, pad_to_multiple_of)
        if is_single and return_tensors is None:
            batch = {name: column[0] for name, column in batch.items()}
        return BatchEncoding(batch, tensor_type=return_tensors)

    def pad(
        self,
        rows: Sequence[Mapping[str, Any]],
        return_tensors: str | None = "pt",
        pad_to_multiple_of: int | None = None,
    ) -> BatchEncoding:
        r"""
        Pad encoded inputs to the longest of the batch.

        Ids are padded on the tokenizer's padding side, labels on the right with -100.

        Args:
            rows (`list[dict]`):
                One mapping per input, as [`~CrossTaskProcessor.__call__`] returns it without padding. Inputs
                get as many segments as the one with the most; those that are added have a mask of zeros.
            return_tensors (`str`, *optional*, defaults to `"pt"`):
                `"pt"` for tensors or `"np"` for arrays. If `None`, return lists.
            pad_to_multiple_of (`int`, *optional*):
                Pad to a multiple of this length, but not above the limits.

        Raises:
            ValueError: if there are no rows, or their keys differ.
        """
        if not rows:
            raise ValueError("There are no rows to pad.")
        for index, row in enumerate(rows):
            if row.keys() != rows[0].keys():
                raise ValueError(f"Row {index} has the keys {sorted(row)}, the first {sorted(rows[0])}.")
        batch: dict[str, Any] = {}
        for prefix, (tokenizer, _, limit) in self._get_readers().items():
            names = {f"{prefix}{name}": name for name in ("input_ids", "attention_mask")}
            if not rows[0].keys() >= names.keys():
                continue
            inputs = [{name: row[key] for key, name in names.items()} for row in rows]
            count = None
            first = inputs[0]["input_ids"][0]  # a segment or a token, in a list, an array or a tensor
            if isinstance(first, (list, tuple)) or getattr(first, "ndim", 0):
                count = max(len(row["input_ids"]) for row in inputs)
                inputs = [segment for row in inputs for segment in _split_segments(row, count)]
            length = _get_padded_length([row["input_ids"] for row in inputs], pad_to_multiple_of, limit)
            padded = tokenizer.pad(
                inputs, padding="max_length", max_length=length, return_tensors=return_tensors
            )
            batch |= {key: _group(padded[name], count) for key, name in names.items()}
        if "labels" in rows[0]:
            limit = math.inf if self.max_summary_length is None else self.max_summary_length
            length = _get_padded_length([row["labels"] for row in rows], pad_to_multiple_of, limit)
            batch["labels"] = [
                [*row["labels"], *[IGNORE_INDEX] * (length - len(row["labels"]))] for row in rows
            ]
        if "answerable" in rows[0]:
            batch["answerable"] = [row["answerable"] for row in rows]
        return BatchEncoding(batch, tensor_type=return_tensors)

    def get_passage_offsets(self, question: str, passage: str) -> list[tuple[int, int] | None]:
        r"""
        Locate the tokens that the question encoder reads in the passage.

        Args:
            question (`str`), passage (`str`):
                As in [`~CrossTaskProcessor.__call__`].

        Returns:
            `list`: One entry per token that the question encoder reads, without padding and one segment after
            the other: `(start, end)` in characters of the passage, or `None` for tokens of the prompt and
            special tokens.

        Raises:
            NotImplementedError: if the tokenizer is a slow one, which keeps no offsets.
        """
        columns = {"question": [question], "passage": [passage]}
        tokenizer, _, limit = list(self._get_readers().values())[-1]  # the question encoder's
        encoded, _ = self._tokenize_inputs(tokenizer, limit, columns, return_offsets_mapping=True)
        # Undo the spaces of `_spell_out`: positions in the text that was encoded.
        pattern = _get_special_pattern(tokenizer)
        matches = enumerate(pattern.finditer(passage) if pattern else ())
        spaces = [match.start() + 1 + index for index, match in matches]
        return [
            tuple(end - bisect_left(spaces, end) for end in offset) if sequence == 1 else None
            for segment, offsets in enumerate(encoded["offset_mapping"][: self.max_segments])
            for sequence, offset in zip(encoded.sequence_ids(segment), offsets, strict=True)
        ]

    def encode_long(
        self,
        question: str,
        passage: str,
        summary: str | None = None,
        long_passages: str | None = None,
        passage_scorer: Callable[[str, list[str]], Sequence[float]] | None = None,
    ) -> tuple[dict[str, Any], list[tuple[int, int]] | None]:
        r"""
        Encode one input whose passage may be longer than the model reads.

        Args:
            question (`str`), passage (`str`), summary (`str`, *optional*):
                As in [`~CrossTaskProcessor.__call__`].
            long_passages (`str`, *optional*):
                What to read of a passage that is too long: `"segments"`, the beginning, up to `max_segments`
                segments; `"select"`, the parts that fit best to the question; `"truncate"`, the beginning,
                up to one segment. Defaults to `"segments"` with `max_segments` above 1, otherwise to
                `"select"`.
            passage_scorer (`Callable`, *optional*):
                See [`~CrossTaskProcessor.select_passage`].

        Returns:
            `tuple[dict, list | None]`: The encoded input, with `return_truncated`, and the result of
            [`~CrossTaskProcessor.select_passage`] if parts were selected. The input then counts as truncated.

        Raises:
            QuestionTooLongError: if the question leaves no room for its passage.
            ValueError: if `long_passages` is another value, or `"segments"` with `max_segments` of 1.
        """
        long_passages = self.check_long_passages(long_passages)
        reader = self
        if long_passages == "truncate" and self.max_segments > 1:
            reader = copy.copy(self)
            reader.max_segments = 1
        encoded = dict(reader(question, passage, summary, return_truncated=True))
        flags = {key: value for key, value in encoded.items() if key.endswith(f"input_ids{TRUNCATED}")}
        if long_passages != "select" or not any(flags.values()):
            return encoded, None
        spans = self.select_passage(question, passage, passage_scorer)
        return dict(self(question, join_spans(passage, spans), summary, return_truncated=True)) | flags, spans

    def check_long_passages(self, long_passages: str | None) -> str:
        """Return what `long_passages` of [`~CrossTaskProcessor.encode_long`] is by default, or check it."""
        if long_passages is None:
            return "segments" if self.max_segments > 1 else "select"
        if long_passages not in LONG_PASSAGES:
            raise ValueError(f"`long_passages` has to be one of {LONG_PASSAGES}, got {long_passages!r:.80}.")
        if long_passages == "segments" and self.max_segments == 1:
            raise ValueError(
                '`long_passages="segments"` needs `max_segments` above 1; this model was not trained with '
                "segments."
            )
        return long_passages

    def describe_limit(self, key: str) -> str:
        """Return the limit of an input or of `labels` in words, such as "4 segments of 256 tokens"."""
        tokens = f"{self.get_limits()[key]} tokens"
        is_cut = key != "labels" and self.max_segments > 1
        return f"{self.max_segments} segments of {tokens}" if is_cut else tokens

    def select_passage(
        self,
        question: str,
        passage: str,
        passage_scorer: Callable[[str, list[str]], Sequence[float]] | None = None,
    ) -> list[tuple[int, int]]:
        r"""
        Select the parts of a passage that fit best to a question, as many as the model can read.

        A part is a sentence, or a piece of one that is longer than a quarter of the input.

        Args:
            question (`str`), passage (`str`):
                As in [`~CrossTaskProcessor.__call__`].
            passage_scorer (`Callable`, *optional*, defaults to [`score_bm25`]):
                Function of the question and the parts that returns a number for each part; those with the
                highest ones are selected. It may compare the vectors of any text encoder.

        Returns:
            `list[tuple[int, int]]`: Start and end of each selected part in characters, in the order of the
            passage. [`join_spans`] joins them to a passage that fits.

        Raises:
            QuestionTooLongError: if the question leaves no room for the passage.
        """
        if errors := self.find_long_questions([question]):
            raise errors[0]
        rooms = []  # of each encoder: what counts tokens, and how many tokens of a passage fit
        for tokenizer, _, limit in self._get_readers().values():
            count = partial(_count_tokens, tokenizer)
            [prompt] = count(self._write_prompts([question]))
            room = limit - prompt - tokenizer.num_special_tokens_to_add(pair=True)
            rooms.append((count, room + (room - self.stride) * (self.max_segments - 1)))
        size, count = max(1, min(room for _, room in rooms) // 4), rooms[0][0]
        sentences = list(iter_sentence_spans(passage))
        lengths = count(passage[start:end] for start, end in sentences)
        spans = [
            piece
            for span, length in zip(sentences, lengths, strict=True)
            for piece in (split_span(passage, span, size, count) if length > size else [span])
        ]
        parts = [passage[start:end] for start, end in spans]
        scores = list((passage_scorer or score_bm25)(question, parts))
        if len(scores) != len(parts):
            raise ValueError(
                f"`passage_scorer` has to return a number for each of {len(parts)} parts, got {len(scores)}."
            )
        if any(map(math.isnan, scores)):  # as the cosine of a vector of zeros; NaN has no place in an order
            raise ValueError("`passage_scorer` has to return numbers, got NaN.")
        counts = list(zip(*(count(f" {part}" for part in parts) for count, _ in rooms), strict=True))
        selected, free = [], [room for _, room in rooms]
        for index in sorted(range(len(parts)), key=lambda index: -scores[index]):
            rest = [room - length for room, length in zip(free, counts[index], strict=True)]
            if min(rest) >= 0:
                selected.append(index)
                free = rest
        return [spans[index] for index in sorted(selected)]

    def find_long_questions(self, questions: Sequence[str]) -> list[QuestionTooLongError]:
        """Return the error for each question that leaves no room for a passage, in order."""
        prompts = self._write_prompts(questions)
        stride = self.stride if self.max_segments > 1 else 0
        errors: dict[int, Any] = {}
        for tokenizer, name, limit in self._get_readers().values():
            special = tokenizer.num_special_tokens_to_add(pair=True)
            encoded, _ = _tokenize(tokenizer, {"text": prompts}, add_special_tokens=False, max_length=None)
            for index, ids in enumerate(encoded["input_ids"]):
                length = len(ids) + special
                if length + stride >= limit:
                    errors.setdefault(index, QuestionTooLongError(index, length, limit, name, stride))
        return [errors[index] for index in sorted(errors)]

    def get_limits(self) -> dict[str, int | None]:
        """Return the maximum length in tokens of each of the inputs and of labels; `None` for no limit."""
        limits = {f"{prefix}input_ids": limit for prefix, (_, _, limit) in self._get_readers().items()}
        return limits | {"labels": self.max_summary_length}

    def _get_readers(self):
        """
        Return for each encoder with an input of its own the tokenizer, and the name and value of its limit,
        by the prefix of the input's keys.
        """
        readers = {"": (self.tokenizer, "max_source_length", self.max_source_length)}
        limits = {"max_source_length": self.max_source_length}
        if self.max_question_length is not None:
            limits["max_question_length"] = self.max_question_length
        if self.question_tokenizer is not None:
            limits["question_tokenizer.model_max_length"] = self.question_tokenizer.model_max_length
        name = min(limits, key=limits.get)
        # An encoder that reads the same tokens as the summarizer has no input of its own.
        if self.question_tokenizer is not None or name != "max_source_length":
            readers["question_"] = (self.question_tokenizer or self.tokenizer, name, limits[name])
        return readers

    def _encode(self, tokenizer, limit, columns):
        """Return the encoded inputs, by the keys of a model, and for each whether it was truncated."""
        encoded, is_truncated = self._tokenize_inputs(tokenizer, limit, columns)
        if self.max_segments == 1:
            return encoded, is_truncated
        rows: list[list[int]] = [[] for _ in columns["passage"]]
        for segment, row in enumerate(encoded["overflow_to_sample_mapping"]):
            rows[row].append(segment)
        names = ("input_ids", "attention_mask")
        batch = {
            name: [[encoded[name][i] for i in segments[: self.max_segments]] for segments in rows]
            for name in names
        }
        return batch, [len(segments) > self.max_segments for segments in rows]

    def _tokenize_inputs(self, tokenizer, limit, columns, **kwargs):
        if self.max_segments > 1:
            if not tokenizer.is_fast:
                raise ValueError(
                    f"`max_segments` above 1 needs a fast tokenizer, got a {type(tokenizer).__name__}; "
                    "convert it to a `tokenizer.json`, or use `max_segments=1`."
                )
            kwargs |= {"return_overflowing_tokens": True, "stride": self.stride}
        kwargs["max_length"] = limit
        if columns["question"] is None:
            return _tokenize(tokenizer, {"text": columns["passage"]}, truncation=True, **kwargs)
        if errors := self.find_long_questions(columns["question"]):
            raise errors[0]
        pairs = {"text": self._write_prompts(columns["question"]), "text_pair": columns["passage"]}
        return _tokenize(tokenizer, pairs, truncation="only_second", **kwargs)

    def _write_prompts(self, questions):
        # Not `format`: other braces in a prompt, of JSON for instance, are text.
        return [self.prompt.replace("{question}", question) for question in questions]

    @property
    def model_input_names(self) -> list[str]:
        names = ["input_ids", "attention_mask"]
        if "question_" in self._get_readers():
            names += [f"question_{name}" for name in names]
        return names

    def to_dict(self, **kwargs) -> dict[str, Any]:
        # processor_config.json has the name of the question tokenizer's folder instead of its content.
        question_tokenizer, self.question_tokenizer = self.question_tokenizer, None
        try:
            output = super().to_dict(**kwargs)
        finally:
            self.question_tokenizer = question_tokenizer
        output.pop(QUESTION_TOKENIZER, None)
        if question_tokenizer is not None:
            output[QUESTION_TOKENIZER] = QUESTION_TOKENIZER
        return output

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs
    ) -> list[str]:
        """
        Save the tokenizers, the settings and the code. Same arguments as [`ProcessorMixin.save_pretrained`].
        """
        os.makedirs(save_directory, exist_ok=True)
        if self.question_tokenizer is not None:
            folder = os.path.join(save_directory, QUESTION_TOKENIZER)
            self.question_tokenizer.save_pretrained(folder)
            make_tokenizer_portable(folder)
        files = super().save_pretrained(save_directory, **({} if push_to_hub else kwargs))
        make_tokenizer_portable(save_directory)
        if push_to_hub:  # separately, since the base class would not upload a folder that exists already
            repo_id = kwargs.pop("repo_id", os.path.basename(os.path.normpath(save_directory)))
            self.push_to_hub(repo_id, **kwargs)
        return files

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs
    ) -> CrossTaskProcessor:
        """Load a processor from a folder or Hub id, as [`ProcessorMixin.from_pretrained`] does."""
        pretrained_model_name_or_path = find_run_model(pretrained_model_name_or_path)
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        if isinstance(processor.question_tokenizer, str):  # the name of its folder
            kwargs.pop("trust_remote_code", None)
            folder = os.path.join(kwargs.pop("subfolder", ""), processor.question_tokenizer)
            processor.question_tokenizer = AutoTokenizer.from_pretrained(
                pretrained_model_name_or_path, subfolder=folder, **kwargs
            )
            prepare_tokenizer(processor.question_tokenizer, QUESTION_TOKENIZER)
        return processor


def to_label(value: Any) -> int:
    r"""
    Convert a label of answerability to the coding that models train on.

    Args:
        value (`int`, `float`, `bool`, `str` or `None`):
            0, 0.0, `False`, `"0"`, `"no"`, `"false"`, `"unanswerable"` or `"not_entailment"` if the summary
            lacks the answer; 1, 1.0, `True`, `"1"`, `"yes"`, `"true"`, `"answerable"` or `"entailment"` if it
            carries the answer; `None`, NaN, `""`, `"NaN"`, `"NA"` or -100 if the row is not labeled. Case,
            surrounding spaces, and `-`, `_` or a space between words make no difference.

    Returns:
        `int`: 0, 1 or `IGNORE_INDEX` (-100).

    Raises:
        ValueError: if `value` is anything else.
    """
    try:
        scalar = value.item() if hasattr(value, "item") else value
        # `str` turns the missing values of all libraries into words of the table: None, nan, <NA> and NaT.
        if isinstance(scalar, (str, int, float)) or scalar is None or str(scalar) in ("<NA>", "NaT"):
            text = str(scalar).strip().casefold()
            words = re.sub(r"(?<=\d)[.,]0+$", "", text)  # "1.0", or "1,00" in German
            return _LABELS[re.sub(r"(?<=\w)[-\s]+(?=\w)", "_", words)]
        return {0: 0, 1: 1}[scalar]  # a number of another type, such as `Decimal`
    except (KeyError, TypeError, ValueError):  # TypeError: not hashable; ValueError: an array of several
        raise ValueError(
            f"expected a label of 0, 1, 'no' or 'yes' (None, '' or -100 if not labeled), got {value!r:.80}"
        ) from None


def _to_labels(values):
    labels = []
    for index, value in enumerate(values):
        try:
            labels.append(to_label(value))
        except ValueError as error:
            raise ValueError(f"`answerable` at position {index}: {error}.") from None
    return labels


def _tokenize(tokenizer, texts, **kwargs):
    """Return the encoded texts, and for each row whether it was cut. `texts` are arguments of a tokenizer."""
    kwargs = {"return_token_type_ids": False, "return_attention_mask": True, **kwargs}
    kwargs["split_special_tokens"] = True  # a passage that contains "</s>" does not end there
    texts = {name: _spell_out(tokenizer, column) for name, column in texts.items()}
    encoded = tokenizer(**texts, **kwargs)
    if tokenizer.is_fast:  # it keeps what it cuts off
        return encoded, [bool(row.overflowing) for row in encoded.encodings]
    is_truncated = [False] * len(encoded["input_ids"])
    limit = kwargs["max_length"]
    for index, ids in enumerate(encoded["input_ids"]):
        if limit is not None and len(ids) == limit:  # cut, unless a higher limit makes no difference
            row = {name: column[index] for name, column in texts.items()}
            longer = tokenizer(**row, **kwargs | {"max_length": limit + 1})
            is_truncated[index] = len(longer["input_ids"]) > limit
    return encoded, is_truncated


def _count_tokens(tokenizer, texts):
    encoded, _ = _tokenize(tokenizer, {"text": list(texts)}, add_special_tokens=False, max_length=None)
    return list(map(len, encoded["input_ids"]))


def _split_segments(row, count):
    """Yield each segment of an encoded input, then empty ones until there are `count`."""
    for index in range(count):
        yield {name: values[index] if index < len(values) else [] for name, values in row.items()}


def _group(values, count):
    """Return a list, array or tensor of segments with one entry per row, of `count` segments each."""
    if count is None:
        return values
    if isinstance(values, list):
        return [values[start : start + count] for start in range(0, len(values), count)]
    return values.reshape(-1, count, values.shape[-1])


def _get_special_pattern(tokenizer):
    """Return a pattern of the special tokens that `split_special_tokens` cannot split, or `None`."""
    # The vocabulary of a Unigram model, such as T5's, contains them with the highest score.
    if not tokenizer.is_fast or type(tokenizer.backend_tokenizer.model).__name__ != "Unigram":
        return None
    tokens = [token for token in tokenizer.all_special_tokens if len(token) > 1]
    tokens.sort(key=len, reverse=True)
    return re.compile("|".join(map(re.escape, tokens))) if tokens else None


def _spell_out(tokenizer, texts):
    """Put a space after the first character of each special token in texts, where nothing else splits it."""
    pattern = _get_special_pattern(tokenizer)
    if pattern is None:
        return texts
    return [pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text) for text in texts]


def _get_padded_length(rows, multiple, limit):
    """Return the length of the longest row, rounded up to a multiple if that is not above the limit."""
    longest = max(map(len, rows))
    return max(longest, min(longest + -longest % (multiple or 1), limit))


def _to_columns(inputs):
    """Return each value as a list of the batch's length, or `None`. Single values are repeated."""
    lengths = {name: len(value) for name, value in inputs.items() if isinstance(value, (list, tuple))}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The lists have to be of one length, got {lengths}.")
    if inputs["passage"] is None:
        raise ValueError("`passage` is needed.")
    batch_size = next(iter(lengths.values()), 1)
    if batch_size == 0:
        raise ValueError("The lists are empty: at least one input is needed.")
    columns = {}
    for name, value in inputs.items():
        columns[name] = None
        if value is not None:
            columns[name] = list(value) if name in lengths else [value] * batch_size
            for index, text in enumerate(columns[name] if name != "answerable" else ()):
                if not isinstance(text, str):
                    raise TypeError(
                        f"`{name}` has to be a string or a list of strings, got "
                        f"{type(text).__name__} at position {index}."
                    )
                check_unicode(text, f"`{name}` {index}")
    return columns
