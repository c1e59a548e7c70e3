"""Question-prompted summarization by fusing a summarizer and a question answerer."""

import importlib
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_crosstask import CrossTaskConfig
from .modeling_crosstask import CrossTaskForConditionalGeneration, CrossTaskOutput
from .pipeline_crosstask import PIPELINE_TASK, QuestionSummarizationPipeline
from .processing_crosstask import CrossTaskProcessor

if TYPE_CHECKING:
    from .data.collator import CrossTaskCollator
    from .data.readers import read_rows
    from .training.routing import AdapterRouter
    from .training.trainer import CrossTaskTrainer

__version__ = "0.1.0"
__all__ = [
    "AdapterRouter",
    "CrossTaskCollator",
    "CrossTaskConfig",
    "CrossTaskForConditionalGeneration",
    "CrossTaskOutput",
    "CrossTaskProcessor",
    "CrossTaskTrainer",
    "QuestionSummarizationPipeline",
    "read_rows",
]
# Modules that import large libraries (datasets, peft) are imported on first use of their names.
_LAZY_MODULES = {
    "AdapterRouter": "crosstask.training.routing",
    "CrossTaskTrainer": "crosstask.training.trainer",
    "CrossTaskCollator": "crosstask.data.collator",
    "read_rows": "crosstask.data.readers",
}

# With crosstask installed, its checkpoints load without `trust_remote_code`.
AutoConfig.register(CrossTaskConfig.model_type, CrossTaskConfig)
AutoModelForSeq2SeqLM.register(CrossTaskConfig, CrossTaskForConditionalGeneration)
AutoProcessor.register(CrossTaskConfig, CrossTaskProcessor)
PIPELINE_REGISTRY.register_pipeline(
    PIPELINE_TASK, QuestionSummarizationPipeline, pt_model=AutoModelForSeq2SeqLM
)
CrossTaskConfig.pipelines_are_registered = True
# Checkpoints are saved with their code, for users who do not have crosstask installed.
CrossTaskConfig.register_for_auto_class()
CrossTaskForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")
CrossTaskProcessor.register_for_auto_class()


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return getattr(importlib.import_module(_LAZY_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY_MODULES})
