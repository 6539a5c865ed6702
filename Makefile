# make pretrain      learn from the embedded images: minutes on a CPU
# make test          the fast test suite
# make test-slow     the tests left out of it: kills, several processes, whole runs
# make test-browser  the report's page in headless Chromium
# make test-torch    detection; exports read by PyTorch, torchvision, timm, onnxruntime: installs 5.5 GB
# make docs          guides, executed tutorials and API reference, in build/docs/html
# make lint          style checks

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: pretrain test test-slow test-browser test-torch docs lint clean

pretrain: $(VENV)/installed
	$(RUN) -m byol_jax.main_loop --config=configs/byol.py

test: $(VENV)/installed
	$(RUN) -m pytest -q -rs -n 2 --dist loadfile -m "not slow"

test-slow: $(VENV)/installed
	$(RUN) -m pytest -q -rs -n 2 --dist loadfile -m "slow and not browser and not torch"

test-browser: $(VENV)/installed
	@command -v chromedriver > /dev/null || \
	  { echo "Chromium and its driver are needed; on Debian: apt-get install chromium chromium-driver"; exit 1; }
	$(RUN) -m pip install --quiet --disable-pip-version-check -c requirements.txt selenium==4.51.0
	$(RUN) -m pytest -q -m browser tests/report/browser_test.py

test-torch: $(VENV)/installed-torch
	$(RUN) -m pytest -q -m torch tests/export/torch_test.py tests/export/hub_folder_test.py tests/detection/torch_test.py

# The tutorials call python as a reader would.
docs: $(VENV)/installed-docs
	PATH="$(abspath $(VENV))/bin:$$PATH" PYTHONPATH="$(CURDIR)" \
	  $(RUN) -m sphinx -W --keep-going -q -d build/docs/doctrees docs build/docs/html

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

# A new environment whenever the requirements change; "installed" marks one that is whole.
$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

# Into the same environment: the constraints keep everything that is in it as it is.
$(VENV)/installed-torch: requirements-torch.txt $(VENV)/installed
	$(RUN) -m pip install --quiet --disable-pip-version-check -c requirements.txt -r requirements-torch.txt
	touch $@

$(VENV)/installed-docs: requirements-docs.txt $(VENV)/installed
	$(RUN) -m pip install --quiet --disable-pip-version-check -c requirements.txt -r requirements-docs.txt
	touch $@

clean:
	rm -rf $(VENV)
