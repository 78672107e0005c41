# The commands of this repository. `make demo` and `make test` set up everything themselves.
PYTHON ?= python3
PY := .venv/bin/python

.PHONY: demo test test-slow test-extras coverage house lint format bench ablation docs weights zoo hugging-face zoo-test label-test deploy-test dicomweb-test browser-test clean help

help:
	@echo "make demo       the main job on open data, ends with demo/report.html"
	@echo "make test       lint and the whole test suite"
	@echo "make test-slow  the minutes-long tests"
	@echo "make browser-test  the pages in Chromium (Debian: apt-get install chromium); pictures in build/browser-test/"
	@echo "make test-extras  the whole suite with every optional package; a skipped test fails"
	@echo "make coverage   the suite, and the share of lines that it runs"
	@echo "make house      the rooms of the package, what imports what"
	@echo "make lint       ruff and mypy;  make format  lets ruff rewrite"
	@echo "make bench      performance figures, each as a ratio to a named baseline"
	@echo "make ablation   the paper's ablation experiments on a small synthetic cohort, one table and one plot"
	@echo "make docs       the API reference from the docstrings, in dist/docs/"
	@echo "make weights    the weights in models/ from nothing; hours"
	@echo "make zoo        the bundle as one archive for the MONAI Model Zoo, in dist/"
	@echo "make hugging-face  the bundle as a Hugging Face repository with its model card, in dist/"
	@echo "make zoo-test   that archive without this repository;  make label-test, deploy-test  MONAI Label, MONAI Deploy"
	@echo "make dicomweb-test  xrecon dicomweb against a real Orthanc on 127.0.0.1 (Debian: orthanc orthanc-dicomweb)"

.venv/.ready: requirements.txt pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: .venv/.ready
	$(PY) scripts/demo.py

lint: .venv/.ready
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: .venv/.ready
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

test: lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadfile -m "not slow and not browser"

test-slow: .venv/.ready
	$(PY) -m pytest -q -m "slow and not browser"

browser-test: .venv/.ready
	$(PY) -m pip install --quiet --disable-pip-version-check playwright==1.65.2
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m browser --no-skips tests/browser

test-extras: .venv/.ready
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt ".[cluster,dicom,dicomweb,mlflow,onnx,sam]"
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadfile --no-skips -m "not browser"

coverage: .venv/.ready
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadfile -m "not slow and not browser" --cov=xrecon_bundle --cov-report=term

house: .venv/.ready
	$(PY) scripts/house.py

bench: .venv/.ready
	$(PY) scripts/benchmark.py generator
	$(PY) scripts/benchmark.py projector
	$(PY) scripts/benchmark.py prepare
	$(PY) scripts/benchmark.py thorax
	$(PY) scripts/benchmark.py ptxseg
	$(PY) scripts/benchmark.py training
	$(PY) scripts/benchmark.py radiographs
	$(PY) scripts/benchmark.py startup
	$(PY) scripts/benchmark.py reconstruction

ablation: .venv/.ready
	$(PY) scripts/ablation.py

docs: .venv/.ready
	$(PY) -m pdoc --docformat google --output-directory dist/docs xrecon_bundle

weights: .venv/.ready
	$(PY) scripts/weights.py

zoo: .venv/.ready
	$(PY) scripts/zoo.py

hugging-face: .venv/.ready
	$(PY) scripts/hugging_face.py

zoo-test: .venv/.ready
	$(PY) scripts/zoo_test.py

# Environments of their own: MONAI Label needs NumPy 1 and pydicom 2.
.venv-label/.ready: scripts/label-requirements.txt
	test -x .venv-label/bin/python || $(PYTHON) -m venv .venv-label
	.venv-label/bin/python -m pip install --quiet --disable-pip-version-check $$(grep ^torch== $<)
	.venv-label/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	touch $@

.venv-deploy/.ready: deploy/requirements.txt
	test -x .venv-deploy/bin/python || $(PYTHON) -m venv .venv-deploy
	.venv-deploy/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

label-test: .venv/.ready .venv-label/.ready
	$(PY) scripts/label_test.py

deploy-test: .venv/.ready .venv-deploy/.ready
	$(PY) scripts/deploy_test.py

dicomweb-test: .venv/.ready
	$(PY) scripts/dicomweb_test.py

clean:
	rm -rf .venv .venv-label .venv-deploy build demo .pytest_cache .ruff_cache .mypy_cache
