# Each target does its own set-up in .venv; nothing else needs to be installed than Python 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
BLENDER_EXT = .venv-bpy-5.0.1/bin/python \
	.venv-bpy-5.0.1/lib/python3*/site-packages/bpy/*/scripts/addons_core/bl_pkg/cli/blender_ext.py

.PHONY: demo generator test test-backend test-other test-blender-4.5 test-blender-5.0 lint extension extension-repository bench starter-data check-splits starter-models starter-airplanes starter-chairs starter-tables starter-humans \
	tuning-model clean

demo: $(READY)
	$(BIN)/python -m demo

# Four runs, two at a time, and one summary of them all. Blender's tests run on the oldest and the newest Blender that there
# is as a Python module; both want Python 3.11.
RUNS := backend blender-4.5 blender-5.0 other
test: lint
	rm -rf out/tests
	$(MAKE) --jobs=2 --keep-going --output-sync=target $(RUNS:%=test-%); \
		$(BIN)/python tests/summary.py $(RUNS:%=out/tests/%.xml)

test-backend: $(READY)
	$(BIN)/python -m pytest --junitxml=out/tests/backend.xml tests/sdf_backend

test-other: $(READY)
	$(BIN)/python -m pytest --junitxml=out/tests/other.xml --ignore=tests/sdf_backend

test-blender-4.5: $(READY) .venv-bpy-4.5.15/ready
	.venv-bpy-4.5.15/bin/python -m pytest --junitxml=out/tests/blender-4.5.xml --import-mode=prepend --confcutdir tests/bpy tests/bpy

test-blender-5.0: $(READY) .venv-bpy-5.0.1/ready
	.venv-bpy-5.0.1/bin/python -m pytest --junitxml=out/tests/blender-5.0.xml --import-mode=prepend --confcutdir tests/bpy tests/bpy

.venv-bpy-%/ready: constraints.txt
	$(PYTHON) -m venv .venv-bpy-$*
	.venv-bpy-$*/bin/python -m pip install --quiet --disable-pip-version-check bpy==$* \
		$$(grep -E '^(pyzmq|pytest)==' constraints.txt)
	touch $@

# Infinigen, in an environment of its own: its pins do not fit ours, and those of its old wheels cannot be built. That it
# cannot fetch two of Blender's extensions does no harm here.
generator: .venv-infinigen/ready

.venv-infinigen/ready: training/generators/infinigen-requirements.txt
	$(PYTHON) -m venv .venv-infinigen
	.venv-infinigen/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	.venv-infinigen/bin/python -c 'import bpy, infinigen.core'
	touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-cache

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

# The exact commands that made the shipped decoders: `make starter-models` is all of them, one after another. Meshes come
# from Debian packages, so the first steps want apt-get and dpkg, which install nothing; bodies from a Python package.
starter-models: starter-airplanes starter-chairs starter-tables starter-humans

PACKAGES := 0ad-data flightgear-data-ai flightgear-data-base sweethome3d sweethome3d-furniture torcs-data \
	trigger-rally-data ufoai-data

# 2.9 GB to fetch, of which 1.4 are quadrupeds (0ad-data).
data/packages/%/ready:
	mkdir -p $(@D)
	cd $(@D) && apt-get download $* && dpkg -x $*_*.deb . && rm $*_*.deb && touch ready

starter-data: $(READY) $(PACKAGES:%=data/packages/%/ready)
	$(BIN)/python -m training collect training/starter_catalog.csv data/packages -o data/meshes
	$(BIN)/python -m training prepare data/meshes/airplanes -o data/airplanes --front=-x --samples 150000 --copies 5

starter-airplanes: starter-data
	$(BIN)/python -m training train data/airplanes -o runs/airplanes \
		--preset small --symmetric --epochs 1000 --halve-every 160
	$(call ship,airplanes)

starter-chairs: starter-data
	$(BIN)/python -m training prepare data/meshes/chairs -o data/chairs --front=+z \
		--samples 80000 --copies 7 --deform furniture
	$(BIN)/python -m training train data/chairs -o runs/chairs --preset small --symmetric --epochs 700 --halve-every 115
	$(call ship,chairs)

# Desks have their drawers on one side, so these are not symmetric.
starter-tables: starter-data
	$(BIN)/python -m training prepare data/meshes/tables -o data/tables --front=+z \
		--samples 100000 --copies 11 --deform furniture
	$(BIN)/python -m training train data/tables -o runs/tables --preset small --epochs 700 --halve-every 115
	$(call ship,tables)

# Nor are people, who stand on one leg and look about.
starter-humans: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[humans]'
	$(BIN)/python -m training generate humans -o data/meshes/humans --count 560
	$(BIN)/python -m training prepare data/meshes/humans -o data/humans --front=+z --samples 80000
	$(BIN)/python -m training train data/humans -o runs/humans --preset small --epochs 700 --halve-every 115
	$(call ship,humans)

# No test piece of these may be a near-duplicate of a training piece. One of the test aircraft, an airliner, is one of most
# airliners, and one of the light ones too; both stay, because earlier measurements are of that test set.
SPLIT := bathroom beds bottles bowls cabinets cars chairs lamps mugs quadrupeds sofas tables
check-splits: starter-data
	for category in $(SPLIT); do \
		$(BIN)/python -m training near-duplicates data/meshes --category $$category || exit 1; done

define ship
cp runs/$(1)/$(1).safetensors sdf_backend/starter_models/
$(foreach task,unknown complete,$(BIN)/python -m training evaluate $(1) data/$(1) --task $(task) \
	-o out/evaluation/$(1) --record &&) true
endef

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
	rm -rf .venv .venv-bpy-* .venv-infinigen out dist
