# The verbs of tig-pi. `make help` prints them with their descriptions, the comments that begin with ##.

RELEASE ?= trixie
JOBS ?= 2
demo := inventories/demo
bin := .venv/bin
play = bin/play $(if $(ASK),--ask-pass --ask-become-pass) --inventory $(INVENTORY) $(offline)

# FEED, the directory of the feed, and that for bin/venv, which runs before Ansible: by default site_feed_directory in playbooks/group_vars.
feed = $(if $(FEED),$(shell realpath --canonicalize-missing "$(FEED)"))
venv_feed = $(or $(feed),$(cache)/feed/$(notdir $(shell [ -d "$(INVENTORY)" ] && realpath --no-symlinks "$(INVENTORY)" || dirname "$$(realpath --no-symlinks "$(INVENTORY)")")))
cache = $(or $(TIG_PI_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tig-pi)
offline = $(if $(OFFLINE),--extra-vars '{"site_offline": true}' $(if $(FEED),--extra-vars "site_feed='$(feed)'"))

# Default inventory: for verbs that change something, your Pi's; for those that only read, the demo's while it runs.
pi device flash format repair backup restore rebuild upgrade replay drill backup-timer drill-timer feed card: INVENTORY ?= inventories/home
status verify: INVENTORY ?= $(if $(wildcard $(demo)/.virtual/pi.json),$(demo),inventories/home)

# Options of restore and rebuild.
which_backup = $(if $(FROM),--extra-vars restore_from=$(FROM)) $(if $(ARCHIVE),--extra-vars restore_archive=$(ARCHIVE)) \
  $(if $(HOST),--extra-vars restore_host=$(HOST)) $(if $(CONSENT),--extra-vars restore_consent=$(CONSENT))

export RELEASE PYTHON
# Ansible refuses a locale without UTF-8.
export LC_ALL := $(shell bin/utf8 printenv LC_ALL)
# Remove a .venv that cannot be used, although its stamps are up to date.
ifeq ($(MAKELEVEL),0)
$(shell bin/venv --check)
endif
# Ignore the user's own settings for Python and Ansible. ANSIBLE_CONFIG: Ansible does not read ansible.cfg by itself in a
# folder that others may write to.
unexport PYTHONPATH PYTHONHOME
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# Let Python cache bytecode; otherwise each of Ansible's workers compiles the plugins again.
export PYTHONDONTWRITEBYTECODE :=
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help help-text demo card pi device flash format repair backup restore rebuild upgrade replay drill backup-timer drill-timer recover status verify fault feed check test bench clean image demo-feed bookworm

help:
	@text="$$($(MAKE) --silent help-text)"; trap '' PIPE; echo "$$text" 2>/dev/null || : # no error with `make | head`

help-text:
	@echo 'make VERB [INVENTORY=inventories/home] [ARGS="…"] [ASK=1]'
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/p' Makefile | expand -t 12
	@echo
	@echo '  INVENTORY  the inventory of the site'
	@echo '  ARGS       more arguments for ansible-playbook, such as "--check --diff" or "--tags telegraf"'
	@echo '  ASK=1      ask for the passwords of SSH and sudo'
	@echo '  OFFLINE=1  use nothing from the internet, but what `make feed` has downloaded (FEED=/media/stick/feed: a copy)'

demo: ## run everything on this machine: a virtual Pi with a virtual LoPy4 (RELEASE=bookworm)
	@bin/demo

card: .venv/.controller ## write the card of a blank Pi (CARD=/dev/sdX IMAGE=….img.xz SHA256=…; only CARD: to one with Raspberry Pi OS; HOST=pi CONSENT=yes; SELF=1: the Pi sets itself up and restores the newest backup)
	@bin/prerequisites card
	@$(play) playbooks/card.yml --extra-vars "card_path='$(CARD)'" $(if $(IMAGE),--extra-vars "card_image='$(IMAGE)'") \
	  $(if $(SHA256),--extra-vars card_image_sha256=$(SHA256)) $(if $(HOST),--limit $(HOST)) $(if $(SELF),--extra-vars self_setup=$(SELF)) \
	  $(if $(CONSENT),--extra-vars card_consent=$(CONSENT)) $(ARGS)

pi: .venv/.controller ## set up a Pi, or apply changes in the inventory to it
	@$(play) playbooks/site.yml $(ARGS)

device: .venv/.controller ## add a sensor node: find its port and chip, and write its host_vars (NAME=greenhouse SENSORS=ds18b20,soil PORT=…)
	@$(play) playbooks/device.yml $(if $(NAME),--extra-vars device_name=$(NAME)) $(if $(SENSORS),--extra-vars device_sensors=$(SENSORS)) \
	  $(if $(PORT),--extra-vars device_port=$(PORT)) $(ARGS)

flash: .venv/.controller ## upload program and settings to the sensor nodes (DEVICE=matslopy4; default: all)
	@$(play) playbooks/flash.yml $(if $(DEVICE),--limit $(DEVICE),) $(ARGS)

format: .venv/.controller ## create a new file system on a sensor node and run flash; its LoRa and Sigfox keys are kept (DEVICE=matslopy4)
	@test -n "$(DEVICE)" || { echo 'Name the device: make format DEVICE=greenhouse. All files on it are deleted.' >&2; exit 2; }
	@$(play) playbooks/flash.yml --tags lopy4_erase_fs,lopy4 --limit $(DEVICE) $(ARGS)

status: .venv/.controller ## print the status report: services, accounts, last readings, missing configuration (FORMAT=json)
	@bin/status $(INVENTORY) $(if $(ASK),--ask-pass --ask-become-pass) $(if $(FORMAT),--format $(FORMAT)) $(ARGS)

verify: .venv/.controller ## publish a reading and follow it through the whole chain
	@ANSIBLE_STDOUT_CALLBACK=tig_pi.stack.lines $(play) playbooks/verify.yml $(ARGS)

repair: .venv/.controller ## list and repair state files that a power cut damaged, and run pi (ARGS=--check: only list)
	@$(play) playbooks/repair.yml $(ARGS)

backup: .venv/.controller ## back up the site to all its targets now, as the timer does each night
	@$(play) playbooks/backup.yml $(ARGS)

restore: .venv/.controller ## restore the newest backup (FROM=target, ARCHIVE=id, HOST=another name, CONSENT=yes: do not ask)
	@$(play) playbooks/restore.yml $(which_backup) $(ARGS)

rebuild: .venv/.controller ## take a blank or wiped Pi back to what it was: pi, restore, replay, verify, flash (options of restore; HOST_KEY=SHA256:…)
	@bin/rebuild $(INVENTORY) $(if $(ASK),--ask-pass --ask-become-pass) $(offline) $(which_backup) \
	  $(if $(HOST_KEY),--extra-vars reach_host_key=$(HOST_KEY)) $(ARGS)

upgrade: .venv/.controller ## back up, apply new versions and settings, verify; if anything fails, roll back to the previous versions, settings and data
	@bin/upgrade $(INVENTORY) $(if $(ASK),--ask-pass --ask-become-pass) $(offline) $(ARGS)

replay: .venv/.controller ## have sensor nodes send readings again (SINCE=36h UNTIL="2026-07-12 14:40" DEVICE=matslopy4; default: all since the restored backup)
	@$(play) playbooks/replay.yml --extra-vars "replay_device='$(DEVICE)' replay_since='$(SINCE)' replay_until='$(UNTIL)'" $(ARGS)

drill: .venv/bin/python ## restore the newest backup into a throwaway virtual Pi, and compare it with what was backed up (FROM=target)
	@bin/prerequisites demo
	@$(MAKE) --silent --jobs=3 .venv/.controller image demo-feed
	@bin/drill $(INVENTORY) $(if $(FROM),--extra-vars=drill_from=$(FROM)) $(ARGS)

backup-timer: ## run make backup on this computer every day (EVERY=…, see systemd.time(7); EVERY=never: no more)
	@bin/timer backup $(INVENTORY) $(or $(EVERY),daily)

drill-timer: ## run make drill on this computer every week (EVERY=…; EVERY=never: no more)
	@bin/timer drill $(INVENTORY) $(or $(EVERY),weekly)

recover: .venv/.controller ## get the inventory back from a backup and the recovery key (FROM=/media/stick/tig-pi/pi INTO=inventories/home)
	@test -n "$(FROM)" || { echo 'Name the backup: make recover FROM=/media/stick/tig-pi/pi, or FROM=sftp:user@host:tig-pi/pi' >&2; exit 2; }
	@$(bin)/python bin/recover "$(FROM)" "$(or $(INTO),inventories/home)"

fault: .venv/.controller ## break something in the demo; repeat to repair it (WHAT=…; without it: list what can be broken)
	@bin/fault $(WHAT) $(DEVICE)

feed: .venv/.controller ## download all that a Pi without internet is set up from (ARGS="-e feed_release=bookworm"; FEED=…: to another directory)
	@bin/prerequisites feed
	@$(play) playbooks/feed.yml $(if $(FEED),--extra-vars "feed_directory='$(feed)'") $(ARGS)

check: .venv/.test ## run lint and quick unit tests, three minutes
	@$(MAKE) --silent --keep-going --output-sync --jobs=$(JOBS) check-tests $(lints)

test: ## run all tests, about 45 minutes on two cores (SCENARIO="base mosquitto": only these molecule scenarios)
	@bin/prerequisites test
	@$(MAKE) --silent --jobs=3 .venv/.test image demo-feed bookworm
	@$(bin)/python bin/test --jobs $$(($(JOBS) + 1)) $(SCENARIO) # more than cores: each waits a third of its time

bench: .venv/.test ## measure speed and memory, and inject faults, an hour (ARGS="again memory": only these parts of bench/stack)
	@bin/prerequisites test
	@bench/stack $(ARGS)
	@$(if $(ARGS),,bench/sessions && bench/state-files && bench/cuts)

clean: ## remove the demo: its Pi, its secrets and its state
	@bin/demo --remove

# Prerequisites of the verbs

image:
	@virtual/pi/pi.py image >/dev/null

bookworm: .venv/bin/python # for scenarios takeover, restore and card
	@$(MAKE) --silent RELEASE=bookworm image demo-feed

demo-feed: .venv/bin/python
	@.venv/bin/python packaging/feed.py fill --stand-ins --release $(RELEASE)

.venv/bin/python:
	@bin/prerequisites pi
	@bin/venv

.venv/.controller: requirements.txt | .venv/bin/python
	@$(if $(OFFLINE),TIG_PI_FEED="$(venv_feed)") bin/venv requirements.txt
	@touch $@

.venv/.test: requirements-test.txt | .venv/bin/python
	@bin/venv requirements-test.txt
	@touch $@ .venv/.controller

# The parts of `make check`, which print only errors

lints := check-ansible-lint check-syntax check-yamllint check-ruff check-format check-spelling
.PHONY: lint check-tests $(lints)

lint: .venv/.test ## run the linters
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
