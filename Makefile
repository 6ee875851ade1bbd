# make course   run every lesson and print what each one measured
# make test     all that must pass on every change
# make lab      open the lessons in JupyterLab
# make bench    compare with other libraries (30 minutes at most)
# make bench-long  the experiments that lessons quote but do not run (hours)
# make prove [LESSONS=00,01]      the long proofs, and a rehearsal: lessons from the wheelhouse, without a network
# make gpu      the GPU tests and speeds, in six minutes, without a network (PYTHON=…, wheels/ for what that Python lacks)
# make notebooks [ONLY="00 03"]   run the lessons in place, to refresh the outputs they are stored with
# make links [REPO=owner/name]    renew links, references and glossary; the address is that of the git remote, or REPO
# make book [PDF=1]               the course as a site that needs no network: build/book/index.html
# make slides                     a deck for each lesson: build/slides/index.html
# make page     a page that learns in the browser to tell apart the pictures it is given: build/page/index.html (needs npm)
# make wheelhouse                 all that a room without a network needs, in one folder
# make mutants  how many small changes to the three operator files do the tests notice?

# OpenMP's threads spin while they wait for each other, and with two busy neighbours on two cores that makes PyTorch ten
# times slower. Asleep they cost 5 to 15 % on an idle machine, and a shared one keeps most of its speed.
export OMP_WAIT_POLICY ?= PASSIVE

PYTHON ?= python3
BIN := .venv/bin
PYTEST := TLBOOK_CACHE="$(CURDIR)/build/test-cache" $(BIN)/python -m pytest
NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout=3600 --nbval-sanitize-with tests/nbval_sanitize.cfg

.PHONY: course test lab bench bench-long gpu prove notebooks links mutants book slides wheelhouse page

course: .venv/course.installed
	$(BIN)/python -m tlbook course

# A test run starts with an empty cache, which its two steps share.
test: .venv/test.installed
	rm -rf build/test-cache
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST)
	TQDM_DISABLE=1 $(PYTEST) $(NBVAL) notebooks

lab: .venv/course.installed
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

bench: .venv/bench.installed
	$(BIN)/python benchmarks/feature_extraction.py
	$(BIN)/python benchmarks/probes.py
	$(BIN)/python benchmarks/ranking.py

# A machine with a GPU and no network: its own Python with torch and timm, the missing packages from a folder of wheels.
gpu:
	$(PYTHON) -m pip install --no-index --no-deps --quiet --target build/gpu $(wildcard wheels/*.whl) || true
	PYTHONPATH="$(CURDIR):$(CURDIR)/build/gpu" TLBOOK_CACHE="$(CURDIR)/build/gpu-cache" $(PYTHON) benchmarks/gpu.py

bench-long: .venv/bench.installed
	$(BIN)/python benchmarks/probe_start.py
	$(BIN)/python benchmarks/precision.py
	$(BIN)/python benchmarks/lesson_06.py
	$(BIN)/python benchmarks/lesson_01.py
	$(BIN)/python benchmarks/small_data.py
	$(BIN)/python benchmarks/own_data.py
	$(BIN)/python benchmarks/fine_tuning.py peers
	$(BIN)/python benchmarks/fine_tuning.py paper
	$(BIN)/python benchmarks/league.py
	$(BIN)/python benchmarks/decisions.py

prove: .venv/test.installed wheelhouse
	LESSONS="$(LESSONS)" $(PYTEST) -m prove

book: .venv/book.installed
	$(BIN)/python book/build_book.py $(if $(PDF),--pdf)

slides: .venv/book.installed
	$(BIN)/python book/build_slides.py

page: .venv/course.installed
	rm -rf build/page
	$(BIN)/python -m tlbook page --out build/page

# In the room: python3 -m venv .venv && .venv/bin/pip install --no-index --find-links wheelhouse/ 'tlbook[course]'
# (same system, same Python). CUDA and the torch for it are 2.9 of the 3.3 GB; PIP_EXTRA_INDEX_URL may name an index of CPU builds.
wheelhouse: .venv/course.installed
	rm -rf wheelhouse
	$(BIN)/python -m pip wheel --constraint constraints.txt --wheel-dir wheelhouse ".[course]"
	touch wheelhouse/complete

notebooks: .venv/course.installed
	TQDM_DISABLE=1 $(BIN)/python -c "import sys; from tlbook.course.runner import run_course; \
	print(run_course(only=sys.argv[1:] or None, out='notebooks'))" $(ONLY)

links: .venv/course.installed
	$(BIN)/python tlbook/course/frame.py $(if $(REPO),--repo $(REPO))

# Threads do not survive the fork in which each mutant is tried, so there is one.
mutants: .venv/mutants.installed
	OMP_NUM_THREADS=1 $(BIN)/mutmut run
	$(BIN)/mutmut results

# A stamp newer than these two files says that what they list is installed: then nothing is done, offline too.
.venv/%.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[course,$*]"
	touch .venv/course.installed $@
