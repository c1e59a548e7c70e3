"""An adapter with random weights, for tests that load and switch adapters."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from crosstask import CrossTaskForConditionalGeneration


def make_peft_model(base, seed, **settings) -> PeftModel:
    """
    Add a LoRA adapter with random weights to the model in the folder `base`.

    As after training, the adapter has a copy of the fusion, unless `settings` of `LoraConfig` say otherwise.
    """
    model = CrossTaskForConditionalGeneration.from_pretrained(base)
    defaults = {
        "r": 2,
        "target_modules": ["q", "v"],
        "modules_to_save": ["answerability_head"],
        "exclude_modules": r"answerability_head\..*",
    }
    model = get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM", **defaults | settings)).eval()
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=random) * 0.3
    return model
