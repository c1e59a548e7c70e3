"""Question-prompted summarization by fusing a summarizer and a question answerer."""

import importlib

from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_crosstask import CrossTaskConfig
from .modeling_crosstask import CrossTaskForConditionalGeneration, CrossTaskOutput
from .pipeline_crosstask import PIPELINE_TASK, QuestionSummarizationPipeline
from .processing_crosstask import CrossTaskProcessor

__version__ = "0.1.0"

# What is dear to import comes when it is asked for.
_LAZY = {
    "AdapterRouter": "crosstask.training.routing",
    "CrossTaskTrainer": "crosstask.training.trainer",
    "CrossTaskCollator": "crosstask.data.collator",
    "read_rows": "crosstask.data.readers",
}
__all__ = [
    "CrossTaskConfig",
    "CrossTaskForConditionalGeneration",
    "CrossTaskOutput",
    "CrossTaskProcessor",
    "QuestionSummarizationPipeline",
    *_LAZY,
]

# With the package installed, a checkpoint needs no `trust_remote_code`; and what is saved here takes
# its code along, for those who do not have the package.
AutoConfig.register(CrossTaskConfig.model_type, CrossTaskConfig)
AutoModelForSeq2SeqLM.register(CrossTaskConfig, CrossTaskForConditionalGeneration)
AutoProcessor.register(CrossTaskConfig, CrossTaskProcessor)
PIPELINE_REGISTRY.register_pipeline(
    PIPELINE_TASK, QuestionSummarizationPipeline, pt_model=AutoModelForSeq2SeqLM
)
CrossTaskConfig.pipelines_are_registered = True
CrossTaskConfig.register_for_auto_class()
CrossTaskForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")
CrossTaskProcessor.register_for_auto_class()


def __getattr__(name):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_LAZY})
