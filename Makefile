# Thin names for what is in scripts/.
.DEFAULT_GOAL := help
.PHONY: help serve test lint format clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\): ## \(.*\)/make \1	\2/p' Makefile

serve: ## start the server; its settings are the VAE_* environment variables
	@scripts/serve

test: ## run every check: format, lint rules, types, tests with branch coverage
	@scripts/test

lint: ## check format, lint rules and types
	@scripts/check

format: ## format the code and make the fixes that are safe, then check
	@scripts/check --fix

clean: ## remove .venv and what the tools leave behind
	rm -rf .venv tests/clients/node_modules build dist *.egg-info .coverage coverage.xml .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
