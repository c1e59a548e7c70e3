"""An adapter with random weights, for the tests that load and switch some."""

import torch
from peft import LoraConfig, get_peft_model

from crosstask import CrossTaskForConditionalGeneration


def adapted(base, seed, **settings):
    """LoRA with a fusion of its own, as a training run makes it, with random weights."""
    model = CrossTaskForConditionalGeneration.from_pretrained(base)
    settings = {"r": 2, "target_modules": ["q", "v"], "modules_to_save": ["answerability_head"]} | settings
    config = LoraConfig(task_type="SEQ_2_SEQ_LM", **{"exclude_modules": r"answerability_head\..*"} | settings)
    model = get_peft_model(model, config).eval()
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=random) * 0.3
    return model
