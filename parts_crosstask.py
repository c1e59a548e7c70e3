"""What the model asks of its parts, whatever family they are of: loading, encoder, LM head."""

import copy
import threading
from contextlib import contextmanager

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, PreTrainedModel
from transformers.utils import find_adapter_config_file


def load_part(model, model_kwargs=None, merge=True):
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
    if find_adapter_config_file(model, **hub_kwargs(model_kwargs)) is not None:
        try:
            from peft import PeftConfig, PeftModel
        except ImportError as error:
            raise ImportError(f"{model} is a PEFT adapter: `pip install peft` to load it.") from error
        adapter = PeftConfig.from_pretrained(model, **hub_kwargs(model_kwargs))
        if not adapter.base_model_name_or_path:
            raise ValueError(
                f"{model}: its adapter_config.json names no base, expected `base_model_name_or_path`; load "
                "the adapter on its base yourself, and give the `PeftModel`."
            )
        # The adapter is what the user named and may have trusted; its base is not.
        others = {name: value for name, value in model_kwargs.items() if name != "trust_remote_code"}
        base = load_part(adapter.base_model_name_or_path, others)
        if not merge:
            return base
        return _merged(PeftModel.from_pretrained(base, model, **hub_kwargs(model_kwargs)))
    config = AutoConfig.from_pretrained(model, **hub_kwargs(model_kwargs))
    auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModel
    # A pickle could run code of whoever made it.
    return auto_class.from_pretrained(model, config=config, **{"use_safetensors": True, **model_kwargs})


def _merged(model):
    """A `PeftModel`'s model with the adapter in its weights, none of them frozen any more."""
    merged = model.merge_and_unload().requires_grad_(True)
    # peft takes a head for untied that is not tied to the first embeddings: T5Gemma's is to the decoder's.
    if merged.config.is_encoder_decoder and merged.can_generate():
        embeddings = merged.get_decoder().get_input_embeddings()
        merged.config.tie_word_embeddings = lm_head(merged).weight is embeddings.weight
    return merged


def hub_kwargs(model_kwargs):
    """Those of `from_pretrained`'s arguments that say where on the Hub, and how to get there."""
    names = ("cache_dir", "force_download", "token", "revision", "local_files_only", "subfolder")
    return {name: model_kwargs[name] for name in names if name in model_kwargs}


def encoder_of(model):
    """The text encoder of a model, without a task's head or a pooler, weights that nothing would read."""
    model = model.base_model
    encoder = getattr(model, "encoder", None)
    # Of a sequence-to-sequence model, or of its encoder alone (`T5EncoderModel`); the `encoder` of a BERT
    # is no model, for it lacks the embeddings.
    if isinstance(encoder, PreTrainedModel):
        return encoder_of(encoder)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


def lm_head(summarizer):
    """The linear layer that turns a summarizer's decoder states into logits."""
    head = summarizer.get_output_embeddings()
    return getattr(head, "out_proj", head)  # T5Gemma wraps its linear layer


def keep_weights(model):
    """Mark the weights of a model as they are, so that transformers does not initialize them again."""
    for module in model.modules():
        module._is_hf_initialized = True
    return model


class _Here(threading.local):
    """What is of one thread alone: its name, and what it listens to."""

    def __init__(self):
        self.name = str(threading.get_ident())  # a graph that is compiled can read this, but not ask
        self.input = self.output = None  # `(module, listener)` of the innermost context


_here = _Here()
_registering = threading.Lock()


def thread():
    """Which thread this is."""
    return _here.name


def listen(*modules):
    """
    Let modules be heard by `input_of` and `output_of`. Their hooks stay, since a graph that is compiled can
    neither register one nor notice that one came later; while nobody listens they do nothing.
    """
    for module in modules:
        for hooks, register, hook in (
            (module._forward_pre_hooks, module.register_forward_pre_hook, _hear_input),
            (module._forward_hooks, module.register_forward_hook, _hear_output),
        ):
            if hook not in hooks.values():
                with _registering:
                    if hook not in hooks.values():  # still: another thread may have been first
                        register(hook)


# Functions of the module, so that models can be copied and pickled with them.
def _hear_input(module, args):
    return _here.input[1](args) if _here.input is not None and _here.input[0] is module else None


def _hear_output(module, args, output):
    if _here.output is not None and _here.output[0] is module:
        _here.output[1](output)


@contextmanager
def input_of(module, pass_on=None, change=None):
    """
    Catch what `module` reads in this thread: the one place where every sequence-to-sequence model has its
    decoder's states normed and scaled as its LM head wants them. With `change`, a function of these states,
    the module reads what that returns, and so does the catcher; with `pass_on`, the module itself sees only
    that many positions.
    """
    captured = []

    def catch(args):
        states = args[0] if change is None else change(args[0])
        captured.append(states)
        return (states if pass_on is None else states[:, :pass_on], *args[1:])

    listen(module)
    before, _here.input = _here.input, (module, catch)
    try:
        yield captured
    finally:
        _here.input = before


@contextmanager
def output_of(module):
    """Catch the first value of what `module` returns: an encoder's states, while generation runs it."""
    captured = []
    listen(module)
    before, _here.output = _here.output, (module, lambda output: captured.append(output[0]))
    try:
        yield captured
    finally:
        _here.output = before
