.PHONY: install format test lint types ci

install:
	pip install -e '.[test]'

format:
	ruff check --fix .
	ruff format .

test:
	pytest

lint:
	ruff check .
	ruff format --check .

types:
	mypy

ci:
	bash .ci/run
