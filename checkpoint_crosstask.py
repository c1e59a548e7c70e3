"""What a checkpoint promises: that its weights are whole and as they were saved, and a card of its own."""

import hashlib
import json
import os
import re

from huggingface_hub import ModelCard, ModelCardData
from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file

_HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
MODEL_TAGS = ("crosstask", "question-prompted-summarization")
_NAMED = 3  # weights that a message names
# All weights in one file, or the index of several; with the name of a variant, such as fp16.
_WEIGHTS = re.compile(r"model(?:\.(\w+))?\.safetensors|model\.safetensors\.index(?:\.(\w+))?\.json")
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
        weights with their sums takes a second or two for each gigabyte.

        Raises:
            ValueError: where weights are missing, unknown to the model or of another shape. With
                `output_loading_info` it is left to the caller to judge by that.
            OSError: where the weights cannot be read, or are not those that were saved.
        """
        name = pretrained_model_name_or_path
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
            if isinstance(error, SafetensorError):
                raise OSError(
                    f"{name}: its weights cannot be read ({error}); download them again with "
                    "`force_download=True`, or ask who published them."
                ) from error
            raise
        if name is not None:
            check_weights(name, variant, **hub | {"force_download": False})
        if output_loading_info:
            return model, info
        mismatched = {entry[0] for entry in info["mismatched_keys"]}
        missing = set(info["missing_keys"]) - mismatched
        problems = [_told(missing, "missing"), _told(info["unexpected_keys"], "unknown to the model")]
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
            write_sums(save_directory)

    def _upload_modified_files(self, working_dir, repo_id, *args, **kwargs):
        # Of `push_to_hub`, and of `save_pretrained` with it: between saving and uploading.
        write_sums(working_dir)
        card = os.path.join(working_dir, "README.md")
        if os.path.exists(card) and _TEMPLATE in ModelCard.load(card).text:
            self._own_card(repo_id).save(card)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)

    def load_adapter(self, peft_model_id=None, *args, **kwargs):
        r"""
        As of any model: by Hub id or folder, several by `adapter_name`, switched with `set_adapter`. An
        adapter may have trained the fusion as a whole, and has its own then.

        Raises:
            ValueError: where the adapter was trained on another model.
        """
        try:
            names = (
                _adapter_weights(peft_model_id, kwargs) if kwargs.get("adapter_state_dict") is None else []
            )
            wrapped = re.compile(r"\.(original_module|base_layer)\b")
            own = {wrapped.sub("", name) for name, _ in (*self.named_modules(), *self.named_parameters())}
            unknown = {name for name in names if _layer_of(name) not in own}
            if unknown:
                raise ValueError(f"{len(unknown)} of its weights are for layers that this one lacks")
            return super().load_adapter(peft_model_id, *args, **kwargs)
        except (RuntimeError, ValueError) as error:
            said = str(error).strip().splitlines()[-1].strip()
            model = self.config._name_or_path or type(self).__name__
            raise ValueError(
                f"adapter {peft_model_id} does not fit the model {model} ({said}); load it on the model that "
                "it was trained on, which its adapter_config.json names."
            ) from error

    def enable_adapters(self):
        """As of any model."""
        from peft.utils import ModulesToSaveWrapper

        super().enable_adapters()
        for module in self.modules():  # transformers switches a whole layer off, but not on again
            if isinstance(module, ModulesToSaveWrapper):
                module.enable_adapters(True)

    def _own_card(self, repo_id):
        data = ModelCardData(
            library_name="transformers", pipeline_tag="summarization", tags=list(self.model_tags)
        )
        text = _CARD.format(name=repo_id.split("/")[-1], repo_id=repo_id, fusion=self.config.fusion)
        return ModelCard(f"---\n{data.to_yaml()}\n---\n{text}")


def write_sums(folder):
    """
    Write the SHA-256 sums of a folder's weights, one file for each variant, as `sha256sum` would. Of
    weights in one file and in several, as a folder that was saved to twice may have, the older ones go:
    transformers would load the one file, whichever is newer.
    """
    found = {}
    for name in sorted(os.listdir(folder), key=lambda name: os.stat(os.path.join(folder, name)).st_mtime_ns):
        if matched := _WEIGHTS.fullmatch(name):
            variant = matched[1] or matched[2]
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


def check_weights(name, variant=None, **hub):
    """
    Compare a checkpoint's weights with the sums that were saved beside them, if any were.

    Raises:
        OSError: naming the file that is missing or is not what was saved.
    """
    sums = _sums_of(variant)
    found = _file(name, sums, **hub)
    if found is None:
        return
    with open(found, encoding="utf-8") as file:
        lines = [line.split() for line in file if line.strip()]
    for expected, filename in lines:
        path = _file(name, filename, **hub)
        if path is None or _sum(path) != expected:
            problem = "is missing" if path is None else "is not what was saved"
            raise OSError(
                f"{name}: {filename} {problem}, by {sums}; download it again with `force_download=True`, or "
                "delete that file if the change was meant."
            )


def _adapter_weights(name, kwargs):
    """Names of the weights of an adapter, or none where it has none in safetensors."""
    hub = kwargs | (kwargs.get("adapter_kwargs") or {})
    path = _file(name, "adapter_model.safetensors", **{key: hub[key] for key in _HUB_KWARGS if hub.get(key)})
    if path is None:
        return []
    with safe_open(path, "pt") as file:
        return list(file.keys())


def _layer_of(name):
    """The layer that a weight of an adapter belongs to."""
    return re.sub(r"\.(lora_\w+)?(\.?(weight|bias))?$", "", name.removeprefix("base_model.model."))


def _told(names, what):
    if not names:
        return ""
    shown = ", ".join(sorted(names)[:_NAMED])
    more = ", ..." if len(names) > _NAMED else ""
    return f"{len(names)} weights are {what} ({shown}{more})"


def _file(name, filename, **hub):
    return cached_file(
        name,
        filename,
        **hub,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )


def _sums_of(variant):
    return f"model.{variant}.safetensors.sha256" if variant else "model.safetensors.sha256"


def _sum(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
