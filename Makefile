# Two commands: `make demo` runs the main job on real input, `make test` passes every test.
PYTHON ?= python3.11
VENV := .venv
TEST_VENV := .venv-test
DEMO_OUT ?= demo-out

.PHONY: demo test lint check clean

demo: $(VENV)/installed
	$(VENV)/bin/python -m edgesdk.demo.run $(DEMO_OUT)

# A virtual environment of its own, made anew each time, so that nothing installed by hand helps.
test:
	rm -rf $(TEST_VENV)
	$(PYTHON) -m venv $(TEST_VENV)
	$(TEST_VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(MAKE) check BIN=$(TEST_VENV)/bin

BIN ?= $(VENV)/bin
check: lint
	$(BIN)/pytest -n auto

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 --follow-imports=silent -p edgesdk.profiling.agent  # on boards

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	touch $@

clean:
	rm -rf $(VENV) $(TEST_VENV) $(DEMO_OUT) build dist
