"""The trainer of all three stages: an exact joint loss, its terms in the log, and answerability metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from torch import nn
from torch.nn.functional import softplus
from torch.utils.data import IterableDataset
from transformers import EvalPrediction, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.training_args import OptimizerNames

from crosstask.configuration_crosstask import IGNORE_INDEX, check_weight, get_max_positions
from crosstask.data.collator import CONTRAST_MASK, CONTRAST_PREFIX, ROW_INDEX_COLUMN
from crosstask.data.summary_labels import SummaryLabeler
from crosstask.eval.scoring.answerability import answerability_figures
from crosstask.fusion_crosstask import sum_log_probs
from crosstask.generation_crosstask import get_summary_mask
from crosstask.training.callbacks import ContrastEpochCallback
from crosstask.training.pushing import HubPushTrainer
from crosstask.training.tuning import cast_float16, disable_reentrant_checkpointing
from crosstask.utils.errors import NonFiniteLossError, UndefinedMetricError

LOSS_NAMES = ("summary_loss", "answerability_loss", "contrastive_loss", "own_summary_loss")
GATE_NAMES = ("gate_attention", "gate_feed_forward")


class CrossTaskTrainer(HubPushTrainer):
    """
    Train a [`CrossTaskForConditionalGeneration`] or any other sequence-to-sequence model.

    It differs from `Seq2SeqTrainer` as follows.

    - The loss of a step does not depend on how its rows are spread over processes and accumulated
      micro-batches: the summary loss is a mean over the summary tokens of the step, the answerability loss a
      mean over its labeled rows.
    - The log has `summary_loss` and `answerability_loss` of a cross-task model beside `loss`, in nats,
      `contrastive_loss` of any model if `contrastive_weight` is positive, and `own_summary_loss`, a mean over
      the steps that have it, with a `summary_labeler`.
    - With `fusion="gated"` the log also has `gate_attention` and `gate_feed_forward`: the `tanh` of each
      gate, 0 for a closed one.
    - Evaluation of a cross-task model reports `eval_answerability_accuracy` and `eval_answerability_auroc` on
      the reference summaries. `compute_metrics` is called only with `predict_with_generate`, and gets the
      generated tokens and the labels, both padded with -100.
    - `compute_metrics` gets the rows in their order, even if `Trainer` evaluates them sorted by length.
    - Weights in float16 are converted to float32 before the training, and saved in it.
    - A loss that is not finite ends the training with a [`NonFiniteLossError`].
    - A push to the Hub uploads the model with its code, its processor and its card, but no other file of the
      output folder, whatever `hub_strategy` is.

    Args:
        args:
            Positional arguments of `Seq2SeqTrainer`.
        compute_metrics (`Callable[[EvalPrediction], dict]`, *optional*):
            Metrics of the generated text.
        fusion_learning_rate (`float`, *optional*):
            Learning rate of the fusion. Defaults to that of the other parameters, which were trained before.
        contrastive_weight (`float`, *optional*, defaults to 0.0):
            Weight of a loss that makes each summary more likely under its own question than under another
            question on the passage: -log sigmoid(log p(summary | question) - log p(summary | other)), a mean
            over the rows with a summary loss and another question from the collator. It needs a
            [`CrossTaskCollator`] with `contrasts`, training rows with the column `row_index` (their index in
            the set), and `remove_unused_columns=False`. A step takes about twice as long. Gradient
            checkpointing then defaults to the non-reentrant kind, which several processes require.
        summary_labeler ([`SummaryLabeler`], *optional*):
            Labels of the summaries that the model writes itself. In every step whose number is divisible by
            `own_summary_steps`, the model writes summaries of the rows of the batch by greedy search, and the
            answerability loss of these is added to the loss, with the weight of the answerability. It needs
            training rows with the column `row_index`, and `remove_unused_columns=False`.
        own_summary_steps (`int`, *optional*, defaults to 4):
            See `summary_labeler`.
        kwargs:
            Keyword arguments of `Seq2SeqTrainer`.

    Raises:
        ValueError: If a weight or rate is not a finite number of 0 or more, `generation_max_length` is too
            high, `fusion_learning_rate` comes with an optimizer, or `contrastive_weight` lacks what it needs.
    """

    # `Trainer` declares these as optional.
    args: Seq2SeqTrainingArguments
    model: Any
    data_collator: Any
    hub_model_id: Any

    def __init__(
        self,
        *args: Any,
        compute_metrics: Callable[[EvalPrediction], dict] | None = None,
        fusion_learning_rate: float | None = None,
        contrastive_weight: float = 0.0,
        summary_labeler: SummaryLabeler | None = None,
        own_summary_steps: int = 4,
        **kwargs: Any,
    ):
        check_weight("contrastive_weight", contrastive_weight)
        super().__init__(*args, **kwargs)
        cast_float16(self.model)
        if fusion_learning_rate is not None:
            check_weight("fusion_learning_rate", fusion_learning_rate)
            if self.optimizer is not None:
                raise ValueError(
                    "fusion_learning_rate: expected no optimizer beside it, as an optimizer has its learning "
                    f"rates already, got {type(self.optimizer).__name__}"
                )
        length, limit = self.args.generation_max_length or 0, get_max_positions(self.model, "decoder")
        if length > limit:
            raise ValueError(
                f"generation_max_length: expected at most {limit} decoder positions, got {length}"
            )
        self.fusion_learning_rate, self.contrastive_weight = fusion_learning_rate, contrastive_weight
        self.summary_labeler, self.own_summary_steps = summary_labeler, own_summary_steps
        if contrastive_weight or summary_labeler is not None:
            disable_reentrant_checkpointing(self.args)
        if contrastive_weight:
            self._check_contrasts()
            self.add_callback(ContrastEpochCallback(self.data_collator.contrasts))
        # `compute_loss` scales for gradient accumulation already; `Trainer` must not divide again.
        self.model_accepts_loss_kwargs = True
        self.is_fused = hasattr(self.model.config, "answerability_weight")
        self._compute_text_metrics = compute_metrics
        if self.is_fused or compute_metrics is not None:
            self.compute_metrics = self._compute_metrics
        self._train_sum = _RunningSum()
        self._eval_sum = _RunningSum()
        self._first_summed_step = 0
        self._eval_order: list[int] | None = None  # of the rows, if they are sorted by length

    @staticmethod
    def get_optimizer_cls_and_kwargs(
        args: TrainingArguments, model: Any = None
    ) -> tuple[Any, dict[str, Any]]:
        """Like `Trainer`, but pass `optim_args` to Adafactor, too; `Trainer` ignores them there."""
        optimizer_class, kwargs = Seq2SeqTrainer.get_optimizer_cls_and_kwargs(args, model)
        if args.optim == OptimizerNames.ADAFACTOR and args.optim_args:
            pairs = (pair.split("=") for pair in args.optim_args.replace(" ", "").split(","))
            kwargs |= {name: yaml.safe_load(value) for name, value in pairs}
        return optimizer_class, kwargs

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Create the optimizer, with separate groups for the fusion if `fusion_learning_rate` is set."""
        is_new = self.optimizer is None  # a second `train` keeps the optimizer and its groups
        optimizer = super().create_optimizer(*args, **kwargs)
        if not is_new or self.fusion_learning_rate is None or not self.is_fused:
            return optimizer
        fusion_ids = {id(parameter) for parameter in self.model.fusion_parameters()}
        for group in list(optimizer.param_groups):
            fusion = [parameter for parameter in group["params"] if id(parameter) in fusion_ids]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in fusion_ids]
            if fusion:
                optimizer.add_param_group(group | {"params": fusion, "lr": self.fusion_learning_rate})
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        return optimizer

    # How the loss of a step is made exact: before a step `Trainer` calls `_get_num_items_in_batch` with all
    # micro-batches of this process, and passes the result to `compute_loss` as `num_items_in_batch`
    # (transformers 4.46 and later). Here the result is four counts, summed over the processes.
    # `compute_loss` multiplies each mean by the share that its batch has in the count, so that the terms add
    # up to the mean over the step.

    def _get_num_items_in_batch(self, batch_samples, device):
        """Return the counts of [`_count`] for a step: (4,), over all processes."""
        has_index = all(ROW_INDEX_COLUMN in batch for batch in batch_samples)
        for name in ("contrastive_weight", "summary_labeler"):
            if getattr(self, name) and not has_index:
                raise ValueError(
                    f"{name}: expected training rows with {ROW_INDEX_COLUMN!r}, got a batch without"
                )
        counts = sum((self._count(batch) for batch in batch_samples), torch.zeros(4)).to(device)
        if self.args.world_size > 1:
            counts = self.accelerator.gather(counts[None]).sum(0)
        if self.is_fused and not self.model.config.answerability_trained:
            names = ("answerability_loss", "own_summary_loss")  # in the log also before a resumption
            logged = (entry.get(name) for entry in self.state.log_history for name in names)
            seen = counts[1] + counts[3] > 0 or any(logged)
            self.model.config.answerability_trained = bool(seen and self.model.config.answerability_weight)
        return counts

    def _count(self, batch):
        """
        Count the summary tokens, the labeled rows, the contrasted rows and the rows whose own summary will be
        labeled: (4,), on the CPU.
        """
        has_loss = self._get_summary_labels(batch) != IGNORE_INDEX
        tokens = has_loss.sum()
        labeled = (batch["answerable"] != IGNORE_INDEX).sum() if "answerable" in batch else tokens * 0
        contrasted = tokens * 0
        if self._has_contrasts(batch):
            contrasted = (has_loss.any(1) & batch[CONTRAST_MASK]).sum()
        own = tokens * 0
        if self._has_own_summaries(batch):
            own += sum(map(self.summary_labeler.has_label, batch[ROW_INDEX_COLUMN].tolist()))
        return torch.stack([tokens, labeled, contrasted, own]).to("cpu", torch.float)

    def _check_contrasts(self):
        """Raise a `ValueError` unless rows and collator have contrasts; streams are checked per batch."""
        collator, problem = self.data_collator, None
        if getattr(collator, "contrasts", None) is None:
            problem = f"a CrossTaskCollator with `contrasts`, got a {type(collator).__name__} without"
        elif self.args.remove_unused_columns:
            problem = f"remove_unused_columns=False, as True removes {ROW_INDEX_COLUMN!r} from the rows"
        elif self.train_dataset is not None and not isinstance(self.train_dataset, IterableDataset):
            first_row = next(iter(self.train_dataset), {})
            if ROW_INDEX_COLUMN not in first_row:
                problem = f"training rows with {ROW_INDEX_COLUMN!r}, got {', '.join(first_row) or 'none'}"
        if problem:
            raise ValueError(f"contrastive_weight: expected {problem}")

    def _has_contrasts(self, batch):
        return self.contrastive_weight > 0 and CONTRAST_MASK in batch

    def _has_own_summaries(self, batch):
        """Return whether the model writes summaries of a batch of training rows in this step."""
        is_due = self.summary_labeler is not None and self.state.global_step % self.own_summary_steps == 0
        return is_due and ROW_INDEX_COLUMN in batch

    def _get_summary_labels(self, batch):
        """
        Return `labels`, set to -100 in the rows without a summary loss (with `summary_loss_on: answerable`,
        those not labeled 1).
        """
        labels = batch["labels"]
        if getattr(self.model.config, "summary_loss_on", "all") == "answerable" and "answerable" in batch:
            labels = labels.masked_fill((batch["answerable"] != 1)[:, None], IGNORE_INDEX)
        return labels

    def compute_loss(  # type: ignore[override]  # counts are a tensor of three here
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Return the weighted loss of a batch; in training, its share of the loss of the step."""
        model_inputs = _get_model_inputs(inputs)
        outputs = model(**model_inputs)
        means = self._compute_mean_losses(model_inputs, outputs)
        contrastive_loss = own_summary_loss = means[:1] * 0
        if self._has_contrasts(inputs):
            contrastive_loss = self._compute_contrastive_loss(model, inputs, outputs)
        if self._has_own_summaries(inputs):
            own_summary_loss = self._compute_own_summary_loss(model, inputs, outputs)
        means = torch.cat([means, contrastive_loss.reshape(1), own_summary_loss.reshape(1)])
        counts = self._count(inputs).to(means.device)
        if model.training and num_items_in_batch is not None:
            # The gradients are averaged over the processes, hence the factor.
            means = means * (counts / num_items_in_batch.clamp(min=1) * self.accelerator.num_processes)
            if self._train_sum.total is None:
                self._first_summed_step = self.state.global_step
            self._train_sum.add(means.detach() / self.accelerator.num_processes)
        else:
            self._eval_sum.add(torch.stack([means.detach() * counts, counts]))
        loss = means @ self._get_loss_weights(means.device)
        return (loss, outputs) if return_outputs else loss

    def _compute_mean_losses(self, inputs, outputs):
        """Return the mean summary loss and the mean answerability loss of a batch: (2,)."""
        summary_loss = outputs["summary_loss"] if self.is_fused else outputs["loss"]
        if self.label_smoother is not None:
            labels = self._get_summary_labels(inputs)
            if (labels != IGNORE_INDEX).any():  # the smoothed mean over no tokens is NaN
                summary_loss = self.label_smoother(outputs, labels)
        answerability_loss = outputs.get("answerability_loss") if self.is_fused else None
        if answerability_loss is None:
            answerability_loss = torch.zeros_like(summary_loss)
        # `DataParallel` returns one loss per replica.
        return torch.stack([summary_loss.mean(), answerability_loss.mean()]).float()

    def _compute_contrastive_loss(self, model, inputs, outputs):
        """Return the mean contrastive loss of a batch, as the class defines it."""
        contrast_inputs = {
            name.removeprefix(CONTRAST_PREFIX): value
            for name, value in inputs.items()
            if name.startswith(CONTRAST_PREFIX) and name != CONTRAST_MASK
        }
        if self.is_fused and self.model.gated_cross_attention is None:
            # Only the answerability head reads the question encoder here, and the contrastive loss does not
            # use it, so the states of the first pass save a second one. They stay in the graph: DDP looks for
            # unused parameters in the last forward pass only, and fails if others get gradients.
            contrast_inputs["question_encoder_outputs"] = (outputs["question_encoder_last_hidden_state"],)
            contrast_inputs["question_attention_mask"] = inputs.get(
                "question_attention_mask", inputs["attention_mask"]
            )
        labels = self._get_summary_labels(inputs)
        contrast_outputs = model(**contrast_inputs, **self._get_decoder_inputs(inputs["labels"]))
        log_prob = sum_log_probs(outputs["logits"], labels)
        contrast_log_prob = sum_log_probs(contrast_outputs["logits"], labels)
        counted = (labels != IGNORE_INDEX).any(1) & inputs[CONTRAST_MASK]
        return (softplus(contrast_log_prob - log_prob) * counted).sum() / counted.sum().clamp(min=1)

    def _compute_own_summary_loss(self, model, inputs, outputs):
        """Return the mean answerability loss of the summaries that the model writes of a batch."""
        sources = _get_model_inputs(inputs)
        sources = {name: x for name, x in sources.items() if name not in ("labels", "answerable")}
        is_training = self.model.training
        self.model.eval()
        summary_ids = self.model.generate(**sources, num_beams=1, do_sample=False)
        self.model.train(is_training)
        torch.clear_autocast_cache()  # of weights that were cast where no gradient is recorded
        texts = self.processing_class.batch_decode(summary_ids, skip_special_tokens=True)
        answerable = self.summary_labeler.label(inputs[ROW_INDEX_COLUMN].tolist(), texts)
        targets = summary_ids[:, 1:].clone()
        # The states of the first pass stay in the graph, see `_compute_contrastive_loss`.
        own_outputs = model(
            attention_mask=inputs["attention_mask"],
            encoder_outputs=(outputs["encoder_last_hidden_state"],),
            question_encoder_outputs=(outputs["question_encoder_last_hidden_state"],),
            question_attention_mask=inputs.get("question_attention_mask", inputs["attention_mask"]),
            labels=targets.masked_fill(~get_summary_mask(targets, self.model.config), IGNORE_INDEX),
            answerable=torch.tensor(answerable, device=targets.device),
        )
        return own_outputs["answerability_loss"].mean().float()

    def _get_decoder_inputs(self, labels):
        """Return the arguments that make the decoder read `labels`, if possible without computing a loss."""
        shift = getattr(self.model, "prepare_decoder_input_ids_from_labels", None)
        if shift is None:  # M2M100, NLLB and Blenderbot shift the labels in their forward pass
            return {"labels": labels}
        return {"decoder_input_ids": shift(labels=labels), "use_cache": False}

    def _get_loss_weights(self, device):
        weight = getattr(self.model.config, "answerability_weight", 0.0)
        return torch.tensor([1.0, weight, self.contrastive_weight, weight], device=device)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Do as `Trainer`, but raise a [`NonFiniteLossError`] if the loss is not finite."""
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}: training stopped before "
                "that step, and earlier checkpoints are untouched; "
                f"{self._describe_remedies()}"
            )
        return loss

    def check_weights(self) -> None:
        """Raise a [`NonFiniteLossError`] if a weight is not finite, as infinite gradients can make it."""
        finite = [p.detach().isfinite().all() for p in self.model.parameters() if p.requires_grad]
        if not all(finite):
            raise NonFiniteLossError(
                f"the weights are not finite after step {self.state.global_step}, and not saved; "
                f"{self._describe_remedies()}"
            )

    def _describe_remedies(self):
        precision = "bf16 instead of fp16, " if self.args.fp16 else ""
        return f"try a lower learning rate, {precision}or check the data"

    def _save_checkpoint(self, *args, **kwargs):
        self.check_weights()
        super()._save_checkpoint(*args, **kwargs)

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        # Nothing reads this pickle, and it contains paths of this machine.
        Path(output_dir or self.args.output_dir, TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Do as `Trainer`, with the terms of the loss and the gates beside the training loss."""
        if "loss" in logs:
            logs.update(self._average_loss_terms())
            if (gate := getattr(self.model, "gated_cross_attention", None)) is not None:
                logs.update(zip(GATE_NAMES, gate.gates.detach().tanh().tolist(), strict=True))
            self._train_sum.clear()
        super().log(logs, *args, **kwargs)

    def _average_loss_terms(self):
        """Return the means of the loss terms of this model over the steps since the last log."""
        first, last = self._first_summed_step, self.state.global_step
        own_steps = sum(step % self.own_summary_steps == 0 for step in range(first, last))
        names = LOSS_NAMES[:2] if self.is_fused else ()
        names += LOSS_NAMES[2:3] if self.contrastive_weight else ()
        names += LOSS_NAMES[3:] if self.summary_labeler is not None and own_steps else ()
        if not names or self._train_sum.total is None:
            return {}
        steps = torch.tensor([last - first] * 3 + [own_steps], device=self._train_sum.total.device)
        means = self._train_sum.sum_over_processes(self.accelerator) / steps.clamp(min=1)
        return {name: mean for name, mean in zip(LOSS_NAMES, means.tolist(), strict=True) if name in names}

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """
        Do as `Seq2SeqTrainer`, with losses that are means over the set, not over batches of unequal weight.
        With several processes, the rows that fill up the last batch count twice.
        """
        self._eval_sum.clear()
        output: Any = super().evaluation_loop(*args, **kwargs, metric_key_prefix=metric_key_prefix)  # type: ignore
        if self._eval_sum.total is not None:
            sums, counts = self._eval_sum.sum_over_processes(self.accelerator)
            means = sums / counts.clamp(min=1)
            if self.is_fused:  # evaluation has no contrastive loss
                for name, mean in zip(LOSS_NAMES[:2], means.tolist()[:2], strict=True):
                    output.metrics[f"{metric_key_prefix}_{name}"] = mean
            output.metrics[f"{metric_key_prefix}_loss"] = (
                means @ self._get_loss_weights(means.device)
            ).item()
        return output

    def _get_eval_sampler(self, eval_dataset):
        """Return the sampler of `Trainer`, in a fixed order that `_compute_metrics` can undo."""
        sampler = super()._get_eval_sampler(eval_dataset)
        self._eval_order = None
        if isinstance(sampler, LengthGroupedSampler):
            self._eval_order = sampler = sorted(range(len(eval_dataset)), key=lambda i: -sampler.lengths[i])
        return sampler

    def _restore_order(self, rows):
        """Return an array with a row for each evaluated row in the order of the data set."""
        return rows if self._eval_order is None else rows[np.argsort(self._eval_order)]

    def _determine_best_metric(self, metrics, trial):
        name = self.args.metric_for_best_model
        value = metrics.get(f"eval_{(name or '').removeprefix('eval_')}", 0.0)
        if math.isnan(value):
            raise UndefinedMetricError(
                f"metric_for_best_model: {name} is NaN at step {self.state.global_step}, expected a number"
            )
        return super()._determine_best_metric(metrics, trial)

    def prediction_step(  # type: ignore[override]  # it returns several predictions
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **gen_kwargs: Any,
    ) -> tuple[torch.Tensor, tuple | None, tuple | None]:
        """
        Return the loss of a batch, its predictions and its references.

        Predictions are the answerability logits, if the rows are labeled, and the generated tokens, with
        `predict_with_generate`; references are the labels of each.
        """
        inputs = self._prepare_inputs(_get_model_inputs(inputs))
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        is_labeled = self.is_fused and "answerable" in inputs
        if prediction_loss_only or not (is_labeled or self.args.predict_with_generate):
            return loss, None, None
        predictions, references = [], []
        if is_labeled:
            predictions.append(outputs["answerability_logits"])
            references.append(inputs["answerable"])
        if self.args.predict_with_generate:
            sources = {k: v for k, v in inputs.items() if k not in ("labels", "answerable")}
            gen_kwargs = gen_kwargs or getattr(self, "_gen_kwargs", {})
            gen_kwargs = {k: v for k, v in gen_kwargs.items() if v is not None}
            predictions.append(self.model.generate(**sources, **gen_kwargs))
            references.append(inputs["labels"])
        return loss, tuple(predictions), tuple(references)

    def _compute_metrics(self, prediction):
        """Return `answerability_accuracy`, `answerability_auroc` and the metrics of the generated text."""
        metrics = {}
        predictions = [self._restore_order(rows) for rows in prediction.predictions]
        references = [self._restore_order(rows) for rows in prediction.label_ids]
        if self.is_fused and len(predictions) > self.args.predict_with_generate:
            logits = torch.from_numpy(predictions.pop(0)).float()
            labels = references.pop(0)
            figures = answerability_figures(logits.softmax(-1)[:, 1].tolist(), labels.tolist())
            for name in ("accuracy", "auroc"):
                value = figures[name]
                metrics[f"answerability_{name}"] = math.nan if value is None else value
        if predictions and self._compute_text_metrics is not None:
            metrics |= self._compute_text_metrics(EvalPrediction(predictions[0], references[0]))
        return metrics


def _get_model_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch without what the trainer alone reads: contrasts and the indices of the rows."""
    return {
        name: value
        for name, value in inputs.items()
        if not name.startswith(CONTRAST_PREFIX) and name != ROW_INDEX_COLUMN
    }


class _RunningSum:
    """A running sum of tensors of one shape, on their device; `total` is `None` before the first one."""

    def __init__(self):
        self.total: torch.Tensor | None = None

    def add(self, values: torch.Tensor) -> None:
        self.total = values if self.total is None else self.total + values

    def clear(self) -> None:
        self.total = None

    def sum_over_processes(self, accelerator: Accelerator) -> torch.Tensor:
        assert self.total is not None, "nothing was added"
        return accelerator.gather(self.total[None]).sum(0)
