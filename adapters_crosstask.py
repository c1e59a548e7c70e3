"""Adapters of peft on top of a cross-task model: loaded whole or not at all, and switched by name."""

import json
import os
import re

from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.integrations.peft import MIN_PEFT_VERSION
from transformers.utils import check_peft_version, logging

from .loading_crosstask import describe_weights, find_file, select_hub_kwargs
from .sharing_crosstask import ADAPTER_PREFIX

# What peft says of an adapter whose layers a model has none of; before 0.21 in a plain ValueError.
NO_LAYER = re.compile("not found in the base model|No modules were targeted")
logger = logging.get_logger(__name__)


class CrossTaskAdapterMixin:
    """
    Loading, switching and deleting adapters, as of any model, with what goes beyond it: modules that an
    adapter has trained as a whole, such as the fusion.
    """

    def load_adapter(self, peft_model_id=None, adapter_name=None, *args, **kwargs):
        r"""
        As of any model: by Hub id or folder, several by `adapter_name`, switched with `set_adapter`; the one
        that was loaded last is active. An adapter may have trained the fusion as a whole, and has its own
        then. What cannot be loaded leaves the model as it was.

        Raises:
            ValueError: where the adapter was trained on another model, changes the fusion in another way than
                one that is there, its name is taken, or peft is missing or too old for this transformers.
            OSError: where its weights cannot be read.
        """
        check_peft_version(MIN_PEFT_VERSION)  # which transformers does after loading only
        name = "default" if adapter_name is None else adapter_name
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"adapter_name: expected a name without a dot, got {name!r}")
        known = {*getattr(self, "peft_config", {})}
        active = self.active_adapters() if known else []
        renamings = getattr(self, "_weight_conversions", None)
        config, weights = None, None
        if kwargs.get("adapter_state_dict") is None:
            config, weights = _read(peft_model_id, kwargs)
            self._check_kind(peft_model_id, config, weights)
        try:
            info = self._load_whole(peft_model_id, name, weights, config, *args, **kwargs)
        except BaseException:
            if name in {*getattr(self, "peft_config", {})} - known:
                self._hf_peft_config_loaded = True  # which it may not have come to
                self.delete_adapter(name)
                if active:
                    self.set_adapter(active)
            raise
        finally:
            # Of names in the checkpoint, by which the model is saved; transformers 5 leaves the adapter's.
            self._weight_conversions = renamings
        trained = [(parameter, parameter.requires_grad) for parameter in self.parameters()]
        self.set_adapter(name)
        self.enable_adapters()  # layers of others, which were disabled
        for parameter, value in trained:  # which switching changes
            parameter.requires_grad_(value)
        return info

    def _load_whole(self, adapter, name, weights, config, *args, **kwargs):
        """Load an adapter, or say why it does not fit."""
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        def layers():
            return get_peft_model_state_dict(self, adapter_name=name, save_embedding_layers=False)

        # Its own table of what is missing names weights that are not; a sentence follows here.
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            info = super().load_adapter(adapter, name, *args, **kwargs)
        except (RuntimeError, ValueError) as error:
            # Of other shapes, or for layers that are not there at all; what else is wrong says so itself.
            shapes = name in getattr(self, "peft_config", {}) and weights and _misfits(weights, layers(), ())
            if not shapes and not NO_LAYER.search(str(error)):
                raise
            reason = shapes or "it is for layers that this one lacks"
            raise ValueError(self._misfit(adapter, reason, config)) from error
        finally:
            logging.set_verbosity(verbosity)
        if weights is None:
            return info
        if reason := _misfits(weights, layers(), {key for key, _ in self.named_parameters()}):
            raise ValueError(self._misfit(adapter, reason, config))
        # transformers 5 leaves some kinds of weights, such as DoRA's magnitudes, as they were before.
        set_peft_model_state_dict(self, {key: weights[key] for key in layers()}, adapter_name=name)
        theirs, ours = config.get("base_model_name_or_path"), self.config._name_or_path
        if _is_hub_id(theirs) and _is_hub_id(ours) and theirs != ours:
            logger.warning(
                f"adapter {adapter} was trained on {theirs}, and is loaded on {ours}, whose weights may be "
                "others."
            )
        return info

    def _check_kind(self, adapter, config, weights):
        """Refuse what could be loaded, but not beside what is there, or not taken off again."""
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils import ModulesToSaveWrapper

        if (bias := config.get("bias", "none")) not in (None, "none"):
            raise ValueError(
                f"adapter {adapter} has trained biases of the model itself (bias={bias!r}), which cannot be "
                "switched with an adapter; merge it, or load it with `PeftModel.from_pretrained`."
            )
        whole = {name for name, module in self.named_modules() if isinstance(module, ModulesToSaveWrapper)}
        tuned = {name for name, module in self.named_modules() if isinstance(module, BaseTunerLayer)}
        saved = {*(config.get("modules_to_save") or ())}
        updated = {key for key in weights or () if key.split(".")[0] not in saved}
        clashes = {module for module in whole if any(key.startswith(module + ".") for key in updated)}
        clashes |= {module for module in saved - whole if any(key.startswith(module + ".") for key in tuned)}
        if clashes:
            ways = ("low-rank updates or the like", "a copy of its own")
            theirs, ours = ways if clashes & whole else ways[::-1]
            raise ValueError(
                f"adapter {adapter} has {theirs} for the module {min(clashes)!r}, of which an adapter on "
                f"this model ({', '.join(self.peft_config)}) has {ours}; load it on another copy of the "
                "model."
            )

    def _misfit(self, adapter, reason, config):
        trained_on = (config or {}).get("base_model_name_or_path")
        model = self.config._name_or_path or type(self).__name__
        return (
            f"adapter {adapter} does not fit the model {model} ({reason}); load it on the model that it was "
            f"trained on, {trained_on or 'which its adapter_config.json does not name'}."
        )

    def set_adapter(self, adapter_name):
        """
        As of any model: one name, or several, whose updates are added. Of a module that one adapter has
        trained as a whole and another one has not, the latter goes with the model's own.

        Raises:
            ValueError: for an unknown name, or several adapters that have a whole module of their own each.
            TypeError: for what is no name.
        """
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils import ModulesToSaveWrapper

        names = [adapter_name] if isinstance(adapter_name, str) else adapter_name
        if not isinstance(names, (list, tuple)) or not names or {type(name) for name in names} != {str}:
            raise TypeError(f"set_adapter: expected the name of an adapter, or several, got {adapter_name!r}")
        names = list(names)
        if {*names} - getattr(self, "peft_config", {}).keys():
            return super().set_adapter(names if len(names) > 1 else names[0])  # says what is wrong
        for module_name, module in self.named_modules():
            if isinstance(module, ModulesToSaveWrapper):
                own = [name for name in names if name in module.modules_to_save]
                if len(own) > 1:
                    raise ValueError(
                        f"the adapters {', '.join(own)} have a {module_name!r} of their own each, so that "
                        "only one of them can be active."
                    )
        layers = [module for module in self.modules() if isinstance(module, BaseTunerLayer)]
        for layer in layers:
            layer.set_adapter(names)
        self._switch_modules(names, enabled=not any(layer.disable_adapters for layer in layers))

    def enable_adapters(self):
        """As of any model."""
        super().enable_adapters()
        # transformers switches a whole module off, but not on again
        self._switch_modules(self.active_adapters(), enabled=True)

    def delete_adapter(self, adapter_names):
        """
        As of any model. Of the active adapters those that are left stay active, and if none is, the first one
        on the model is. Without its last adapter the model has its own layers again, and is saved as a whole.
        """
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils import ModulesToSaveWrapper

        active = self.active_adapters() if getattr(self, "peft_config", None) else []
        for module in self.modules():  # peft fails on one without any that is active
            if isinstance(module, ModulesToSaveWrapper) and not module.active_adapters:
                module.set_adapter(next(iter(module.modules_to_save)))
        super().delete_adapter(adapter_names)
        if left := list(getattr(self, "peft_config", ())):
            # Each layer has chosen among those that it knows of.
            self.set_adapter([name for name in active if name in left] or left[0])
            return
        for name, module in list(self.named_modules()):
            if isinstance(module, BaseTunerLayer):
                self.set_submodule(name, module.get_base_layer())
            elif isinstance(module, ModulesToSaveWrapper):
                self.set_submodule(name, module.original_module)

    def _switch_modules(self, names, enabled):
        """Modules that adapters have trained as a whole."""
        from peft.utils import ModulesToSaveWrapper

        for module in self.modules():
            if isinstance(module, ModulesToSaveWrapper):
                own = [name for name in names if name in module.modules_to_save]
                if own:
                    module.set_adapter(own[0])
                module.enable_adapters(enabled and bool(own))


def _read(adapter, kwargs):
    """
    The `adapter_config.json` of an adapter, and its weights, by names as in the model; None for weights that
    are not in safetensors, and an empty configuration where there is none, of which transformers tells.
    """
    given = kwargs | (kwargs.get("adapter_kwargs") or {})
    hub = select_hub_kwargs({key: value for key, value in given.items() if value is not None})
    paths = [find_file(adapter, name, **hub) for name in ("adapter_config.json", "adapter_model.safetensors")]
    config, weights = {}, None
    if paths[0] is not None:
        with open(paths[0], encoding="utf-8") as file:
            config = json.load(file)
    if paths[1] is not None:
        try:
            weights = {key.removeprefix(ADAPTER_PREFIX): value for key, value in load_file(paths[1]).items()}
        except SafetensorError as error:
            raise OSError(
                f"adapter {adapter}: its weights cannot be read ({error}); download them again, or ask who "
                "published them."
            ) from error
    return config, weights


def _misfits(weights, layers, own):
    """
    Why an adapter's weights are not those that a model has places for; empty where they are.

    Args:
        weights, layers (`dict[str, torch.Tensor]`): Of the adapter, and as the model has them.
        own: Names of the model's own weights, of which an adapter may bring copies.
    """
    shapes = [key for key in weights.keys() & layers.keys() if weights[key].shape != layers[key].shape]
    if shapes:
        key = min(shapes)
        return f"{key} is of shape {tuple(weights[key].shape)} there and {tuple(layers[key].shape)} here"
    own = {name.replace(".base_layer.", ".") for name in own}
    unknown = [key for key in weights if key not in layers and key.replace(".base_layer.", ".") not in own]
    found = [
        describe_weights(unknown, "for layers that this one lacks"),
        describe_weights(layers.keys() - weights.keys(), "missing"),
    ]
    return " and ".join(filter(None, found))


def _is_hub_id(name):
    return bool(name) and name.count("/") == 1 and not os.path.exists(name) and name[0] not in "./~"
