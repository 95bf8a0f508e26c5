# Each target does its own set-up in .venv; nothing else needs to be installed than Python 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
BLENDER_EXT = .venv-bpy-5.0.1/bin/python \
	.venv-bpy-5.0.1/lib/python3*/site-packages/bpy/*/scripts/addons_core/bl_pkg/cli/blender_ext.py

.PHONY: demo generator pictures test test-backend test-other test-blender-4.5 test-blender-5.0 lint extension extension-repository \
	bench starter-models starter-data starter-datasets check-splits tuning-model clean

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

# The pictures of the menu of models.
pictures: $(READY)
	$(BIN)/python -m extension.pictures

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

# How the models that ship are made: `make starter-chairs` makes one, `make starter-models` all. Meshes come from Debian
# packages, so the first steps want apt-get and dpkg, which install nothing; from generators; and, for bodies, from a Python
# package. Each step leaves a stamp beside what it made, so that a killed make goes on where it was; without its stamp a step
# is done again, and keeps what it finds. runs/times.log says how long each step took. Left and right are not the same of
# desks, which have their drawers on one side, and of people and animals, which stand on one leg.
#
#               drawn copies deformation front samples epochs
model.airplanes   :=    0  5  aircraft     -x  150000  1000  --symmetric
model.bathroom    :=  400 11  furniture    +z   80000   700
model.beds        :=  400 11  furniture    +z   80000   700
model.bottles     :=  400 11  furniture    +z   60000   420  --symmetric
model.bowls       :=  400 11  furniture    +z   80000   700  --symmetric
model.cabinets    :=  400  4  furniture    +z   60000   420
model.cars        :=    0 11  proportions  +z   60000   420  --symmetric
model.chairs      :=  400  7  furniture    +z   80000   700  --symmetric
model.humans      :=  560  0  furniture    +z   80000   700
model.lamps       :=  400  7  furniture    +z   60000   420
model.mugs        :=  400 11  furniture    +z   60000   420  --symmetric
model.quadrupeds  :=    0  1  proportions  +z   80000   700
model.sofas       :=  400 11  furniture    +z   60000   420
model.tables      :=  400 11  furniture    +z   60000   420

# The columns: procedural pieces, deformed copies of each real one, and so on. A quick look at all steps:
#   make starter-chairs GENERATED=6 COPIES=1 SAMPLES=2000 EPOCHS=2 ENCODER='--steps 20' EVALUATE='--resolution 64' SHIPPED=out/shipped
generated = $(or $(GENERATED),$(word 1,$(model.$*)))
copies = $(or $(COPIES),$(word 2,$(model.$*)))
deform = $(word 3,$(model.$*))
front = $(word 4,$(model.$*))
samples = $(or $(SAMPLES),$(word 5,$(model.$*)))
epochs = $(or $(EPOCHS),$(word 6,$(model.$*)))
symmetric = $(word 7,$(model.$*))
EVALUATE :=
ENCODER :=
SHIPPED := sdf_backend/starter_models

# What a model is made from: members of packages, where the catalogue has rows of its category, and pieces that are drawn.
CATALOGUE := training/starter_catalog.csv
packages = $(shell cut -d, -f1,3 $(CATALOGUE) | sort -u | sed -n 's/^$*,//p')
collected = $(if $(packages),data/meshes/$*/collected)
meshes = $(collected) $(if $(filter-out 0,$(word 1,$(model.$*))),data/meshes/$*/generated)
generator = $(if $(filter humans,$*),.venv/humans,.venv-infinigen/ready)

MODELS := $(sort $(patsubst model.%,%,$(filter model.%,$(.VARIABLES))))
COLLECTED := $(patsubst %,data/meshes/%/collected,$(filter-out humans,$(MODELS)))
.PHONY: $(MODELS:%=starter-%)

starter-models: $(MODELS:%=starter-%)
$(MODELS:%=starter-%): starter-%: runs/%/shipped
starter-data: $(COLLECTED) data/airplanes/prepared
starter-datasets: $(MODELS:%=data/%/prepared)

# Runs a command, writes its times into the log, and leaves the stamp. A kill leaves the line that says it began.
SHELL := /bin/bash
define step
@mkdir -p $(@D) runs
@echo '$(1)'
@echo "$$(date -u +%FT%TZ) $* $(@F): begun" >>runs/times.log
@TIMEFORMAT="$$(date -u +%FT%TZ) $* $(@F): %0R s, CPU %0U s"; { time { $(1); } 2>&3; } 3>&2 2>>runs/times.log \
	|| { echo "$* $(@F): failed" >>runs/times.log; exit 1; }
@touch $@
endef

.SECONDEXPANSION:
.PRECIOUS: data/packages/%/ready

# All packages are 2.9 GB to fetch, of which 1.4 are for quadrupeds (0ad-data).
data/packages/%/ready:
	mkdir -p $(@D)
	cd $(@D) && apt-get download $* && dpkg -x $*_*.deb . && rm $*_*.deb && touch ready

# Written only where they changed, so that a change of other categories' rows makes nothing again.
$(MODELS:%=data/meshes/%/rows): data/meshes/%/rows: $(CATALOGUE)
	@mkdir -p $(@D)
	@grep '^$*,' $< | cmp --silent - $@ || grep '^$*,' $< >$@

$(COLLECTED): data/meshes/%/collected: data/meshes/%/rows $$(addprefix data/packages/,$$(addsuffix /ready,$$(packages))) \
		| $(READY)
	$(call step,$(BIN)/python -m training collect $(CATALOGUE) data/packages -o data/meshes --category $*)

# After the real pieces, because the credits of both are in one file.
$(MODELS:%=data/meshes/%/generated): data/meshes/%/generated: $$(collected) | $(READY) $$(generator)
	$(call step,$(BIN)/python -m training generate $* -o data/meshes/$* --count $(generated) --workers 2)

$(MODELS:%=data/%/prepared): data/%/prepared: $$(meshes) | $(READY)
	$(call step,$(BIN)/python -m training prepare data/meshes/$* -o data/$* --front=$(front) --samples $(samples) \
		--copies $(copies) --deform $(deform))

$(MODELS:%=runs/%/trained): runs/%/trained: data/%/prepared
	$(call step,$(BIN)/python -m training train data/$* -o runs/$* --preset small $(symmetric) --epochs $(epochs) \
		$(if $(wildcard runs/$*/checkpoint.safetensors),--resume))

$(MODELS:%=runs/%/encoded): runs/%/encoded: runs/%/trained
	$(call step,$(BIN)/python -m training train-encoder runs/$*/$*.safetensors -o runs/$*/encoder $(ENCODER))

evaluate = $(BIN)/python -m training evaluate runs/$*/$*.safetensors data/$* $(EVALUATE) -o out/evaluation/$*
$(MODELS:%=runs/%/evaluated): runs/%/evaluated: runs/%/encoded
	$(call step,$(evaluate) --task unknown --record && $(evaluate) --task complete --record \
		&& $(evaluate)/unrefined --task unknown --refine 0)

$(MODELS:%=runs/%/shipped): runs/%/shipped: runs/%/evaluated
	$(call step,$(BIN)/python -m training ship runs/$*/$*.safetensors -o $(SHIPPED))

.venv/humans: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[humans]'
	touch $@

# No test piece of these may be a near-duplicate of a real training piece. One of the test aircraft, an airliner, is one of
# most airliners, and one of the light ones too; both stay, because earlier measurements are of that test set.
check-splits: $(COLLECTED)
	for category in $(filter-out airplanes humans,$(MODELS)); do \
		$(BIN)/python -m training near-duplicates data/meshes --category $$category || exit 1; done

# A decoder to choose settings of the fit with: the test shapes have no part in it. Those of today were chosen with one of
# the same families that the preset of 0.1 had trained.
tuning-model: data/airplanes/prepared
	$(BIN)/python -m training hold-out data/airplanes training/tuning_families.txt -o data/tuning
	$(BIN)/python -m training train data/tuning -o runs/tuning \
		--preset small --symmetric --epochs 700

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-bpy-* .venv-infinigen out dist
