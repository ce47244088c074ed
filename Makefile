.PHONY: test lint types ci

test:
	pytest

lint:
	ruff check .
	ruff format --check .

types:
	mypy

ci:
	bash .ci/run
