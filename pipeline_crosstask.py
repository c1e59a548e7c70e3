"""`pipeline("question-summarization")`: from questions and passages to summaries with answerability."""

import difflib
import threading
import types
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from contextlib import contextmanager

from transformers import GenerationConfig, Pipeline

from .sentences_crosstask import find_evidence, iter_sentence_spans, merge_summaries, split_sentences

TASK = "question-summarization"
AUTO, BASE = "auto", "base"  # beside the names of adapters: what the router says, and none of them
_COLUMNS = ("question", "passage")


class QuestionSummarizationPipeline(Pipeline):
    r"""
    Writes a summary of a passage for each question on it.

    ```python
    >>> from transformers import pipeline

    >>> summarize = pipeline("question-summarization", model="user/name", trust_remote_code=True)
    >>> summarize(question="Who won?", passage="...")["summary"]
    >>> summarize(question=["Who won?", "When?"], passage="...", merge=True)["summary"]
    >>> for result in summarize(dataset, batch_size=16):
    ...     print(result["answerability"])
    ```

    Adapters that were loaded into the model are picked by `adapter`, a name, or `"auto"` with a `router` (an
    `AdapterRouter` of the package, or anything whose `route` takes passages and returns names).

    Settings of generation (`max_new_tokens`, `num_beams`, ..., or `generate_kwargs`) and the options below
    may be given here, for every call, and to a call.

    Evidence is found by the words that a summary shares with the passage's sentences. With `fusion="gated"`
    the gate's attention, a mean over heads and the summary's tokens, decides between sentences that share
    equally much, and stands in where no word is shared. It does not decide alone, for attention need not
    show what an output rests on (Jain & Wallace, 2019, "Attention is not Explanation"). Of 152 answers that a
    model after 200 joint rows of briefs wrote, the two most attended of 7 sentences had 61%, and those of the
    words, 2.3 of them, 99%.
    """

    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_processor = True

    def __init__(self, model, router=None, **kwargs):
        if router is not None and not callable(getattr(router, "route", None)):
            raise TypeError(
                f"`router` has to have a method `route`, as an AdapterRouter, got {type(router).__name__}."
            )
        self.router = router
        if kwargs.get("processor") is None:
            raise ValueError("`processor` is needed beside a loaded `model`: its CrossTaskProcessor.")
        super().__init__(model, **kwargs)

    def __call__(self, inputs=None, *, question=None, passage=None, **kwargs):
        r"""
        Args:
            inputs (`dict`, `list[dict]`, data set or generator of `dict`):
                Each with the keys `question`, a text or a list of texts, and `passage`, a text; others are
                not read. All questions on one passage are one batch.
            question (`str` or `list[str]`), passage (`str`):
                Instead of `inputs`, for one passage.
            batch_size (`int`, defaults to 1):
                Summaries that are written at once, where `inputs` are several.
            return_evidence (`bool`, defaults to `False`):
                Also return the sentences of the passage that the summary rests on.
            min_answerability (`float`, *optional*):
                Between 0 and 1. A summary whose answerability is below it is returned as not answered.
            merge (`bool`, defaults to `False`):
                One summary for all questions on a passage: what the summaries say, in the passage's order,
                each thing once. With `min_answerability`, of the answered questions.
            adapter (`str` or `list[str]`, *optional*):
                The name of a loaded adapter or of several at once, `"base"` for the model without any,
                `"auto"` for the one that the router picks for the passage. Without it the model writes as it
                stands. (It is switched for each batch. The pipelines of one model take turns then, in
                whatever threads they are; no other thread may use the model by itself meanwhile.)
            kwargs:
                Settings of generation. With `answerability_rerank` and `num_return_sequences` the summary is
                the best by likelihood and answerability of so many candidates.

        Returns:
            For a question, a `dict` of `question`, `summary`, `answerability` (`float`, the probability that
            the summary carries the answer), with `return_evidence` also `evidence` (`list[str]`, in the
            passage's order) and with `min_answerability` also `answered` (`bool`). For a list of questions a
            list of those; with `merge` instead a `dict` of the one `summary` and of `questions`, that list.
            For a list of inputs a list of results; for a data set or generator an iterator.

        Raises:
            TypeError, ValueError: where an argument is of a wrong type or value, in one sentence.
        """
        if inputs is None:
            inputs = {"question": question, "passage": passage}
        elif question is not None or passage is not None:
            raise ValueError("Expected either `inputs`, or `question` and `passage`, got both.")
        if isinstance(inputs, Iterable) and not isinstance(inputs, (str, Mapping, list)):
            inputs = (item for item in inputs)  # which `Pipeline` takes for a stream
        elif not isinstance(inputs, (Mapping, list, types.GeneratorType)):
            raise TypeError(
                "`inputs` have to be a dict with `question` and `passage`, or several of them, got "
                f"{type(inputs).__name__}."
            )
        return super().__call__(inputs, **kwargs) if inputs != [] else []

    def save_pretrained(self, save_directory, **kwargs):
        """Save the model and the processor with all code; arguments as of any model."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def push_to_hub(self, repo_id, **kwargs):
        """Publish the model and the processor with all code; arguments as of any model."""
        self.model.push_to_hub(repo_id, **kwargs)
        return self.processor.push_to_hub(repo_id, **kwargs)

    def _sanitize_parameters(
        self,
        return_evidence=None,
        min_answerability=None,
        merge=None,
        adapter=None,
        generate_kwargs=None,
        **kwargs,
    ):
        generation = {**(generate_kwargs or {}), **kwargs}
        known = {*vars(GenerationConfig()), "generation_config", "logits_processor", "stopping_criteria"}
        known |= {"answerability_rerank"}
        known -= {"return_dict_in_generate"}  # the pipeline's own
        for name in generation:
            if name not in known:
                options = [*sorted(known), "return_evidence", "min_answerability", "merge", "batch_size"]
                options.append("adapter")
                near = difflib.get_close_matches(name, options, n=1)
                hint = f"; did you mean `{near[0]}`?" if near else ""
                raise TypeError(f"`{name}` is no option and no setting of generation{hint}")
        if (generation.get("num_return_sequences") or 1) != 1 and "answerability_rerank" not in generation:
            raise ValueError(
                "`num_return_sequences` above 1 needs `answerability_rerank`: a question has one summary."
            )
        if min_answerability is not None and not 0 <= min_answerability <= 1:
            raise ValueError(f"`min_answerability` has to be between 0 and 1, got {min_answerability}.")
        options = {
            "return_evidence": return_evidence,
            "min_answerability": min_answerability,
            "merge": merge,
        }
        if return_evidence is not None and getattr(self.model, "gated_cross_attention", None) is not None:
            generation["output_fusion_attentions"] = return_evidence
        if adapter == AUTO and self.router is None:
            raise ValueError('`adapter="auto"` needs a `router`, as an argument of the pipeline.')
        if adapter is not None and adapter != AUTO:
            adapter = self._checked_adapter(adapter)
        preprocess = {} if adapter is None else {"adapter": adapter}
        return preprocess, generation, {name: value for name, value in options.items() if value is not None}

    def run_single(self, inputs, *parameters):
        return next(self.get_iterator([inputs], None, 1, *parameters))

    def get_iterator(
        self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params
    ):
        several = not isinstance(inputs, list) or len(inputs) > 1

        def written(items):
            self._route(items)
            parts = [None] * len(items)
            for adapter in dict.fromkeys(item["adapter"] for item in items):
                places = [place for place, item in enumerate(items) if item["adapter"] == adapter]
                rows = [row for place in places for row in items[place]["rows"]]
                with self._switched(adapter):
                    outputs = self.forward(self.processor.pad(rows), **forward_params)
                start = 0
                for place in places:
                    own = slice(start, start + len(items[place]["rows"]))
                    start = own.stop
                    parts[place] = {name: value[own] for name, value in outputs.items()}
            for item, part in zip(items, parts, strict=True):
                yield self.postprocess(item | part, **postprocess_params)

        waiting = []
        for index, item in enumerate(inputs):
            where = f"input {index}: " if several else ""
            waiting.append(self.preprocess(item, where, **preprocess_params))
            # Questions on one passage stay together.
            if sum(len(item["rows"]) for item in waiting) >= batch_size:
                yield from written(waiting)
                waiting = []
        if waiting:
            yield from written(waiting)

    def _route(self, items):
        """Put a name for "auto"."""
        routed = [item for item in items if item["adapter"] == AUTO]
        if not routed:
            return
        names = self.router.route([item["passage"] for item in routed])
        names = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else [names]
        if len(names) != len(routed):
            raise ValueError(
                f"the router has to give one name for each passage, got {len(names)} for {len(routed)}."
            )
        for item, name in zip(routed, names, strict=True):
            item["adapter"] = self._checked_adapter(name)

    def _checked_adapter(self, adapter):
        """A name, or a tuple of them, that can be had, or one sentence on why not."""
        names = (adapter,) if isinstance(adapter, str) else adapter
        named = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
        if not named or not names:
            raise TypeError(f"`adapter` has to be a name or a list of names, got {adapter!r:.80}.")
        loaded = getattr(self.model, "peft_config", {})
        if hasattr(self.model, "get_base_model"):
            raise ValueError("`adapter` is for adapters that `model.load_adapter` loaded, got a PeftModel.")
        if taken := loaded.keys() & {AUTO, BASE}:
            raise ValueError(
                f"adapter {taken.pop()!r}: load it by another name, this one has a meaning here."
            )
        if adapter == BASE:
            return adapter
        for name in names:
            if name in (AUTO, BASE) and name != adapter:
                raise ValueError(f"adapter {name!r}: has to be given by itself, got it in a list.")
            if name not in loaded:
                raise ValueError(
                    f"adapter {name!r} is not loaded; expected one of {', '.join([*loaded, BASE, AUTO])} "
                    "(`model.load_adapter` loads one)."
                )
        return adapter if isinstance(adapter, str) else tuple(adapter)

    @contextmanager
    def _switched(self, adapter):
        """The model with this adapter, or as it stands, for no one else; and afterwards as it was."""
        if adapter is not None:
            self._checked_adapter(adapter)  # for it may be gone since it was named
        if not getattr(self.model, "peft_config", None):
            yield
            return
        # Also of a batch that switches nothing, which would be written with another one's adapter. Never
        # from one batch of a stream to the next, for whoever reads it may do so in any thread, or not at all.
        with vars(self.model).setdefault("_adapter_turns", _Turns()):
            if adapter is None:
                yield
            else:
                with self._adapted(adapter):
                    yield

    @contextmanager
    def _adapted(self, adapter):
        # Of an adapter's layer this is a state; of a transformers model, a method.
        states = ((module, getattr(module, "disable_adapters", None)) for module in self.model.modules())
        before = [(layer, disabled) for layer, disabled in states if isinstance(disabled, bool)]
        trained = [(parameter, parameter.requires_grad) for parameter in self.model.parameters()]
        active = self.model.active_adapters()
        try:
            if adapter == BASE:
                self.model.disable_adapters()
            else:
                self.model.set_adapter(adapter if isinstance(adapter, str) else list(adapter))
                self.model.enable_adapters()
            yield
        finally:
            self.model.set_adapter(active)
            for layer, disabled in before:
                layer.enable_adapters(not disabled)
            for parameter, value in trained:
                parameter.requires_grad_(value)

    def preprocess(self, inputs, where="", adapter=None):
        questions, passage = _checked(inputs, where)
        encoded = self.processor(question=questions, passage=passage)
        rows = [dict(zip(encoded, values, strict=True)) for values in zip(*encoded.values(), strict=True)]
        several = not isinstance(inputs["question"], str)
        return {
            "questions": questions,
            "passage": passage,
            "several": several,
            "rows": rows,
            "adapter": adapter,
        }

    def _forward(self, model_inputs, **generation):
        own = {"return_dict_in_generate": True}
        if "answerability_rerank" not in generation:  # one summary a row, whatever a configuration says
            own["num_return_sequences"] = 1
        output = self.model.generate(**model_inputs, **generation | own)
        first = len(output.sequences) // len(model_inputs["input_ids"])  # the best of those ranked
        outputs = {"sequences": output.sequences[::first], "answerability": output.answerability[::first]}
        if "fusion_attentions" in output:
            # By the summary's tokens, without what pads a summary that is shorter than another.
            kept = self.model.get_summary_mask(outputs["sequences"][:, 1:])[..., None]
            attention = output.fusion_attentions[::first].float().mean(1)
            attention = (attention * kept.to(attention.device)).sum(1)
            mask = model_inputs.get("question_attention_mask", model_inputs["attention_mask"]).bool()
            # Without padding, so that positions are those of the processor.
            outputs["attention"] = [row[own] for row, own in zip(attention.cpu(), mask.cpu(), strict=True)]
        return outputs

    def postprocess(self, model_outputs, return_evidence=False, min_answerability=None, merge=False):
        summaries = self.processor.batch_decode(model_outputs["sequences"], skip_special_tokens=True)
        sentences = split_sentences(model_outputs["passage"]) if return_evidence or merge else None
        results = []
        for index, (question, summary, probability) in enumerate(
            zip(model_outputs["questions"], summaries, model_outputs["answerability"].tolist(), strict=True)
        ):
            result = {"question": question, "summary": summary.strip(), "answerability": probability}
            if return_evidence:
                attention = self._attention(model_outputs, index)
                result["evidence"] = [
                    sentences[place] for place in find_evidence(summary, sentences, attention)
                ]
            if min_answerability is not None:
                result["answered"] = probability >= min_answerability
            results.append(result)
        if merge:
            answered = [result["summary"] for result in results if result.get("answered", True)]
            return {"summary": merge_summaries(answered, sentences), "questions": results}
        return results if model_outputs["several"] else results[0]

    def _attention(self, model_outputs, index):
        """How much the gate attended to each sentence of the passage for one question, if that is known."""
        if "attention" not in model_outputs:
            return None
        passage = model_outputs["passage"]
        try:
            offsets = self.processor.passage_offsets(model_outputs["questions"][index], passage)
        except NotImplementedError:  # a slow tokenizer
            return None
        ends = [end for _, end in iter_sentence_spans(passage)]
        attention = [0.0] * len(ends)
        for span, value in zip(offsets, model_outputs["attention"][index].tolist(), strict=True):
            if span is not None and span[0] < ends[-1]:
                attention[bisect_right(ends, span[0])] += value
        return attention


class _Turns:
    """A lock that is not copied with its model: a copy, or one from a file, has its own."""

    def __init__(self):
        # A thread that has its turn may call again, from what watches a generation for instance.
        self._lock = threading.RLock()

    def __enter__(self):
        self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()

    def __reduce__(self):
        return _Turns, ()


def _checked(inputs, where):
    """The questions, as a list, and the passage of an input, or one sentence on what is wrong with it."""
    if not isinstance(inputs, Mapping):
        raise TypeError(f"{where}expected a dict with `question` and `passage`, got {type(inputs).__name__}.")
    missing = [name for name in _COLUMNS if inputs.get(name) is None]
    if missing:
        raise ValueError(f"{where}`{missing[0]}` is missing.")
    question, passage = (inputs[name] for name in _COLUMNS)
    questions = [question] if isinstance(question, str) else question
    if not isinstance(questions, (list, tuple)) or not all(isinstance(text, str) for text in questions):
        raise TypeError(f"{where}`question` has to be a text or a list of texts, got {question!r:.80}.")
    if not isinstance(passage, str):
        raise TypeError(f"{where}`passage` has to be a text, got {type(passage).__name__}.")
    if not questions or not all(text.strip() for text in questions):
        raise ValueError(f"{where}`question` is empty.")
    if not passage.strip():
        raise ValueError(f"{where}`passage` is empty.")
    return list(questions), passage
