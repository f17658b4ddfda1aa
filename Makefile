# Thin names for what is in scripts/.
.DEFAULT_GOAL := help
.PHONY: help serve check format touched test test-all attack slowest clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile

serve: ## start the server; its settings are the VAE_* environment variables
	@scripts/serve

check: ## check format, lint rules and types
	@scripts/check

format: ## format the code and make the fixes that are safe, then check
	@scripts/check --fix

touched: ## check, and run the tests of what differs from the last commit: the loop of a change
	@scripts/test --touched

test: ## check, and run every test that is not slow
	@scripts/test

test-all: test ## then run the slow tests, too
	@scripts/test --slow

attack: ## attack a server with over a hundred hostile inputs, and watch what it does to everyone else
	@scripts/attack

slowest: ## write the twenty slowest tests of the last runs into docs/architecture.md
	@scripts/slowest

clean: ## remove .venv and what the tools leave behind
	rm -rf .venv tests/clients/node_modules build dist *.egg-info .coverage coverage.xml .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
