# What developers type, in an activated environment; CONTRIBUTING.md says more.
.PHONY: check test test-all docs study

check: # format, lint, import rules, types
	.ci/check

test: # the quick tests
	pytest -q -n 2 -m "not slow"

test-all: # every test, as CI runs them
	pytest -n 2

docs: # the documentation, into site/
	mkdocs build --strict

study: # the embedded study, its figures and its report
	snakemake --cores all
