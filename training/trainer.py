"""The trainer of all three stages: exact joint loss, its two parts in the log, answerability metrics."""

import math
import shutil
from pathlib import Path

import torch
import yaml
from huggingface_hub import HfApi
from torch.nn.functional import softplus
from torch.utils.data import IterableDataset
from transformers import EvalPrediction, Seq2SeqTrainer, TrainerCallback
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import HubStrategy
from transformers.training_args import OptimizerNames
from transformers.utils.hub import PushInProgress

from crosstask.configuration_crosstask import IGNORE_INDEX, check_weight
from crosstask.data.collator import CONTRAST_PREFIX, ROW_INDEX
from crosstask.eval.scoring.scores import answerability
from crosstask.generation_crosstask import sum_log_probs
from crosstask.utils.files import list_model_files

LOSS_NAMES = ("summary_loss", "answerability_loss", "contrastive_loss")
GATE_NAMES = ("gate_attention", "gate_feed_forward")


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; raised before the weights take the step."""


class CrossTaskTrainer(Seq2SeqTrainer):
    """
    A `Seq2SeqTrainer` for [`CrossTaskForConditionalGeneration`], which also trains any plain
    sequence-to-sequence model. Arguments are those of `Seq2SeqTrainer`, and

    - `fusion_learning_rate` (`float`, *optional*): that of the fusion, which is new where its parts have been
      trained before.
    - `contrastive_weight` (`float`, defaults to 0): the weight of a loss that wants each summary to be more
      likely under its own question than under another one, -log sigmoid(log p(summary | question) - log
      p(summary | other question)), a mean over the rows that a summary loss is taken of and that the
      collator has another question for. A step takes about twice as long with it. It needs a
      [`CrossTaskCollator`] with `contrasts`, training rows that have `row`, their place in these, and
      `remove_unused_columns=False`. Gradient checkpointing is not reentrant then, unless `args` say so, which
      several processes cannot follow.

    Beyond it:

    - The loss of a step is the same however its rows are spread over processes and accumulated
      micro-batches: the summary loss is a mean over the step's summary tokens, the answerability loss
      over its labelled rows.
    - `summary_loss` and `answerability_loss` of a cross-task model are logged beside `loss` (in nats), and
      `contrastive_loss` of any model where it has a weight.
    - With `fusion="gated"` also `gate_attention` and `gate_feed_forward`, how far the gates are open (the
      `tanh` of each, 0 where closed).
    - Evaluation reports `eval_answerability_accuracy` and `eval_answerability_auroc` of the rows' own
      summaries. With `predict_with_generate`, `compute_metrics` gets the generated tokens and the
      labels (both padded with -100), as from `Seq2SeqTrainer`; without, it is not called.
    - A loss that is not finite ends the training with a [`NonFiniteLossError`].
    - What goes to the Hub is the model with its code, its processor and its card, whatever else the output
      folder holds and whatever `hub_strategy` says of checkpoints.
    """

    def __init__(
        self, *args, compute_metrics=None, fusion_learning_rate=None, contrastive_weight=0.0, **kwargs
    ):
        check_weight("contrastive_weight", contrastive_weight)
        super().__init__(*args, **kwargs)
        if fusion_learning_rate is not None:
            check_weight("fusion_learning_rate", fusion_learning_rate)
            if self.optimizer is not None:
                raise ValueError(
                    "fusion_learning_rate: expected no optimizer beside it, whose groups have rates of their "
                    f"own, got {type(self.optimizer).__name__}"
                )
        self.fusion_learning_rate = fusion_learning_rate
        self.contrastive_weight = contrastive_weight
        if contrastive_weight:
            self._check_contrasts()
            disable_reentrant_checkpointing(self.args)
            self.add_callback(_Epochs(self.data_collator.contrasts))
        # The loss below is scaled for gradient accumulation already; `Trainer` must not divide again.
        self.model_accepts_loss_kwargs = True
        self.is_fused = hasattr(self.model.config, "answerability_weight")
        self._text_metrics = compute_metrics
        if self.is_fused or compute_metrics is not None:
            self.compute_metrics = self._compute_metrics
        self._train_sums = _Sums()
        self._eval_sums = _Sums()
        self._summed_from_step = 0

    @staticmethod
    def get_optimizer_cls_and_kwargs(args, model=None):
        """As `Trainer`'s, but `optim_args` reach Adafactor too, where `Trainer` fixes `scale_parameter`."""
        optimizer_class, kwargs = Seq2SeqTrainer.get_optimizer_cls_and_kwargs(args, model)
        if args.optim == OptimizerNames.ADAFACTOR and args.optim_args:
            pairs = (pair.split("=") for pair in args.optim_args.replace(" ", "").split(","))
            kwargs |= {name: yaml.safe_load(value) for name, value in pairs}
        return optimizer_class, kwargs

    def create_optimizer(self, *args, **kwargs):
        made = self.optimizer is None  # and not by an earlier call, as of a second `train`
        optimizer = super().create_optimizer(*args, **kwargs)
        if made and self.fusion_learning_rate is not None:
            own = {
                id(parameter)
                for name, parameter in self.model.named_parameters()
                if set(name.split(".")) & {"answerability_head", "gated_cross_attention"}
            }
            for group in list(optimizer.param_groups):
                fused = [parameter for parameter in group["params"] if id(parameter) in own]
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in own]
                if fused:
                    optimizer.add_param_group(group | {"params": fused, "lr": self.fusion_learning_rate})
            optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        return optimizer

    def _get_num_items_in_batch(self, batch_samples, device):
        """Summary tokens, labelled and contrasted rows of a step, over its micro-batches and processes."""
        if self.contrastive_weight and not all(map(self._contrasts, batch_samples)):
            raise ValueError(
                f"contrastive_weight: expected training rows with {ROW_INDEX!r}, got a batch without"
            )
        counts = sum((self._count(batch) for batch in batch_samples), torch.zeros(3)).to(device)
        if self.args.world_size > 1:
            counts = self.accelerator.gather(counts[None]).sum(0)
        return counts

    def _count(self, batch):
        kept = self._summary_labels(batch) != IGNORE_INDEX
        rows = (batch["answerable"] != IGNORE_INDEX).sum() if "answerable" in batch else kept.sum() * 0
        contrasted = (
            (kept.any(1) & batch[f"{CONTRAST_PREFIX}rows"]).sum() if self._contrasts(batch) else rows * 0
        )
        return torch.stack([kept.sum(), rows, contrasted]).to("cpu", torch.float)

    def _check_contrasts(self):
        """Refuse what leaves nothing to contrast; rows that may be read once only are checked in batches."""
        collator, problem = self.data_collator, None
        if getattr(collator, "contrasts", None) is None:
            problem = f"a CrossTaskCollator with `contrasts`, got a {type(collator).__name__} without"
        elif self.args.remove_unused_columns:
            problem = f"remove_unused_columns=False, as True leaves no {ROW_INDEX!r} in the rows"
        elif self.train_dataset is not None and not isinstance(self.train_dataset, IterableDataset):
            first = next(iter(self.train_dataset), {})
            if ROW_INDEX not in first:
                problem = f"training rows with {ROW_INDEX!r}, got {', '.join(first) or 'none'}"
        if problem:
            raise ValueError(f"contrastive_weight: expected {problem}")

    def _contrasts(self, batch):
        return self.contrastive_weight > 0 and f"{CONTRAST_PREFIX}rows" in batch

    def _summary_labels(self, batch):
        """The labels that the model's summary loss takes."""
        labels = batch["labels"]
        if getattr(self.model.config, "summary_loss_on", "all") == "answerable" and "answerable" in batch:
            labels = labels.masked_fill((batch["answerable"] != 1)[:, None], IGNORE_INDEX)
        return labels

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        own = {name: value for name, value in inputs.items() if not name.startswith(CONTRAST_PREFIX)}
        outputs = model(**own)
        means = self._means(own, outputs)
        contrast = self._contrast(model, inputs, outputs) if self._contrasts(inputs) else means[:1] * 0
        means = torch.cat([means, contrast.reshape(1)])
        counts = self._count(inputs).to(means.device)
        if model.training and num_items_in_batch is not None:
            # Processes average their gradients, so each gives its share of the sum times their number.
            share = counts / num_items_in_batch.clamp(min=1) * self.accelerator.num_processes
            means = means * share
            if not self._train_sums:
                self._summed_from_step = self.state.global_step
            self._train_sums.add(means.detach() / self.accelerator.num_processes)
        else:
            self._eval_sums.add(torch.stack([means.detach() * counts, counts]))
        loss = means @ self._weights(means.device)
        return (loss, outputs) if return_outputs else loss

    def _means(self, inputs, outputs):
        """This batch's mean summary loss and mean answerability loss: (2,)."""
        summary_loss = outputs["summary_loss"] if self.is_fused else outputs["loss"]
        if self.label_smoother is not None:
            summary_loss = self.label_smoother(outputs, self._summary_labels(inputs))
        answerability_loss = outputs.get("answerability_loss") if self.is_fused else None
        if answerability_loss is None:
            answerability_loss = torch.zeros_like(summary_loss)
        # `mean` joins the replicas of `DataParallel`.
        return torch.stack([summary_loss.mean(), answerability_loss.mean()]).float()

    def _contrast(self, model, inputs, outputs):
        """The mean contrastive loss of this batch."""
        others = {
            name.removeprefix(CONTRAST_PREFIX): value
            for name, value in inputs.items()
            if name.startswith(CONTRAST_PREFIX) and name != f"{CONTRAST_PREFIX}rows"
        }
        if self.is_fused and self.model.gated_cross_attention is None:
            # Only the fusion, which nobody asks here, reads the question encoder's output: that of the own
            # questions will do. It is given as it is, since DDP takes for unused what has no part in the
            # last forward pass before the backward pass, and then fails at the gradients of the first.
            others["question_encoder_outputs"] = (outputs["question_encoder_last_hidden_state"],)
            others["question_attention_mask"] = inputs.get(
                "question_attention_mask", inputs["attention_mask"]
            )
        labels = self._summary_labels(inputs)
        logits = outputs["logits"], model(**others, **self._decoded(inputs["labels"]))["logits"]
        own, other = (sum_log_probs(each, labels) for each in logits)
        kept = (labels != IGNORE_INDEX).any(1) & inputs[f"{CONTRAST_PREFIX}rows"]
        return (softplus(other - own) * kept).sum() / kept.sum().clamp(min=1)

    def _decoded(self, labels):
        """What the decoder reads for these labels, without a loss of them where the model tells it apart."""
        shifted = getattr(self.model, "prepare_decoder_input_ids_from_labels", None)
        if shifted is None:  # M2M100, NLLB and Blenderbot shift within their forward pass
            return {"labels": labels}
        return {"decoder_input_ids": shifted(labels=labels), "use_cache": False}

    def _weights(self, device):
        weight = getattr(self.model.config, "answerability_weight", 0.0)
        return torch.tensor([1.0, weight, self.contrastive_weight], device=device)

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}: training stopped before "
                "that step, and earlier checkpoints are untouched; a lower learning rate, bf16 instead of "
                "fp16 or a check of the data is the usual cure"
            )
        return loss

    def check_weights(self):
        """A finite loss may have gradients that are not; what they have ruined is not to be saved."""
        finite = [p.detach().isfinite().all() for p in self.model.parameters() if p.requires_grad]
        if not all(finite):
            raise NonFiniteLossError(
                f"the weights are not finite after step {self.state.global_step}, and not saved; a lower "
                "learning rate, bf16 instead of fp16 or a check of the data is the usual cure"
            )

    def _save_checkpoint(self, *args, **kwargs):
        self.check_weights()
        super()._save_checkpoint(*args, **kwargs)

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        # A pickle that names this machine's folders, and that nothing reads.
        Path(output_dir or self.args.output_dir, TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def push_to_hub(
        self,
        commit_message="End of training",
        blocking=True,
        token=None,
        revision=None,
        private=None,
        **kwargs,
    ):
        """As `Trainer.push_to_hub`, but of the output folder only what a user of the model has need of."""
        if private is not None:
            self.args.hub_private_repo = private
        if self.hub_model_id is None:
            self.init_hf_repo(token=token or self.args.hub_token)
        self._finish_current_push()  # before what it reads is written anew
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        kwargs.setdefault("tags", list(self.model.model_tags or ()))
        self.create_model_card(**{"model_name": self.hub_model_id.split("/")[-1]} | kwargs)
        return self._upload(commit_message, token, revision, run_as_future=not blocking)

    def _push_from_checkpoint(self, checkpoint_folder):
        busy = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END or busy:
            return
        # The checkpoint may be deleted while it is on its way.
        for path, file in list_model_files(Path(checkpoint_folder)).items():
            target = Path(self.args.output_dir, path)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
        job = self._upload(f"Training in progress, step {self.state.global_step}", run_as_future=True)
        self.push_in_progress = PushInProgress([job])

    def _upload(self, message, token=None, revision=None, **kwargs):
        folder = Path(self.args.output_dir)
        return HfApi(token=token or self.args.hub_token).upload_folder(
            repo_id=self.hub_model_id,
            folder_path=folder,
            commit_message=message,
            allow_patterns=["README.md", *list_model_files(folder)],
            # Of other shards than these, say.
            delete_patterns=["model*.safetensors", "model.safetensors.index*.json"],
            revision=revision or self.args.hub_revision,
            **kwargs,
        )

    def log(self, logs, *args, **kwargs):
        names = (LOSS_NAMES[:2] if self.is_fused else ()) + (
            LOSS_NAMES[2:] if self.contrastive_weight else ()
        )
        if "loss" in logs and self._train_sums and names:
            steps = max(self.state.global_step - self._summed_from_step, 1)
            sums = self._train_sums.over_processes(self.accelerator) / steps
            logs.update(
                {name: value for name, value in zip(LOSS_NAMES, sums.tolist(), strict=True) if name in names}
            )
        if "loss" in logs and (gate := getattr(self.model, "gated_cross_attention", None)) is not None:
            logs.update(zip(GATE_NAMES, gate.gates.detach().tanh().tolist(), strict=True))
        if "loss" in logs:
            self._train_sums.clear()
        super().log(logs, *args, **kwargs)

    def evaluation_loop(self, *args, metric_key_prefix="eval", **kwargs):
        self._eval_sums.clear()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self._eval_sums:
            # A mean over the whole set, where `Trainer` averages batches of unequal weight. (Only the rows
            # that fill up the last batch of several processes count twice.)
            sums, counts = self._eval_sums.over_processes(self.accelerator)
            means = sums / counts.clamp(min=1)
            if self.is_fused:
                named = zip(
                    LOSS_NAMES[:2], means.tolist(), strict=False
                )  # only training's rows are contrasted
                output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in named})
            output.metrics[f"{metric_key_prefix}_loss"] = (means @ self._weights(means.device)).item()
        return output

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None, **gen_kwargs):
        inputs = {name: value for name, value in inputs.items() if not name.startswith(CONTRAST_PREFIX)}
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        judged = self.is_fused and "answerable" in inputs
        if prediction_loss_only or not (judged or self.args.predict_with_generate):
            return loss, None, None
        predictions, references = [], []
        if judged:
            predictions.append(outputs["answerability_logits"])
            references.append(inputs["answerable"])
        if self.args.predict_with_generate:
            sources = {k: v for k, v in inputs.items() if k not in ("labels", "answerable")}
            gen_kwargs = gen_kwargs or getattr(self, "_gen_kwargs", {})
            gen_kwargs = {k: v for k, v in gen_kwargs.items() if v is not None}
            tokens = self.model.generate(**sources, **gen_kwargs)
            predictions.append(tokens)
            references.append(inputs["labels"])
        return loss, tuple(predictions), tuple(references)

    def _compute_metrics(self, prediction):
        metrics = {}
        predictions, references = list(prediction.predictions), list(prediction.label_ids)
        if self.is_fused and len(predictions) > self.args.predict_with_generate:
            logits = torch.from_numpy(predictions.pop(0)).float()
            labels = references.pop(0)
            scores = answerability(logits.softmax(-1)[:, 1].tolist(), labels.tolist())
            metrics |= {
                f"answerability_{name}": math.nan if value is None else value
                for name, value in scores.items()
            }
        if predictions and self._text_metrics is not None:
            metrics |= self._text_metrics(EvalPrediction(predictions[0], references[0]))
        return metrics


def disable_reentrant_checkpointing(args):
    """
    Set gradient checkpointing, where it is on, to what two forward passes before a backward pass need in
    several processes: the reentrant kind, which transformers 4 has by default, reports each gradient twice.

    Raises:
        ValueError: where there are several and the reentrant kind is asked for.
    """
    if not args.gradient_checkpointing:
        return
    settings = {"use_reentrant": False} | (args.gradient_checkpointing_kwargs or {})
    if settings["use_reentrant"] and args.world_size > 1:
        raise ValueError(
            "gradient_checkpointing_kwargs: expected use_reentrant to be False beside contrastive_weight, as "
            f"there are {args.world_size} processes, got {settings['use_reentrant']}"
        )
    for name in ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"):  # the later name
        if hasattr(args, name):
            setattr(args, name, settings)


class _Epochs(TrainerCallback):
    """Tells the contrasts which epoch they are drawn for; it begins before its batches are made."""

    def __init__(self, contrasts):
        self.contrasts = contrasts

    def on_train_begin(self, args, state, control, **kwargs):
        # Counted from there: of data without a length, the state's epochs are shares of all steps.
        self.epoch = int(state.epoch or 0)

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.contrasts.set_epoch(self.epoch)
        self.epoch += 1


class _Sums:
    """A running sum of one tensor, kept on its device until it is read."""

    def __init__(self):
        self.total = None

    def __bool__(self):
        return self.total is not None

    def add(self, values):
        self.total = values if self.total is None else self.total + values

    def clear(self):
        self.total = None

    def over_processes(self, accelerator):
        return accelerator.gather(self.total[None]).sum(0)
