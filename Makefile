# Each target does its own set-up in .venv; nothing else needs to be installed than Python 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
BLENDER_EXT = .venv-bpy-5.0.1/bin/python \
	.venv-bpy-5.0.1/lib/python3*/site-packages/bpy/*/scripts/addons_core/bl_pkg/cli/blender_ext.py

.PHONY: demo test test-blender lint extension extension-repository bench starter-data starter-model tuning-model clean

demo: $(READY)
	$(BIN)/python -m demo

test: lint test-blender
	$(BIN)/python -m pytest

# The same tests on the oldest and the newest Blender that there is as a Python module; both want Python 3.11.
test-blender: $(READY) .venv-bpy-4.5.15/ready .venv-bpy-5.0.1/ready
	.venv-bpy-4.5.15/bin/python -m pytest --confcutdir tests/bpy tests/bpy
	.venv-bpy-5.0.1/bin/python -m pytest --confcutdir tests/bpy tests/bpy

.venv-bpy-%/ready: constraints.txt
	$(PYTHON) -m venv .venv-bpy-$*
	.venv-bpy-$*/bin/python -m pip install --quiet --disable-pip-version-check bpy==$* \
		$$(grep -E '^(pyzmq|pytest)==' constraints.txt)
	touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

# Blender's own extension command line, which comes with its Python module, has the last word.
extension: $(READY) .venv-bpy-5.0.1/ready
	$(BIN)/python -m extension
	for zip in dist/*.zip dist/*/*.zip; do $(BLENDER_EXT) validate $$zip || exit 1; done

# dist/ as a repository of a studio's own, for any web server that serves files.
extension-repository: extension
	$(BLENDER_EXT) server-generate --repo-dir dist --html

bench: $(READY) .venv-bpy-4.5.15/ready
	$(BIN)/python -m benchmarks.fit
	$(BIN)/python -m benchmarks.extract
	$(BIN)/python -m benchmarks.prepare
	$(BIN)/python -m benchmarks.wire
	$(BIN)/python -m benchmarks.soak
	.venv-bpy-4.5.15/bin/python -m benchmarks.blender

# The exact commands that made the shipped aeroplane decoder. The data comes from a Debian package, so the first
# step wants apt-get and dpkg; it installs nothing.
starter-data: $(READY)
	mkdir -p data/packages
	cd data/packages && apt-get download flightgear-data-ai && dpkg -x flightgear-data-ai_*.deb .
	$(BIN)/python -m training collect training/starter_catalog.csv data/packages -o data/meshes --category airplanes
	$(BIN)/python -m training prepare data/meshes/airplanes -o data/airplanes --front=-x --samples 150000 --copies 5

starter-model: $(READY)
	$(BIN)/python -m training train data/airplanes -o runs/airplanes \
		--preset small --symmetric --epochs 1000 --halve-every 160
	cp runs/airplanes/airplanes.safetensors sdf_backend/starter_models/
	$(BIN)/python -m training evaluate airplanes data/airplanes --task unknown -o out/evaluation --record
	$(BIN)/python -m training evaluate airplanes data/airplanes --task complete -o out/evaluation --record

# The decoder with which settings of the fit were chosen: the test shapes have no part in it.
tuning-model: $(READY)
	$(BIN)/python -m training hold-out data/airplanes training/tuning_families.txt -o data/tuning
	$(BIN)/python -m training train data/tuning -o runs/tuning \
		--preset small --symmetric --epochs 700 --halve-every 115

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-bpy-* out dist
