.PHONY: test style ci notebook recipes

test:
	pytest -n auto --dist loadfile

style:
	ruff check --fix .
	ruff format .
	typos
	.ci/check_types

ci:
	.ci/run

notebook:
	jupytext --set-kernel python3 --to notebook --execute --output examples/walkthrough.ipynb examples/walkthrough.py

recipes:
	python .ci/write_recipes_page.py docs/recipes.md
	python .ci/write_help.py
