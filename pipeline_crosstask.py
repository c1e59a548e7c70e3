"""`pipeline("question-summarization")`: from questions and passages to summaries with their answerability."""

from __future__ import annotations

import copy
import difflib
import logging
import os
import types
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

from transformers import GenerationConfig, Pipeline

from .configuration_crosstask import get_max_positions
from .sentences_crosstask import (
    check_unicode,
    find_evidence,
    iter_sentence_spans,
    join_spans,
    merge_summaries,
    split_sentences,
)

logger = logging.getLogger(__name__)

PIPELINE_TASK = "question-summarization"
# Special values of `adapter`: "the one that the router picks", and "none".
AUTO_ADAPTER, NO_ADAPTER = "auto", "base"


class QuestionSummarizationPipeline(Pipeline):
    r"""
    Write a summary of a passage for each question about it.

    ```python
    >>> from transformers import pipeline

    >>> summarize = pipeline("question-summarization", model="user/name", trust_remote_code=True)
    >>> summarize(question="Who won?", passage="...")["summary"]
    >>> summarize(question=["Who won?", "When?"], passage="...", merge=True)["summary"]
    >>> for result in summarize(dataset, batch_size=16):
    ...     print(result["answerability"])
    ```

    The options below and settings of generation (`max_new_tokens`, `num_beams`, ..., or `generate_kwargs`)
    can be passed to the constructor, as defaults, and to a call.

    The evidence of a summary is found by the words that it shares with the sentences of the passage. With
    `fusion="gated"` the attention of the gate, averaged over heads and over the tokens of the summary,
    decides between sentences that share equally much, and is used alone if no word is shared. It is not used
    alone in general, because attention need not show what an output is based on (Jain & Wallace, 2019,
    "Attention is not Explanation", https://arxiv.org/abs/1902.10186).

    Args:
        model ([`CrossTaskForConditionalGeneration`]):
            The model. The option `adapter` selects among its loaded adapters.
        router (*optional*):
            An `AdapterRouter` of crosstask, or any object with a method `route` that takes a list of passages
            and returns one name of an adapter for each. Needed for `adapter="auto"`.
        kwargs:
            `processor`, the [`CrossTaskProcessor`] of the model, other arguments of [`Pipeline`], and
            options.
    """

    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_processor = True

    def __init__(self, model, router: Any = None, **kwargs):
        if router is not None and not callable(getattr(router, "route", None)):
            raise TypeError(
                f"`router` has to have a method `route`, as an AdapterRouter, got {type(router).__name__}."
            )
        if model.config.model_type != "crosstask":
            raise ValueError(
                f"`model` has to be a cross-task model, got a {type(model).__name__}; "
                "`CrossTaskForConditionalGeneration.from_tasks` composes one."
            )
        if not model.config.answerability_trained:
            logger.warning(
                "The answerability of this model was never trained on labels: results have None in its place."
            )
        self.router = router
        if kwargs.get("processor") is None:
            raise ValueError("`processor` is needed beside a loaded `model`: its CrossTaskProcessor.")
        # A copy: the limits of this model need not be those of another one with the same processor.
        kwargs["processor"] = copy.copy(kwargs["processor"])
        kwargs["processor"].limit_lengths(model)
        super().__init__(model, **kwargs)

    def __call__(
        self,
        inputs: Any = None,
        *,
        question: str | list[str] | None = None,
        passage: str | None = None,
        **kwargs,
    ):
        r"""
        Write summaries.

        Args:
            inputs (`dict`, `list[dict]`, dataset or generator of `dict`):
                Each with the keys `question`, a string or a list of strings, and `passage`, a string; with
                `adapter`, it overrides the option. Other keys are ignored. All questions about one passage
                are in one batch.
            question (`str` or `list[str]`), passage (`str`):
                A single input, instead of `inputs`.
            batch_size (`int`, *optional*, defaults to 1):
                Minimum number of questions in a batch, if there are several inputs.
            return_evidence (`bool`, *optional*, defaults to `False`):
                Whether to return the sentences of the passage that each summary is based on.
            min_answerability (`float` or `str`, *optional*):
                Threshold between 0 and 1, or `"auto"` for the one of the model's configuration. A summary
                with a lower answerability is returned as not answered, and has no evidence.
            merge (`bool`, *optional*, defaults to `False`):
                Whether to merge the summaries of a passage into one, in the order of the passage and without
                repetition. Only summaries that are answered are merged; `min_answerability` then defaults to
                `"auto"` if the model has a threshold, and without any threshold all are merged.
            adapter (`str` or `list[str]`, *optional*):
                The name of a loaded adapter or of several, `"base"` for the model without adapters, or
                `"auto"` for the adapter that the router picks for each passage. Defaults to `"base"`,
                whatever adapter is active. The model is switched for each batch and restored after it.
                Pipelines of one model take turns, in any threads; other users of the model in other threads
                may see it switched.
            long_passages (`str`, *optional*):
                What to read of a passage that is longer than the model can read: `"segments"` or `"truncate"`
                for its beginning, or `"select"` for the sentences that fit best to the question; see
                [`CrossTaskProcessor.encode_long`]. Defaults to `"segments"` for a model that was trained with
                them, otherwise to `"select"`.
            passage_scorer (`Callable`, *optional*):
                For `"select"`, a function of a question and a list of texts that returns a number for each
                text, the highest for the one that fits best. Defaults to BM25.
            on_error (`str`, *optional*, defaults to `"raise"`):
                `"return"` returns `{"error": ...}` in place of the result of an input that is malformed or
                has no room for its passage, so that it does not end a stream.
            kwargs:
                Settings of generation. With `answerability_rerank` and `num_return_sequences` the summary is
                the best of that number of candidates by likelihood and answerability.

        Returns:
            For one question, a `dict` with `question`, `summary` and `answerability` (`float`, the
            probability that the summary carries the answer; 0.0 for an empty summary, and `None` if the
            model's answerability was never trained); with `return_evidence` also `evidence`
            (`list[str]`, in the order of the passage); with `min_answerability` also `answered` (`bool`); if
            the model has adapters, also `adapter`, the one that wrote the summary. For
            a list of questions, a list of these; with `merge`, a `dict` with the merged `summary` and this
            list as `questions`. For a list of inputs, a list of results; for a dataset or generator, an
            iterator of results. One warning per call says how many passages were longer than the model can
            read, and what it read of them.

        Raises:
            TypeError, ValueError: if an argument has a wrong type or value.
        """
        if inputs is None:
            inputs = {"question": question, "passage": passage}
        elif question is not None or passage is not None:
            raise ValueError("Expected either `inputs`, or `question` and `passage`, got both.")
        if hasattr(inputs, "columns") and hasattr(inputs, "to_dict"):
            raise TypeError(
                "`inputs` are a table, which iterates over its columns; expected its rows, "
                '`table.to_dict("records")`.'
            )
        if isinstance(inputs, Iterable) and not isinstance(inputs, (str, Mapping, list)):
            inputs = (item for item in inputs)  # `Pipeline` returns an iterator for a generator
        elif not isinstance(inputs, (Mapping, list, types.GeneratorType)):
            raise TypeError(
                "`inputs` have to be a dict with `question` and `passage`, or several of them, got "
                f"{type(inputs).__name__}."
            )
        return super().__call__(inputs, **kwargs) if inputs != [] else []

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Save model, processor and code. Same arguments as [`PreTrainedModel.save_pretrained`]."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs) -> Any:
        """Publish model, processor and code. Same arguments as [`PreTrainedModel.push_to_hub`]."""
        self.model.push_to_hub(repo_id, **kwargs)
        return self.processor.push_to_hub(repo_id, **kwargs)

    def _sanitize_parameters(
        self,
        return_evidence=None,
        min_answerability=None,
        merge=None,
        adapter=None,
        on_error=None,
        long_passages=None,
        passage_scorer=None,
        generate_kwargs=None,
        **kwargs,
    ):
        """Sort options into the keyword arguments of `preprocess`, `_forward` and `postprocess`."""
        generate_kwargs = {**(generate_kwargs or {}), **kwargs}
        _check_generate_kwargs(generate_kwargs, get_max_positions(self.model, "decoder"))
        for name, value in {
            "min_answerability": min_answerability,
            "answerability_rerank": generate_kwargs.get("answerability_rerank"),
        }.items():
            if value is not None and not self.model.config.answerability_trained:
                raise ValueError(f"`{name}` needs a model whose answerability was trained on labels.")
        min_answerability = self._get_threshold(min_answerability, merge)
        if return_evidence is not None and getattr(self.model, "gated_cross_attention", None) is not None:
            generate_kwargs["output_fusion_attentions"] = return_evidence
        preprocess = {} if adapter is None else {"adapter": self._check_adapter(adapter)}
        if on_error is not None:
            if on_error not in ("raise", "return"):
                raise ValueError(f'`on_error` has to be "raise" or "return", got {on_error!r:.80}.')
            preprocess["on_error"] = on_error
        if long_passages is not None:
            preprocess["long_passages"] = self.processor.check_long_passages(long_passages)
        if passage_scorer is not None:
            if not callable(passage_scorer):
                raise TypeError(f"`passage_scorer` has to be a function, got {passage_scorer!r:.80}.")
            preprocess["passage_scorer"] = passage_scorer
        options = {
            "return_evidence": return_evidence,
            "min_answerability": min_answerability,
            "merge": merge,
        }
        postprocess = {name: value for name, value in options.items() if value is not None}
        return preprocess, generate_kwargs, postprocess

    def _get_threshold(self, min_answerability, merge):
        """Return the number that `min_answerability` stands for, `None` for no threshold."""
        threshold = self.model.config.answerability_threshold
        if min_answerability is None:
            return threshold if merge and self.model.config.answerability_trained else None
        if min_answerability == "auto":
            if threshold is None:
                raise ValueError(
                    '`min_answerability="auto"` needs a model with `config.answerability_threshold`, which '
                    "training with validation rows chooses; expected a number for this one."
                )
            return threshold
        if isinstance(min_answerability, str) or not 0 <= min_answerability <= 1:
            raise ValueError(
                f'`min_answerability` has to be "auto" or between 0 and 1, got {min_answerability!r}.'
            )
        return min_answerability

    def run_single(self, inputs: Any, *parameters: dict[str, Any]) -> Any:
        [result] = self.get_iterator([inputs], None, 1, *parameters)
        return result

    def get_iterator(
        self,
        inputs: Iterable[Any],
        num_workers: int | None,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[dict[str, Any] | list[dict[str, Any]]]:
        """
        Yield the result of each input.

        How it works: `Pipeline.__call__` (transformers 4.57 to 5.23) calls `run_single` for one input and
        `get_iterator` for several, with the keyword arguments that `_sanitize_parameters` has sorted. These
        two methods are replaced as a whole, since the original ones put one input in one row, pad rows with
        another collator, and know nothing of adapters. Here a batch is filled with the questions of
        whole inputs until there are `batch_size` or more, and runs once per adapter. `num_workers` is
        ignored.
        """
        is_single = isinstance(inputs, list) and len(inputs) == 1
        batch, num_questions, num_inputs, num_truncated = [], 0, 0, 0
        try:
            for index, item in enumerate(inputs):
                where = "" if is_single else f"input {index}: "
                batch.append(self.preprocess(item, where, **preprocess_params))
                num_inputs += 1
                num_truncated += batch[-1]["is_truncated"]
                num_questions += len(batch[-1]["rows"])
                if num_questions >= batch_size:
                    yield from self._run_batch(batch, forward_params, postprocess_params)
                    batch, num_questions = [], 0
            if batch:
                yield from self._run_batch(batch, forward_params, postprocess_params)
        finally:  # also if the caller of a stream stops early
            if num_truncated:
                mode = self.processor.check_long_passages(preprocess_params.get("long_passages"))
                self._warn_of_long_passages(num_truncated, num_inputs, mode)

    def _warn_of_long_passages(self, num_truncated, num_inputs, long_passages):
        names = [name for name in self.processor.get_limits() if name != "labels"]
        limits = map(self.processor.describe_limit, names)
        logger.warning(
            "%d of %d inputs are longer than the %s that the model reads: it read %s (long_passages=%r)",
            num_truncated,
            num_inputs,
            " and ".join(limits),
            "the parts that fit best to the question" if long_passages == "select" else "their beginning",
            long_passages,
        )

    def _run_batch(self, batch, forward_params, postprocess_params):
        """Yield the results of preprocessed inputs."""
        self._route(batch)
        outputs = [None] * len(batch)
        for adapter in dict.fromkeys(item["adapter"] for item in batch if item["rows"]):
            indices = [
                index for index, item in enumerate(batch) if item["adapter"] == adapter and item["rows"]
            ]
            rows = [row for index in indices for row in batch[index]["rows"]]
            with self._use_adapter(adapter):
                output = self.forward(self.processor.pad(rows), **forward_params)
            start = 0
            for index in indices:
                end = start + len(batch[index]["rows"])
                outputs[index] = {name: value[start:end] for name, value in output.items()}
                start = end
        for item, output in zip(batch, outputs, strict=True):
            if output is None:
                yield {"error": item["error"]}
            else:
                yield self.postprocess(item | output, **postprocess_params)

    def _route(self, batch):
        """Replace the adapter "auto" of inputs by the one that the router picks."""
        items = [item for item in batch if item["adapter"] == AUTO_ADAPTER]
        if not items:
            return
        names = self.router.route([item["passage"] for item in items])
        names = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else [names]
        if len(names) != len(items):
            raise ValueError(
                f"the router has to return one name for each passage, got {len(names)} for {len(items)}."
            )
        for item, name in zip(items, names, strict=True):
            item["adapter"] = self._check_adapter(name)

    def _get_adapter(self, inputs, adapter, where):
        """Return the adapter of an input, of the call, or the base; `None` if the model has no adapters."""
        if inputs.get("adapter") is not None:
            try:
                adapter = self._check_adapter(inputs["adapter"])
            except (TypeError, ValueError) as error:
                error.args = (f"{where}{error}",)
                raise
        has_adapters = bool(getattr(self.model, "peft_config", None)) and not hasattr(
            self.model, "get_base_model"
        )
        return NO_ADAPTER if adapter is None and has_adapters else adapter

    def _check_adapter(self, adapter):
        """Return a name of an adapter, or a tuple of names, or raise an error if it cannot be used."""
        if adapter == AUTO_ADAPTER:
            if self.router is None:
                raise ValueError('`adapter="auto"` needs a `router`, as an argument of the pipeline.')
            return adapter
        names = (adapter,) if isinstance(adapter, str) else adapter
        is_names = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
        if not is_names or not names:
            raise TypeError(f"`adapter` has to be a name or a list of names, got {adapter!r:.80}.")
        loaded = getattr(self.model, "peft_config", {})
        if hasattr(self.model, "get_base_model"):
            raise ValueError("`adapter` is for adapters that `model.load_adapter` loaded, got a PeftModel.")
        if reserved := loaded.keys() & {AUTO_ADAPTER, NO_ADAPTER}:
            raise ValueError(f"adapter {reserved.pop()!r}: load it by another name, this one is reserved.")
        if adapter == NO_ADAPTER:
            return adapter
        for name in names:
            if name in (AUTO_ADAPTER, NO_ADAPTER) and name != adapter:
                raise ValueError(f"adapter {name!r}: expected it alone, got it in a list.")
            if name not in loaded:
                raise ValueError(
                    f"adapter {name!r} is not loaded; expected one of "
                    f"{', '.join([*loaded, NO_ADAPTER, AUTO_ADAPTER])} (`model.load_adapter` loads one)."
                )
        return adapter if isinstance(adapter, str) else tuple(adapter)

    @contextmanager
    def _use_adapter(self, adapter):
        if adapter is not None:
            self._check_adapter(adapter)  # it may have been deleted since
        with self.model.use_adapter(
            None if adapter == NO_ADAPTER else adapter, is_base=adapter == NO_ADAPTER
        ):
            yield

    def preprocess(
        self,
        inputs: Any,
        where: str = "",
        adapter: str | list[str] | None = None,
        on_error: str = "raise",
        long_passages: str | None = None,
        passage_scorer: Callable[[str, list[str]], Sequence[float]] | None = None,
    ) -> dict[str, Any]:
        """Encode one input, with one row per question. `where` is the beginning of an error message."""
        try:
            return self._encode(inputs, where, adapter, long_passages, passage_scorer)
        except (TypeError, ValueError) as error:
            if on_error == "raise":
                raise
            return {"error": str(error), "rows": [], "is_truncated": False, "adapter": None}

    def _encode(self, inputs, where, adapter, long_passages, passage_scorer):
        questions, passage = _check_input(inputs, where)
        adapter = self._get_adapter(inputs, adapter, where)
        rows, selected, is_truncated = [], [], False
        for index, question in enumerate(questions):
            try:
                row, spans = self.processor.encode_long(
                    question, passage, long_passages=long_passages, passage_scorer=passage_scorer
                )
            except ValueError as error:
                if hasattr(error, "reason"):  # the question leaves no room for the passage
                    raise ValueError(f"{where}question {index} {error.reason}") from error
                raise
            flags = [row.pop(key) for key in list(row) if key.endswith("_truncated")]
            is_truncated |= any(flags)
            rows.append(row)
            selected.append(spans)
        return {
            "questions": questions,
            "passage": passage,
            "is_list": not isinstance(inputs["question"], str),
            "rows": rows,
            "selected": selected,
            "is_truncated": is_truncated,
            "adapter": adapter,
        }

    def _forward(self, model_inputs, **generate_kwargs):
        generate_kwargs["return_dict_in_generate"] = True
        if "answerability_rerank" not in generate_kwargs:
            generate_kwargs["num_return_sequences"] = 1  # overrides the generation configuration
        output = self.model.generate(**model_inputs, **generate_kwargs)
        # With reranking there are several candidates per row, the best one first.
        step = len(output.sequences) // len(model_inputs["input_ids"])
        outputs = {"sequences": output.sequences[::step], "answerability": output.answerability[::step]}
        if "fusion_attentions" in output:
            # Average over heads, and sum over the tokens of the summary, without padding after it.
            summary_mask = self.model.get_summary_mask(outputs["sequences"][:, 1:])[..., None]
            attention = output.fusion_attentions[::step].float().mean(1)
            attention = (attention * summary_mask.to(attention.device)).sum(1)
            # Drop padding of the question encoder's input, so that positions are those of the processor.
            mask = model_inputs.get("question_attention_mask", model_inputs["attention_mask"])
            mask = mask.flatten(1).bool()  # of all segments
            outputs["attention"] = [
                row[row_mask] for row, row_mask in zip(attention.cpu(), mask.cpu(), strict=True)
            ]
        return outputs

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        return_evidence: bool = False,
        min_answerability: float | None = None,
        merge: bool = False,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        summaries = self.processor.batch_decode(model_outputs["sequences"], skip_special_tokens=True)
        sentences = split_sentences(model_outputs["passage"]) if return_evidence or merge else None
        results = []
        for index, (question, summary, probability) in enumerate(
            zip(model_outputs["questions"], summaries, model_outputs["answerability"].tolist(), strict=True)
        ):
            summary = summary.strip()
            if not summary:  # the head has not learned that nothing answers nothing
                probability = 0.0
            if not self.model.config.answerability_trained:
                probability = None
            result = {"question": question, "summary": summary, "answerability": probability}
            answered = min_answerability is None or bool(summary and probability >= min_answerability)
            if return_evidence:
                attention = self._get_sentence_attention(model_outputs, index)
                evidence = find_evidence(summary, sentences, attention) if answered else []
                result["evidence"] = [sentences[i] for i in evidence]
            if min_answerability is not None:
                result["answered"] = answered
            if (adapter := model_outputs["adapter"]) is not None:
                result["adapter"] = list(adapter) if isinstance(adapter, tuple) else adapter
            results.append(result)
        if merge:
            answered = [result["summary"] for result in results if result.get("answered", True)]
            return {"summary": merge_summaries(answered, sentences), "questions": results}
        return results if model_outputs["is_list"] else results[0]

    def _get_sentence_attention(self, model_outputs, index):
        """Return the sum of the gate's attention to each sentence of the passage, `None` if not known."""
        if "attention" not in model_outputs:
            return None
        passage, spans = model_outputs["passage"], model_outputs["selected"][index]
        spans = [(0, len(passage))] if spans is None else spans
        starts = list(accumulate((end - start + 1 for start, end in spans), initial=0))  # in the joined text
        try:
            offsets = self.processor.get_passage_offsets(
                model_outputs["questions"][index], join_spans(passage, spans)
            )
        except NotImplementedError:  # a slow tokenizer
            return None
        ends = [end for _, end in iter_sentence_spans(passage)]
        attention = [0.0] * len(ends)
        # With `long_passages="truncate"`, the model has read fewer segments than the processor locates.
        for offset, value in zip(offsets, model_outputs["attention"][index].tolist(), strict=False):
            if offset is not None:
                span = bisect_right(starts, offset[0], hi=len(spans)) - 1
                position = spans[span][0] + offset[0] - starts[span]
                if position < ends[-1]:
                    attention[bisect_right(ends, position)] += value
        return attention


def _check_generate_kwargs(generate_kwargs, max_positions):
    """
    Raise an error if an argument is neither an option of the pipeline nor a setting of generation, or if a
    length is above the number of positions of the decoder.
    """
    for name in ("max_new_tokens", "max_length"):
        if (generate_kwargs.get(name) or 0) > max_positions + (name == "max_length"):  # has the start token
            raise ValueError(
                f"`{name}` is {generate_kwargs[name]}, the decoder has {max_positions} positions."
            )
    known = {*vars(GenerationConfig()), "generation_config", "logits_processor", "stopping_criteria"}
    known |= {"answerability_rerank"}
    known -= {"return_dict_in_generate"}  # the pipeline sets it
    options = ["return_evidence", "min_answerability", "merge", "batch_size", "adapter", "on_error"]
    options += ["long_passages", "passage_scorer"]
    for name in generate_kwargs:
        if name not in known:
            matches = difflib.get_close_matches(name, [*sorted(known), *options], n=1)
            hint = f"; did you mean `{matches[0]}`?" if matches else ""
            raise TypeError(f"`{name}` is neither an option nor a setting of generation{hint}")
    num_candidates = generate_kwargs.get("num_return_sequences") or 1
    if num_candidates != 1 and "answerability_rerank" not in generate_kwargs:
        raise ValueError(
            "`num_return_sequences` above 1 needs `answerability_rerank`: a question has one summary."
        )


def _check_input(inputs, where):
    """Return the questions and the passage of an input, or raise an error that begins with `where`."""
    if not isinstance(inputs, Mapping):
        raise TypeError(f"{where}expected a dict with `question` and `passage`, got {type(inputs).__name__}.")
    question, passage = inputs.get("question"), inputs.get("passage")
    for name, value in {"question": question, "passage": passage}.items():
        if value is None:
            raise ValueError(f"{where}`{name}` is missing.")
    questions = [question] if isinstance(question, str) else question
    if not isinstance(questions, (list, tuple)) or not all(isinstance(text, str) for text in questions):
        raise TypeError(f"{where}`question` has to be a string or a list of strings, got {question!r:.80}.")
    if not isinstance(passage, str):
        raise TypeError(f"{where}`passage` has to be a string, got {type(passage).__name__}.")
    if not questions or not all(text.strip() for text in questions):
        raise ValueError(f"{where}`question` is empty.")
    if not passage.strip():
        raise ValueError(f"{where}`passage` is empty.")
    for name, text in [*(("question", text) for text in questions), ("passage", passage)]:
        check_unicode(text, f"{where}`{name}`")
    return list(questions), passage
