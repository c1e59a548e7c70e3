"""What a checkpoint promises: that its weights are whole and as they were saved, and a card of its own."""

import copy
import hashlib
import json
import os
import re

from huggingface_hub import HfApi, ModelCard, ModelCardData
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, PreTrainedModel
from transformers.quantizers import AutoQuantizationConfig
from transformers.utils import cached_file, find_adapter_config_file

_HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
MODEL_TAGS = ("crosstask", "question-prompted-summarization")
_NAMED = 3  # weights that a message names
# All weights in one file, or the index of several; with the name of a variant, such as fp16.
_WEIGHTS = re.compile(r"model(?:\.(\w+))?\.safetensors|model\.safetensors\.index(?:\.(\w+))?\.json")
# A line of `sha256sum`; the star is that of `--binary`. A file beside it, no path.
_SUM = re.compile(r"([0-9a-fA-F]{64}) [ *]([^/\\]+)")
# A list of one's own takes the place of transformers', which has the LM head.
_UNQUANTIZED = (
    "summarizer.lm_head",
    "answerability_head",
    "gated_cross_attention",
    "question_encoder.updates",
)
_TEMPLATE = "[More Information Needed]"  # in the card that transformers makes up where there is none
_CARD = """
# {name}

A question-prompted summarizer: it writes the summary of a passage under a question, and says how probable it
is that the summary carries the answer (`fusion="{fusion}"`).

```python
from transformers import pipeline

summarize = pipeline("question-summarization", model={repo_id!r}, trust_remote_code=True)
result = summarize(question="Who opened the bridge?", passage="The mayor opened the bridge on May 3.")
print(result["summary"], result["answerability"])
```
"""


class CheckpointMixin:
    """Saving, loading and publishing, as of any model, with what goes beyond it."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info=False, **kwargs):
        r"""
        As of any model; arguments and result are those of [`PreTrainedModel.from_pretrained`]. Comparing the
        weights with their sums takes a second or two for each gigabyte. With a `quantization_config` the
        fusion and the LM head keep their precision.

        Raises:
            ValueError: where weights are missing, unknown to the model or of another shape. With
                `output_loading_info` it is left to the caller to judge by that.
            OSError: where the weights cannot be read, or are not those that were saved.
        """
        name = pretrained_model_name_or_path
        if kwargs.get("quantization_config") is not None:
            kwargs["quantization_config"] = _sparing(kwargs["quantization_config"])
        elif kwargs.get("load_in_8bit") or kwargs.get(
            "load_in_4bit"
        ):  # transformers 4's, with keys beside it
            kwargs["llm_int8_skip_modules"] = _spared(kwargs.get("llm_int8_skip_modules"))
        hub = {key: kwargs[key] for key in _HUB_KWARGS if kwargs.get(key) is not None}
        variant = kwargs.get("variant")
        try:
            model, info = super().from_pretrained(name, *args, output_loading_info=True, **kwargs)
        except (OSError, RuntimeError, SafetensorError) as error:
            if name is not None:
                check_weights(name, variant, **hub)  # says more, where it finds something
            if "size mismatch" in str(error) or "ignore_mismatched_sizes" in str(error):
                raise ValueError(
                    f"{name}: its weights are of other shapes than its config.json says; load both from one "
                    "checkpoint, or give `ignore_mismatched_sizes=True` for new weights in their place."
                ) from error
            # Of a missing shard, exactly that class: its heirs tell of the Hub, and say what to do.
            if isinstance(error, SafetensorError) or type(error) is FileNotFoundError:
                raise OSError(
                    f"{name}: its weights cannot be read ({error}); download them again with "
                    "`force_download=True`, or ask who published them."
                ) from error
            raise
        prevent_weight_packing(model)
        if name is not None:
            check_weights(name, variant, **hub | {"force_download": False})
        if output_loading_info:
            return model, info
        mismatched = {entry[0] for entry in info["mismatched_keys"]}
        missing = set(info["missing_keys"]) - mismatched
        problems = [
            describe_weights(missing, "missing"),
            describe_weights(info["unexpected_keys"], "unknown to the model"),
        ]
        if problems := [problem for problem in problems if problem]:
            raise ValueError(
                f"{name}: {' and '.join(problems)}: no whole checkpoint of this model; download it again "
                "with `force_download=True`, ask who published it, or compose a new one with `from_tasks`."
            )
        return model

    def save_pretrained(self, save_directory, is_main_process=True, **kwargs):
        """
        As of any model, and beside the weights a file of their SHA-256 sums, which `from_pretrained` and
        `sha256sum -c` compare them with.
        """
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            self._save_pipeline_code(save_directory)
            write_checksums(save_directory)

    def _upload_modified_files(self, working_dir, repo_id, *args, **kwargs):
        # Of `push_to_hub`, and of `save_pretrained` with it: between saving and uploading.
        write_checksums(working_dir)
        card = os.path.join(working_dir, "README.md")
        if os.path.exists(card) and _TEMPLATE in ModelCard.load(card).text:
            self._own_card(repo_id).save(card)
        made = super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)
        if not kwargs.get("create_pr"):
            _delete_stale(working_dir, repo_id, kwargs.get("token"), kwargs.get("revision"))
        return made

    def _own_card(self, repo_id):
        data = ModelCardData(
            library_name="transformers", pipeline_tag="summarization", tags=list(self.model_tags)
        )
        text = _CARD.format(name=repo_id.split("/")[-1], repo_id=repo_id, fusion=self.config.fusion)
        return ModelCard(f"---\n{data.to_yaml()}\n---\n{text}")


def write_checksums(folder):
    """
    Write the SHA-256 sums of a folder's weights, one file for each variant, as `sha256sum` would. Of
    weights in one file and in several, as a folder that was saved to twice may have, the older ones go:
    transformers would load the one file, whichever is newer.
    """
    found = {}
    for name in sorted(os.listdir(folder), key=lambda name: os.stat(os.path.join(folder, name)).st_mtime_ns):
        if _WEIGHTS.fullmatch(name):
            variant = _variant_of(name)
            if variant in found:
                os.remove(os.path.join(folder, found[variant]))
            found[variant] = name
    for variant, name in found.items():
        names = [name]
        if name.endswith(".json"):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                names += sorted(set(json.load(file)["weight_map"].values()))
        path = os.path.join(folder, _sums_of(variant))
        with open(path + ".tmp", "w", encoding="utf-8") as file:
            file.writelines(f"{_sum(os.path.join(folder, each))}  {each}\n" for each in names)
        os.replace(path + ".tmp", path)


def _delete_stale(folder, repo_id, token, revision):
    """Likewise of a repository that a folder was uploaded to."""
    weights = [name for name in os.listdir(folder) if _WEIGHTS.fullmatch(name)]
    variants = {_variant_of(name) for name in weights}
    api = HfApi(token=token)
    there = [name for name in api.list_repo_files(repo_id, revision=revision) if _WEIGHTS.fullmatch(name)]
    stale = [name for name in there if _variant_of(name) in variants and name not in weights]
    if stale:
        message = "Delete weights that were saved before"
        api.delete_files(repo_id, stale, revision=revision, commit_message=message)


def check_weights(name, variant=None, **hub):
    """
    Compare a checkpoint's weights with the sums that were saved beside them, if any were.

    Raises:
        OSError: naming the file that is missing or is not what was saved.
    """
    sums = _sums_of(variant)
    found = find_file(name, sums, **hub)
    if found is None:
        return
    with open(found, encoding="utf-8") as file:
        lines = [line.rstrip() for line in file if line.strip()]
    expected = {}
    for line in lines:
        matched = _SUM.fullmatch(line)
        if matched is None:
            raise OSError(
                f"{name}: {sums} has a line that is not of the form that sha256sum writes ({line[:80]!r}); "
                "download it again with `force_download=True`, or delete that file."
            )
        expected[matched[2]] = matched[1].lower()
    # transformers takes the one file before any shards, so it has to be what was saved, if it is there.
    single = sums.removesuffix(".sha256")
    if single not in expected and find_file(name, single, **hub) is not None:
        expected[single] = None
    for filename, digest in expected.items():
        path = find_file(name, filename, **hub)
        if path is None or _sum(path) != digest:
            problem = "is missing" if path is None else "is not what was saved"
            raise OSError(
                f"{name}: {filename} {problem}, by {sums}; download it again with `force_download=True`, or "
                "delete that file if the change was meant."
            )


def _sparing(quantization):
    """A quantization that leaves alone what is small and new, and the LM head."""
    quantization = copy.deepcopy(quantization)
    if isinstance(quantization, dict):
        quantization = AutoQuantizationConfig.from_dict(quantization)
    for key in ("llm_int8_skip_modules", "modules_to_not_convert"):  # bitsandbytes' and all others'
        if hasattr(quantization, key):
            setattr(quantization, key, _spared(getattr(quantization, key)))
            break
    return quantization


def _spared(own):
    own = own or ()
    return [*own, *(name for name in _UNQUANTIZED if name not in own)]


def prevent_weight_packing(model):
    """
    Keep bitsandbytes from packing four-bit weights, which it does on CPUs with AVX512_BF16 when a layer in
    `eval()` reads something without gradients. Packed weights stay so in training, where no gradient passes
    them and nothing says so; and only widths that are multiples of 64 can be packed.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def describe_weights(names, what):
    """A message about weights, some of which it names; empty about none."""
    if not names:
        return ""
    shown = ", ".join(sorted(names)[:_NAMED])
    more = ", ..." if len(names) > _NAMED else ""
    return f"{len(names)} weights are {what} ({shown}{more})"


def find_file(name, filename, **hub):
    """The path of a file of a checkpoint or adapter, in a folder or of the Hub; None if there is none."""
    return cached_file(
        name,
        filename,
        **hub,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )


def _variant_of(name):
    matched = _WEIGHTS.fullmatch(name)
    return matched[1] or matched[2]


def _sums_of(variant):
    return f"model.{variant}.safetensors.sha256" if variant else "model.safetensors.sha256"


def _sum(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def load_task_model(model, model_kwargs=None, merge=True):
    """
    A model of its own from an id, a folder or a loaded model, with adapters merged, or without their
    updates.

    Raises:
        ValueError: where a loaded model has adapters and is no `PeftModel`, or an adapter names no base.
    """
    model_kwargs = model_kwargs or {}
    if isinstance(model, PreTrainedModel):
        if any(hasattr(module, "base_layer") for module in model.modules()):
            raise ValueError(
                f"a loaded {type(model).__name__} has layers of an adapter in it, as `load_adapter` puts "
                "there; expected a `PeftModel`, or the adapter's folder or Hub id, which are merged."
            )
        return copy.deepcopy(model)
    if hasattr(model, "merge_and_unload"):  # a loaded PeftModel
        model = copy.deepcopy(model)
        return _merged(model) if merge else model.unload()
    if find_adapter_config_file(model, **select_hub_kwargs(model_kwargs)) is not None:
        try:
            from peft import PeftConfig, PeftModel
        except ImportError as error:
            raise ImportError(f"{model} is a PEFT adapter: `pip install peft` to load it.") from error
        adapter = PeftConfig.from_pretrained(model, **select_hub_kwargs(model_kwargs))
        if not adapter.base_model_name_or_path:
            raise ValueError(
                f"{model}: its adapter_config.json names no base, expected `base_model_name_or_path`; load "
                "the adapter on its base yourself, and give the `PeftModel`."
            )
        # The adapter is what the user named and may have trusted; its base is not.
        others = {name: value for name, value in model_kwargs.items() if name != "trust_remote_code"}
        base = load_task_model(adapter.base_model_name_or_path, others)
        if not merge:
            return base
        return _merged(PeftModel.from_pretrained(base, model, **select_hub_kwargs(model_kwargs)))
    config = AutoConfig.from_pretrained(model, **select_hub_kwargs(model_kwargs))
    auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModel
    # A pickle could run code of whoever made it.
    return auto_class.from_pretrained(model, config=config, **{"use_safetensors": True, **model_kwargs})


def _merged(model):
    """A `PeftModel`'s model with the adapter in its weights, none of them frozen any more."""
    merged = model.merge_and_unload().requires_grad_(True)
    # peft takes a head for untied that is not tied to the first embeddings: T5Gemma's is to the decoder's.
    if merged.config.is_encoder_decoder and merged.can_generate():
        embeddings = merged.get_decoder().get_input_embeddings()
        merged.config.tie_word_embeddings = get_lm_head(merged).weight is embeddings.weight
    return merged


def select_hub_kwargs(model_kwargs):
    """Those of `from_pretrained`'s arguments that say where on the Hub, and how to get there."""
    names = ("cache_dir", "force_download", "token", "revision", "local_files_only", "subfolder")
    return {name: model_kwargs[name] for name in names if name in model_kwargs}


def get_text_encoder(model):
    """The text encoder of a model, without a task's head or a pooler, weights that nothing would read."""
    model = model.base_model
    encoder = getattr(model, "encoder", None)
    # Of a sequence-to-sequence model, or of its encoder alone (`T5EncoderModel`); the `encoder` of a BERT
    # is no model, for it lacks the embeddings.
    if isinstance(encoder, PreTrainedModel):
        return get_text_encoder(encoder)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


def get_lm_head(summarizer):
    """The linear layer that turns a summarizer's decoder states into logits."""
    head = summarizer.get_output_embeddings()
    return getattr(head, "out_proj", head)  # T5Gemma wraps its linear layer


def mark_initialized(model):
    """Mark the weights of a model as they are, so that transformers does not initialize them again."""
    for module in model.modules():
        module._is_hf_initialized = True
    return model
