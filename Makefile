# tig-pi. `make` prints the verbs with their descriptions, which follow ## below.

RELEASE ?= trixie
JOBS ?= 2
demo := inventories/demo
bin := .venv/bin
play = bin/play $(if $(ASK),--ask-pass --ask-become-pass) --inventory $(INVENTORY)

# Default inventory: verbs that change something use your Pi's; those that only read use the demo's while it runs.
pi device flash format repair feed: INVENTORY ?= inventories/home
status verify: INVENTORY ?= $(if $(wildcard $(demo)/.virtual/pi.json),$(demo),inventories/home)

export RELEASE PYTHON
# Ansible refuses a locale without UTF-8.
export LC_ALL := $(shell bin/utf8 printenv LC_ALL)
# Removes a .venv that cannot be used, whatever its stamps say.
ifeq ($(MAKELEVEL),0)
$(shell bin/venv --check)
endif
# Ignore the user's own settings for Python and Ansible. Ansible would not read ansible.cfg by itself in a folder that
# others may write to.
unexport PYTHONPATH PYTHONHOME
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# Let Python cache bytecode: otherwise each of Ansible's workers compiles the plugins again.
export PYTHONDONTWRITEBYTECODE :=
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help help-text demo pi device flash format repair status verify fault feed check test bench clean image demo-feed

help:
	@text="$$($(MAKE) --silent help-text)"; trap '' PIPE; echo "$$text" 2>/dev/null || : # as with `make | head`

help-text:
	@echo 'make VERB [INVENTORY=inventories/home] [ARGS="…"] [ASK=1]'
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/p' Makefile | expand -t 12
	@echo
	@echo '  INVENTORY  the site; ARGS  more arguments of ansible-playbook, such as "--check --diff" or "--tags telegraf"'
	@echo '  ASK=1      ask for the passwords of SSH and sudo'

demo: ## run everything on this machine, without hardware: a virtual Pi with a virtual LoPy4 (RELEASE=bookworm)
	@bin/demo

pi: .venv/.controller ## set up a Pi, or apply changes of the inventory to it
	@$(play) playbooks/site.yml $(ARGS)

device: .venv/.controller ## find a new sensor node and write its host_vars (NAME=greenhouse PORT=…)
	@$(play) playbooks/device.yml $(if $(NAME),--extra-vars device_name=$(NAME)) $(if $(PORT),--extra-vars device_port=$(PORT)) $(ARGS)

flash: .venv/.controller ## upload program and settings to the sensor nodes (DEVICE=matslopy4; default: all)
	@$(play) playbooks/flash.yml $(if $(DEVICE),--limit $(DEVICE),) $(ARGS)

format: .venv/.controller ## create a new file system on a sensor node, then as flash; keeps its LoRa and Sigfox keys (DEVICE=matslopy4)
	@test -n "$(DEVICE)" || { echo 'Name the device: make format DEVICE=greenhouse. Everything on its file system is deleted.' >&2; exit 2; }
	@$(play) playbooks/flash.yml --tags lopy4_erase_fs,lopy4 --limit $(DEVICE) $(ARGS)

status: .venv/.controller ## show services, accounts, last readings, what is not configured (FORMAT=json)
	@bin/status $(INVENTORY) $(if $(ASK),--ask-pass --ask-become-pass) $(if $(FORMAT),--format $(FORMAT)) $(ARGS)

verify: .venv/.controller ## follow a reading through the whole chain, from outside
	@ANSIBLE_STDOUT_CALLBACK=tig_pi.stack.lines $(play) playbooks/verify.yml $(ARGS)

repair: .venv/.controller ## after a power cut: list damaged files, repair them, then as pi (ARGS=--check: list only)
	@$(play) playbooks/repair.yml $(ARGS)

fault: .venv/.controller ## break something in the demo and watch; repeat to repair it (WHAT=…; without it: list)
	@bin/fault $(WHAT) $(DEVICE)

feed: .venv/.controller ## download all packages for a Pi that cannot reach the vendors
	@bin/prerequisites feed
	@$(play) playbooks/feed.yml $(ARGS)

check: .venv/.test ## run lint and quick unit tests, three minutes
	@$(MAKE) --silent --keep-going --output-sync --jobs=$(JOBS) check-tests $(lints)

test: ## run all tests (SCENARIO="base mosquitto": these molecule scenarios alone)
	@bin/prerequisites test
	@$(MAKE) --silent --jobs=3 .venv/.test image demo-feed
	@$(MAKE) --silent --jobs=2 RELEASE=bookworm image demo-feed # for scenario takeover
	@$(bin)/python bin/test --jobs $(JOBS) $(SCENARIO)

bench: ## measure speed and memory, ten minutes, then what faults leave behind, an hour (ARGS=--cold; ARGS=again: parts of the first)
	@bin/prerequisites test
	@bench/stack $(ARGS)
	@$(if $(ARGS),,bench/sessions && bench/state-files && bench/cuts)

clean: ## remove the demo: its Pi and everything that belongs to it
	@bin/demo --remove

# Prerequisites of the verbs.

image:
	@virtual/pi/pi.py image >/dev/null

demo-feed: .venv/bin/python
	@.venv/bin/python packaging/feed.py fill --stand-ins --release $(RELEASE)

.venv/bin/python:
	@bin/prerequisites pi
	@bin/venv

.venv/.controller: requirements.txt | .venv/bin/python
	@bin/venv requirements.txt
	@touch $@

.venv/.test: requirements-test.txt | .venv/bin/python
	@bin/venv requirements-test.txt
	@touch $@ .venv/.controller

# The parts of `make check`; each prints errors only.

lints := check-ansible-lint check-syntax check-yamllint check-ruff check-format check-spelling
.PHONY: lint check-tests $(lints)

lint:
	@$(MAKE) --silent --keep-going --output-sync --jobs=$(JOBS) $(lints)

check-tests:
	@$(bin)/python -m pytest --quiet --numprocesses=$(JOBS) --dist=worksteal -m 'not slow'

check-ansible-lint:
	@PATH="$(CURDIR)/$(bin):$$PATH" ansible-lint -q

check-syntax:
	@for inventory in $(demo) inventories/home; do \
	  $(bin)/ansible-playbook --syntax-check --inventory $$inventory playbooks/*.yml >/dev/null || exit; done

check-yamllint:
	@$(bin)/yamllint --strict .

check-ruff:
	@$(bin)/ruff check --quiet

check-format:
	@$(bin)/ruff format --check --quiet

check-spelling:
	@$(bin)/codespell
