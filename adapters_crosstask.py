"""Load, switch and delete PEFT adapters of a cross-task model."""

from __future__ import annotations

import json
import os
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.integrations.peft import MIN_PEFT_VERSION
from transformers.utils import check_peft_version, logging

from .loading_crosstask import describe_weights, find_file, select_hub_kwargs
from .sharing_crosstask import ADAPTER_PREFIX

# What peft says if a model has no layer that an adapter targets; before peft 0.21 it is a plain ValueError.
NO_TARGET_LAYER = re.compile("not found in the base model|No modules were targeted")
RUN_ADAPTER = "adapter"  # the folder of the adapter in the folder of a training run
logger = logging.get_logger(__name__)


class CrossTaskAdapterMixin:
    """
    Load, switch and delete adapters, also those that have trained modules such as the fusion in full.

    How it works: transformers' `PeftAdapterMixin` (4.57 to 5.23) injects peft's layers into the model. peft
    wraps a module that an adapter trained in full (`modules_to_save`) in a `ModulesToSaveWrapper`, which
    holds the original module and one copy per adapter. `PeftAdapterMixin` neither switches these wrappers
    with the adapters nor checks that all weights of an adapter were loaded, and leaves its layers in the
    model if loading fails. The methods here add that.
    """

    def load_adapter(
        self,
        peft_model_id: str | os.PathLike | None = None,
        adapter_name: str | None = None,
        *args,
        **kwargs,
    ) -> Any:
        r"""
        Load an adapter and make it the active one. Same arguments as [`PeftAdapterMixin.load_adapter`], and
        the folder of a training run stands for its adapter.

        If an adapter trained the fusion in full, it contains that fusion. If loading fails, the model is as
        before.

        Raises:
            ValueError: if the adapter was trained on another model, changes the fusion in another way than a
                loaded adapter does, its name is taken, or peft is missing or too old for transformers.
            OSError: if the weights cannot be read.
        """
        check_peft_version(MIN_PEFT_VERSION)  # transformers checks it only after it has changed the model
        name = "default" if adapter_name is None else adapter_name
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"adapter_name: expected a name without a dot, got {name!r}")
        if peft_model_id is not None and (Path(peft_model_id) / RUN_ADAPTER / "adapter_config.json").exists():
            peft_model_id = str(Path(peft_model_id) / RUN_ADAPTER)
        loaded_names = set(getattr(self, "peft_config", {}))
        active_names = self.active_adapters() if loaded_names else []
        weight_conversions = getattr(self, "_weight_conversions", None)
        config, weights = {}, None
        if kwargs.get("adapter_state_dict") is None:
            config, weights = _read_adapter(peft_model_id, kwargs)
            self._check_modules(peft_model_id, config, weights)
        try:
            info = self._load_and_check(peft_model_id, name, weights, config, *args, **kwargs)
        except BaseException:
            if name not in loaded_names and name in getattr(self, "peft_config", {}):
                self._hf_peft_config_loaded = True  # loading sets it late, and `delete_adapter` needs it
                self.delete_adapter(name)
                if active_names:
                    self.set_adapter(active_names)
            raise
        finally:
            # transformers 5 stores the adapter's renamings of weights here, and would apply them in saving.
            self._weight_conversions = weight_conversions
        requires_grad = [(parameter, parameter.requires_grad) for parameter in self.parameters()]
        self.set_adapter(name)
        self.enable_adapters()  # other adapters may have been disabled
        for parameter, value in requires_grad:  # `set_adapter` changes it
            parameter.requires_grad_(value)
        return info

    @contextmanager
    def use_adapter(
        self, adapter: str | Sequence[str] | None = None, is_base: bool = False
    ) -> Iterator[None]:
        """
        Let the model use an adapter within a `with` block, and restore the state of all adapters after it.

        Blocks of several threads take turns. Other users of the model in other threads may see it switched.

        Args:
            adapter (`str` or `list[str]`, *optional*): The names of loaded adapters; the active ones if
                `None`.
            is_base (`bool`, *optional*, defaults to `False`): Whether to use no adapter at all.
        """
        if not getattr(self, "peft_config", None):
            yield
            return
        # The lock is held for one batch. A stream must not hold it between batches: its reader may continue
        # in another thread, or not at all. A batch without `adapter` needs it, too: another thread may have
        # switched the model.
        with vars(self).setdefault("_adapter_lock", _CopyableLock()):
            if adapter is None and not is_base:
                yield
                return
            # `disable_adapters` is a boolean of peft's layers, and a method of transformers' models.
            states = [(module, getattr(module, "disable_adapters", None)) for module in self.modules()]
            requires_grad = [(parameter, parameter.requires_grad) for parameter in self.parameters()]
            active_names = self.active_adapters()
            try:
                if is_base:
                    self.disable_adapters()
                else:
                    self.set_adapter(adapter if isinstance(adapter, str) else list(adapter))
                    self.enable_adapters()
                yield
            finally:
                self.set_adapter(active_names)
                for layer, disabled in states:
                    if isinstance(disabled, bool):
                        layer.enable_adapters(not disabled)
                for parameter, value in requires_grad:
                    parameter.requires_grad_(value)

    def _load_and_check(self, adapter, name, weights, config, *args, **kwargs):
        """Load an adapter, and raise a ValueError if its weights are not those that the model expects."""
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        def get_weights():
            return get_peft_model_state_dict(self, adapter_name=name, save_embedding_layers=False)

        # transformers would print a table of missing weights, in which some are not missing.
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            with warnings.catch_warnings():  # peft warns of a second adapter, which is what users want here
                warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
                info = super().load_adapter(adapter, name, *args, **kwargs)
        except (RuntimeError, ValueError) as error:
            # Layers are missing, or weights have other shapes. Other errors are clear.
            problem = ""
            if weights and name in getattr(self, "peft_config", {}):
                problem = _compare_weights(weights, get_weights(), ())
            if not problem and not NO_TARGET_LAYER.search(str(error)):
                raise
            problem = problem or "it is for layers that this model lacks"
            raise ValueError(self._describe_mismatch(adapter, problem, config)) from error
        finally:
            logging.set_verbosity(verbosity)
        # A notebook prints the result. It lists the weights of other adapters, and some that were loaded.
        for kind in ("missing_keys", "unexpected_keys"):
            getattr(info, kind, set()).clear()
        if weights is None:
            return info
        model_weights = get_weights()
        if problem := _compare_weights(weights, model_weights, {key for key, _ in self.named_parameters()}):
            raise ValueError(self._describe_mismatch(adapter, problem, config))
        # transformers 5 does not load all kinds of weights, DoRA's magnitudes for instance.
        set_peft_model_state_dict(self, {key: weights[key] for key in model_weights}, adapter_name=name)
        trained_on, loaded_on = config.get("base_model_name_or_path"), self.config._name_or_path
        if _is_hub_id(trained_on) and _is_hub_id(loaded_on) and trained_on != loaded_on:
            logger.warning(
                f"adapter {adapter} was trained on {trained_on} and is loaded on {loaded_on}, which may have "
                "other weights."
            )
        return info

    def _check_modules(self, adapter, config, weights):
        """Raise a ValueError if an adapter cannot be loaded beside the others, or not be removed again."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        if (bias := config.get("bias", "none")) not in (None, "none"):
            raise ValueError(
                f"adapter {adapter} has trained biases of the model itself (bias={bias!r}), which cannot be "
                "switched with an adapter; merge it, or load it with `PeftModel.from_pretrained`."
            )
        # Modules that adapters of the model, and this one, have trained in full or updated.
        full = {name for name, _ in _get_wrappers(self)}
        updated = {name for name, module in self.named_modules() if isinstance(module, BaseTunerLayer)}
        new_full = {*(config.get("modules_to_save") or ())}
        new_updated = {key for key in weights or () if key.split(".")[0] not in new_full}

        def intersect(modules, layers):
            return {module for module in modules if any(key.startswith(f"{module}.") for key in layers)}

        if clashes := intersect(full, new_updated):
            kinds = ("low-rank or similar updates", "a copy")
        elif clashes := intersect(new_full - full, updated):
            kinds = ("a copy", "low-rank or similar updates")
        if clashes:
            raise ValueError(
                f"adapter {adapter} has {kinds[0]} for module {min(clashes)!r}, but the loaded adapters "
                f"({', '.join(self.peft_config)}) have {kinds[1]}; load it on another copy of the model."
            )

    def _describe_mismatch(self, adapter, problem, config):
        trained_on = config.get("base_model_name_or_path") or "which its adapter_config.json does not name"
        model = self.config._name_or_path or type(self).__name__
        return (
            f"adapter {adapter} does not fit the model {model} ({problem}); load it on the model that it was "
            f"trained on, {trained_on}."
        )

    def set_adapter(self, adapter_name: str | list[str]) -> None:
        """
        Activate one adapter, or several, whose updates are added.

        Modules that none of these adapters trained in full are the model's originals.

        Args:
            adapter_name (`str` or `list[str]`): Names of loaded adapters.

        Raises:
            ValueError: if a name is unknown, or several of the adapters have trained the same module in full.
            TypeError: if `adapter_name` is not a name or a list of names.
        """
        from peft.tuners.tuners_utils import BaseTunerLayer

        names = [adapter_name] if isinstance(adapter_name, str) else adapter_name
        if not isinstance(names, (list, tuple)) or not names or {type(name) for name in names} != {str}:
            raise TypeError(f"set_adapter: expected the name of an adapter, or several, got {adapter_name!r}")
        names = list(names)
        if {*names} - getattr(self, "peft_config", {}).keys():
            return super().set_adapter(names if len(names) > 1 else names[0])  # raises a clear ValueError
        for module_name, wrapper in _get_wrappers(self):
            copies = [name for name in names if name in wrapper.modules_to_save]
            if len(copies) > 1:
                raise ValueError(
                    f"the adapters {', '.join(copies)} each have a copy of the module {module_name!r}; "
                    "expected one of them at a time."
                )
        layers = [module for module in self.modules() if isinstance(module, BaseTunerLayer)]
        for layer in layers:
            layer.set_adapter(names)
        self._switch_wrappers(names, enabled=not any(layer.disable_adapters for layer in layers))

    def enable_adapters(self) -> None:
        """Enable the active adapters after [`~PeftAdapterMixin.disable_adapters`]."""
        super().enable_adapters()
        # transformers disables modules that were trained in full, but does not enable them.
        self._switch_wrappers(self.active_adapters(), enabled=True)

    def delete_adapter(self, adapter_names: str | list[str]) -> None:
        """
        Delete adapters. Same arguments as [`PeftAdapterMixin.delete_adapter`].

        The other active adapters stay active; if there are none, the first adapter of the model becomes
        active. If no adapter is left, the model has its original layers again.
        """
        from peft.tuners.tuners_utils import BaseTunerLayer

        active_names = self.active_adapters() if getattr(self, "peft_config", None) else []
        for _, wrapper in _get_wrappers(self):
            if not wrapper.active_adapters:  # peft fails on such a wrapper
                wrapper.set_adapter(next(iter(wrapper.modules_to_save)))
        super().delete_adapter(adapter_names)
        if remaining := list(getattr(self, "peft_config", ())):
            # Every layer has activated another adapter by itself.
            self.set_adapter([name for name in active_names if name in remaining] or remaining[0])
            return
        for name, module in list(self.named_modules()):
            if isinstance(module, BaseTunerLayer):
                self.set_submodule(name, module.get_base_layer())
        for name, wrapper in _get_wrappers(self):
            self.set_submodule(name, wrapper.original_module)

    def _switch_wrappers(self, names, enabled):
        """Activate, in each module with copies, the copy of an adapter in `names`, or else the original."""
        for _, wrapper in _get_wrappers(self):
            copies = [name for name in names if name in wrapper.modules_to_save]
            if copies:
                wrapper.set_adapter(copies[0])
            wrapper.enable_adapters(enabled and bool(copies))


def _get_wrappers(model):
    """Return `(name, wrapper)` of all modules that adapters have trained in full."""
    from peft.utils import ModulesToSaveWrapper

    return [item for item in model.named_modules() if isinstance(item[1], ModulesToSaveWrapper)]


def _read_adapter(adapter, kwargs):
    """
    Read an adapter's files.

    Returns:
        `(config, weights)`: the content of `adapter_config.json`, empty if there is none (transformers
        reports that), and the weights by their names in the model, `None` if they are not in safetensors.
    """
    hub_kwargs = select_hub_kwargs(kwargs | (kwargs.get("adapter_kwargs") or {}))
    config, weights = {}, None
    if (path := find_file(adapter, "adapter_config.json", **hub_kwargs)) is not None:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    if (path := find_file(adapter, "adapter_model.safetensors", **hub_kwargs)) is not None:
        try:
            weights = {key.removeprefix(ADAPTER_PREFIX): value for key, value in load_file(path).items()}
        except SafetensorError as error:
            raise OSError(
                f"adapter {adapter}: its weights cannot be read ({error}); download them again, or ask their "
                "publisher."
            ) from error
    return config, weights


def _compare_weights(weights, model_weights, parameter_names):
    """
    Compare an adapter's weights with those that the model has for it.

    Args:
        weights, model_weights (`dict[str, torch.Tensor]`):
            The adapter's weights as saved, and as the model expects them.
        parameter_names:
            Names of the model's parameters. An adapter may contain copies of them, which are ignored.

    Returns:
        `str`: What is wrong, empty if they match.
    """
    shared = weights.keys() & model_weights.keys()
    mismatched = [key for key in shared if weights[key].shape != model_weights[key].shape]
    if mismatched:
        key = min(mismatched)
        shapes = tuple(weights[key].shape), tuple(model_weights[key].shape)
        return f"{key} has the shape {shapes[0]} in the adapter and {shapes[1]} in the model"
    parameter_names = {name.replace(".base_layer.", ".") for name in parameter_names}
    unknown = [
        key
        for key in weights
        if key not in model_weights and key.replace(".base_layer.", ".") not in parameter_names
    ]
    problems = [
        describe_weights(unknown, "for layers that this model lacks"),
        describe_weights(model_weights.keys() - weights.keys(), "missing"),
    ]
    return " and ".join(filter(None, problems))


def _is_hub_id(name):
    return bool(name) and name.count("/") == 1 and not os.path.exists(name) and name[0] not in "./~"


class _CopyableLock:
    """
    A reentrant lock that is an attribute of a model. Each copy of the model, including a pickled one, gets a
    new lock.

    It is reentrant because a thread that generates may call a pipeline again, in a stopping criterion for
    instance.
    """

    def __init__(self):
        self._lock = threading.RLock()

    def __enter__(self):
        self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()

    def __reduce__(self):  # `copy` and `pickle` call it; they cannot copy an RLock
        return _CopyableLock, ()
