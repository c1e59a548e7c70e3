"""Load task models; load, save and publish checkpoints of a cross-task model."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, PreTrainedModel
from transformers.quantizers import AutoQuantizationConfig
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import cached_file, find_adapter_config_file

MODEL_TAGS = ("crosstask", "question-prompted-summarization")
_HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
# A file with all weights, or the index of shards. The groups match the name of a variant, such as "fp16".
_WEIGHTS_FILE = re.compile(r"model(?:\.(\w+))?\.safetensors|model\.safetensors\.index(?:\.(\w+))?\.json")
# A line of `sha256sum`; "*" marks its option `--binary`. Only files in the same folder are accepted.
_CHECKSUM_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *]([^/\\]+)")
_CARD_PLACEHOLDER = "[More Information Needed]"  # in the model card that transformers generates
_CARD = """
# {name}

A question-prompted summarizer: it writes the summary of a passage for a question, and estimates the
probability that the summary carries the answer (`fusion="{fusion}"`).

```python
from transformers import pipeline

summarize = pipeline("question-summarization", model={repo_id!r}, trust_remote_code=True)
result = summarize(question="Who opened the bridge?", passage="The mayor opened the bridge on May 3.")
print(result["summary"], result["answerability"])
```
"""


# Task models: the summarizer and the question answerer that a model is composed from.


def load_task_model(
    model: str | os.PathLike | nn.Module, model_kwargs: Mapping[str, Any] | None = None, merge: bool = True
) -> PreTrainedModel:
    """
    Load a summarizer or a question answerer, independent of any model that is already in memory.

    Args:
        model (`str`, `os.PathLike`, `PreTrainedModel` or `PeftModel`):
            Hub id or folder of a model or of a PEFT adapter, or a loaded model, which is copied.
        model_kwargs (`dict`, *optional*):
            Arguments of `from_pretrained`. An adapter's base model gets them without `trust_remote_code`.
        merge (`bool`, *optional*, defaults to `True`):
            Whether to merge an adapter into its base model. If `False`, return the base model alone.

    Raises:
        ValueError: if a loaded model has adapter layers without being a `PeftModel`, or an adapter does not
            name its base model.
        ImportError: if `model` is an adapter and peft is not installed.
    """
    model_kwargs = dict(model_kwargs or {})
    hub_kwargs = select_hub_kwargs(model_kwargs)
    if isinstance(model, PreTrainedModel):
        if any(hasattr(module, "base_layer") for module in model.modules()):
            raise ValueError(
                f"a loaded {type(model).__name__} has adapter layers in it, as `load_adapter` adds them; "
                "expected a `PeftModel`, or the adapter's folder or Hub id, which can be merged."
            )
        return copy.deepcopy(model)
    if hasattr(model, "merge_and_unload"):  # a loaded PeftModel
        model = copy.deepcopy(model)
        return merge_adapter(model) if merge else model.unload()
    if find_adapter_config_file(model, **hub_kwargs) is not None:
        return _load_adapter(model, model_kwargs, hub_kwargs, merge)
    config = AutoConfig.from_pretrained(model, **hub_kwargs)
    auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModel
    # Unpickling `pytorch_model.bin` could run arbitrary code.
    return auto_class.from_pretrained(model, config=config, **{"use_safetensors": True, **model_kwargs})


def _load_adapter(adapter, model_kwargs, hub_kwargs, merge):
    """Load the base model of an adapter that is in a folder or on the Hub, and merge the adapter into it."""
    try:
        from peft import PeftConfig, PeftModel
    except ImportError as error:
        raise ImportError(f"{adapter} is a PEFT adapter: `pip install peft` to load it.") from error
    base_name = PeftConfig.from_pretrained(adapter, **hub_kwargs).base_model_name_or_path
    if not base_name:
        raise ValueError(
            f"{adapter}: adapter_config.json names no base model, expected `base_model_name_or_path`; load "
            "the adapter on its base model yourself, and pass the `PeftModel`."
        )
    # Whoever trusts the code of the adapter's repository has not trusted the repository that it names.
    model_kwargs.pop("trust_remote_code", None)
    base = load_task_model(base_name, model_kwargs)
    return merge_adapter(PeftModel.from_pretrained(base, adapter, **hub_kwargs)) if merge else base


def merge_adapter(model: nn.Module) -> PreTrainedModel:
    """Merge the active adapter of a `PeftModel` into its base model, and make all its weights trainable."""
    from peft.utils import ModulesToSaveWrapper

    # `merge_and_unload` of methods other than LoRA fails on a fully trained module that has several layers.
    base_model = model.base_model.model
    for name, module in list(base_model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            active = module.active_adapters  # empty if the active adapter has no copy of the module
            trained = module.modules_to_save[active[0]] if active else module.original_module
            base_model.set_submodule(name, trained)
    merged = model.merge_and_unload().requires_grad_(True)
    # peft compares the LM head with the encoder's embeddings, and so sets `tie_word_embeddings=False` for
    # T5Gemma, where the head shares the embeddings of the decoder.
    config = merged.config
    is_untied = getattr(config, "tie_word_embeddings", None) is False
    if config.is_encoder_decoder and merged.can_generate() and is_untied:
        embeddings = merged.get_decoder().get_input_embeddings()
        config.tie_word_embeddings = get_lm_head(merged).weight is embeddings.weight
    return merged


def select_hub_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return those arguments of `from_pretrained` that say where on the Hub a file is and how to get it."""
    return {name: kwargs[name] for name in _HUB_KWARGS if kwargs.get(name) is not None}


def find_run_model(name: Any) -> Any:
    """Return the folder of the model if `name` is the folder of a training run, and otherwise `name`."""
    folder = os.path.join(name or "", "crosstask")
    is_run = name and os.path.isfile(os.path.join(name, "recipe.yaml")) and os.path.isdir(folder)
    return folder if is_run else name


def get_text_encoder(model: PreTrainedModel) -> PreTrainedModel:
    """Return the text encoder of `model`, without its task head and pooler, which are not used."""
    model = model.base_model
    # The encoder of a sequence-to-sequence model is itself a model. BERT's attribute `encoder` is not: it has
    # no embeddings.
    encoder = getattr(model, "encoder", None)
    if isinstance(encoder, PreTrainedModel):
        return get_text_encoder(encoder)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


def get_lm_head(summarizer: PreTrainedModel) -> nn.Module:
    """Return the linear layer that turns the decoder's states into logits."""
    head = summarizer.get_output_embeddings()
    return getattr(head, "out_proj", head)  # T5Gemma wraps the linear layer


def mark_initialized(model: PreTrainedModel) -> PreTrainedModel:
    """Mark all modules as initialized, so that transformers does not initialize loaded weights again."""
    for module in model.modules():
        module._is_hf_initialized = True
    return model


# Checkpoints of the cross-task model.


class CheckpointMixin:
    """Load, save and publish a cross-task model with its code, checksums and model card."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *args,
        output_loading_info: bool = False,
        verify_weights: bool = False,
        **kwargs,
    ) -> Any:
        r"""
        Load a checkpoint. Same arguments as [`PreTrainedModel.from_pretrained`], and one more. With a
        `quantization_config` the fusion and the LM head keep their precision.

        Args:
            verify_weights (`bool`, *optional*, defaults to `False`):
                Whether to compare the weights with the SHA-256 checksums that were published with them. This
                reads every file a second time, which takes a second or two per gigabyte.

        Raises:
            ValueError: if weights are missing, unknown to the model or of another shape. With
                `output_loading_info=True`, the loading info reports missing and unknown weights instead.
            OSError: if the weights cannot be read. With `verify_weights=True` also if a file differs from its
                checksum or is missing, or there are no checksums.
        """
        name, variant = find_run_model(pretrained_model_name_or_path), kwargs.get("variant")
        hub_kwargs = select_hub_kwargs(kwargs)
        # The list replaces the default of transformers, which holds the LM head.
        full_precision = ["summarizer.lm_head", *cls.fusion_modules, "question_encoder.updates"]
        if kwargs.get("quantization_config") is not None:
            kwargs["quantization_config"] = skip_modules(kwargs["quantization_config"], full_precision)
        elif kwargs.get("load_in_8bit") or kwargs.get("load_in_4bit"):  # arguments of transformers 4
            kwargs["llm_int8_skip_modules"] = [*(kwargs.get("llm_int8_skip_modules") or ()), *full_precision]
        try:
            model, info = super().from_pretrained(name, *args, output_loading_info=True, **kwargs)
        except (OSError, RuntimeError, SafetensorError) as error:
            if verify_weights:
                verify_checksums(name, variant, **hub_kwargs)  # names the file that is damaged
            if (clear_error := _describe_load_error(name, error)) is not None:
                raise clear_error from error
            raise
        if verify_weights:
            verify_checksums(name, variant, **hub_kwargs | {"force_download": False})
        prevent_weight_packing(model)
        if output_loading_info:
            return model, info
        _check_loading_info(name, info)
        return model

    def save_pretrained(
        self, save_directory: str | os.PathLike, is_main_process: bool = True, **kwargs
    ) -> None:
        """
        Save weights, configuration and code. Same arguments as [`PreTrainedModel.save_pretrained`].

        Older weights and checksums of the same variant are removed from the folder.
        """
        if is_main_process:
            checksums = os.path.join(save_directory, _get_checksums_name(kwargs.get("variant")))
            if os.path.exists(checksums):
                os.remove(checksums)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            self._save_pipeline_code(save_directory)
            remove_stale_weights(save_directory)

    def _upload_modified_files(self, working_dir, repo_id, *args, **kwargs):
        """
        Upload what `save_pretrained` wrote to `working_dir`, with checksums and a model card.

        How it works: `push_to_hub` and `save_pretrained(push_to_hub=True)` of transformers both call this
        private method between saving and uploading, where there is no public hook (seen in 4.57 and 5.23).
        """
        remove_stale_weights(working_dir)
        write_checksums(working_dir)
        card = os.path.join(working_dir, "README.md")
        if os.path.exists(card) and _CARD_PLACEHOLDER in ModelCard.load(card).text:
            self._create_card(repo_id).save(card)
        commit = super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)
        if not kwargs.get("create_pr"):
            _delete_stale_uploads(working_dir, repo_id, kwargs.get("token"), kwargs.get("revision"))
        return commit

    def _create_card(self, repo_id):
        metadata = ModelCardData(
            library_name="transformers", pipeline_tag="summarization", tags=list(self.model_tags)
        )
        text = _CARD.format(name=repo_id.split("/")[-1], repo_id=repo_id, fusion=self.config.fusion)
        return ModelCard(f"---\n{metadata.to_yaml()}\n---\n{text}")


def _describe_load_error(name, error):
    """Return an error that says in one sentence what is wrong with the weights, or `None` if `error` does."""
    if "size mismatch" in str(error) or "ignore_mismatched_sizes" in str(error):
        return ValueError(
            f"{name}: its weights have other shapes than its config.json says; load both from one "
            "checkpoint, or pass `ignore_mismatched_sizes=True` to get new weights in their place."
        )
    # A missing shard raises FileNotFoundError itself. Its subclasses are the Hub's, and clear.
    if isinstance(error, SafetensorError) or type(error) is FileNotFoundError:
        return OSError(
            f"{name}: its weights cannot be read ({error}); download them again with `force_download=True`, "
            "or ask their publisher."
        )
    return None


def _check_loading_info(name, info):
    """Raise a ValueError if weights are missing or unknown. (Those of another shape were asked for.)"""
    missing = set(info["missing_keys"]) - {entry[0] for entry in info["mismatched_keys"]}
    problems = [
        describe_weights(missing, "missing"),
        describe_weights(info["unexpected_keys"], "unknown to the model"),
    ]
    if any(problems):
        raise ValueError(
            f"{name}: {' and '.join(filter(None, problems))}; expected a complete checkpoint of this model: "
            "download it again with `force_download=True`, ask its publisher, or compose a new one with "
            "`from_tasks`."
        )


def describe_weights(names: Collection[str], problem: str) -> str:
    """
    Describe up to three of the weights in `names`, e.g. "4 weights are missing (a, b, c, ...)".

    Returns:
        `str`: The description, empty if there are no names.
    """
    if not names:
        return ""
    shown = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} weights are {problem} ({shown})"


# Files of weights and their checksums.


def format_checksums(files: Mapping[str, str | os.PathLike]) -> dict[str, str]:
    """
    Format the SHA-256 checksums of weights as `sha256sum` does, so that `sha256sum -c` can verify them.

    Args:
        files (`dict[str, str | os.PathLike]`):
            Paths by their names in the checkpoint. Files that hold no weights are ignored.

    Returns:
        `dict[str, str]`: The content of each file of checksums by its name, such as
        `"model.safetensors.sha256"`. There is one file per variant of the weights, with one line for a single
        file, or one for the index and one per shard.
    """
    contents = {}
    for name, variant in _find_weights(files).items():
        names = [name]
        if name.endswith(".json"):
            with open(files[name], encoding="utf-8") as file:
                names += sorted(set(json.load(file)["weight_map"].values()))
        lines = (f"{_hash_file(files[listed])}  {listed}\n" for listed in names)
        contents[_get_checksums_name(variant)] = "".join(lines)
    return contents


def write_checksums(folder: str | os.PathLike) -> None:
    """Write the checksums of the weights in `folder` beside them; see [`format_checksums`]."""
    files = {name: os.path.join(folder, name) for name in os.listdir(folder)}
    for name, text in format_checksums(files).items():
        path = os.path.join(folder, name)
        with open(f"{path}.tmp", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(f"{path}.tmp", path)


def verify_checksums(name: str | os.PathLike | None, variant: str | None = None, **hub_kwargs) -> None:
    """
    Compare the weights of a checkpoint with the checksums beside them.

    Args:
        name (`str` or `os.PathLike`): Hub id or folder.
        variant (`str`, *optional*): Variant of the weights, such as `"fp16"`.
        hub_kwargs: Arguments of `from_pretrained` such as `revision`; see [`select_hub_kwargs`].

    Raises:
        OSError: if there are no checksums, or a file is missing or differs.
    """
    checksums_name = _get_checksums_name(variant)
    checksums = find_file(name, checksums_name, **hub_kwargs) if name is not None else None
    if checksums is None:
        raise OSError(
            f"{name}: has no {checksums_name}, which `verify_weights=True` compares the weights with; ask "
            "its publisher for one, or load it without."
        )
    expected = {}
    with open(checksums, encoding="utf-8") as file:
        for line in filter(None, map(str.rstrip, file)):
            match = _CHECKSUM_LINE.fullmatch(line)
            if match is None:
                raise OSError(
                    f"{name}: {checksums_name} has a line that is not of the form that sha256sum writes "
                    f"({line[:80]!r}); download it again with `force_download=True`, or ask its publisher."
                )
            expected[match[2]] = match[1].lower()
    # transformers prefers a single file to shards, so it would be loaded although it is not listed.
    single_file = checksums_name.removesuffix(".sha256")
    if single_file not in expected and find_file(name, single_file, **hub_kwargs) is not None:
        expected[single_file] = "not listed"
    for filename, checksum in expected.items():
        path = find_file(name, filename, **hub_kwargs)
        if path is None or _hash_file(path) != checksum:
            problem = "is missing, but listed in" if path is None else "differs from its checksum in"
            raise OSError(
                f"{name}: {filename} {problem} {checksums_name}; download it again with "
                "`force_download=True`, or ask its publisher."
            )


def remove_stale_weights(folder: str | os.PathLike) -> None:
    """
    Remove the older weights of each variant if `folder` has both a single file and the index of shards.

    This happens if a model is saved to a folder twice with different shard sizes. transformers would load the
    single file even if it is the older one.
    """
    names = sorted(os.listdir(folder), key=lambda name: os.stat(os.path.join(folder, name)).st_mtime_ns)
    newest: dict[str | None, str] = {}
    for name, variant in _find_weights(names).items():
        if variant in newest:
            os.remove(os.path.join(folder, newest[variant]))
        newest[variant] = name


def _delete_stale_uploads(folder, repo_id, token, revision):
    """Delete those weights of a repository that an upload of `folder` has replaced under another name."""
    api = HfApi(token=token)
    uploaded = _find_weights(os.listdir(folder))
    published = _find_weights(api.list_repo_files(repo_id, revision=revision))
    stale = [name for name in published if published[name] in uploaded.values() and name not in uploaded]
    if stale:
        message = "Delete weights of an earlier version"
        api.delete_files(repo_id, stale, revision=revision, commit_message=message)


def _find_weights(names):
    """Return the variant (`None` for the default) of each single file or index of weights among `names`."""
    return {name: match[1] or match[2] for name in names if (match := _WEIGHTS_FILE.fullmatch(name))}


def find_file(name: str | os.PathLike, filename: str, **hub_kwargs) -> str | None:
    """Return the path of a file of a checkpoint or adapter, downloaded if it is on the Hub, or `None`."""
    return cached_file(
        name,
        filename,
        **hub_kwargs,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )


def _get_checksums_name(variant):
    return f"model.{variant}.safetensors.sha256" if variant else "model.safetensors.sha256"


def _hash_file(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def make_tokenizer_portable(folder: str | os.PathLike) -> None:
    """
    Rewrite `tokenizer_config.json` so that both transformers 4 and 5 can read it.

    transformers 5 calls its generic fast tokenizer `TokenizersBackend`, a name that 4 does not know, and
    stores a list of extra special tokens where 4 expects `additional_special_tokens`.
    """
    path = os.path.join(folder, "tokenizer_config.json")
    with open(path, encoding="utf-8") as file:
        settings = json.load(file)
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("extra_special_tokens"), list):
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    with open(f"{path}.tmp", "w", encoding="utf-8") as file:
        json.dump(settings, file, indent=2, ensure_ascii=False)
    os.replace(f"{path}.tmp", path)


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """
    Make a tokenizer cut a long passage at its end, whatever `truncation_side` it was saved with.

    Raises:
        ValueError: if it has no padding token. None is made up, because the model may not know it.
    """
    if tokenizer.pad_token is None:
        raise ValueError(
            f"`{name}` has no padding token; set its `pad_token`, for instance to its `eos_token`, and save "
            "it beside the model."
        )
    tokenizer.truncation_side = "right"


# Quantization.


def skip_modules(quantization_config: Any, modules: Collection[str]) -> Any:
    """Return a copy of a quantization config, object or dict, that keeps `modules` in full precision."""
    config = copy.deepcopy(quantization_config)
    if isinstance(config, dict):
        config = AutoQuantizationConfig.from_dict(config)
    # The names of bitsandbytes, and of all other methods.
    for key in ("llm_int8_skip_modules", "modules_to_not_convert"):
        if hasattr(config, key):
            setattr(config, key, list(dict.fromkeys([*(getattr(config, key) or ()), *modules])))
            break
    return config


def prevent_weight_packing(model: nn.Module) -> None:
    """
    Keep bitsandbytes from packing four-bit weights.

    How it works: on CPUs with AVX512_BF16, `bitsandbytes.nn.Linear4bit` packs its weights for a faster kernel
    when it runs in `eval()` on an input that needs no gradient. Packed weights stay packed in training, where
    they silently pass no gradients, and only widths that are multiples of 64 can be packed. The attribute
    that is set here turns packing off (seen in bitsandbytes 0.50.2).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
