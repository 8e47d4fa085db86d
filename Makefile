# Sandstorm: the only build file.
#
#   make            build/sandstorm, build/sandboxd, build/sandbox-init, build/ds
#   make demo       set up, build, start a server on the local runtime, run four agents at once
#   make check      set up, build, run every test but those of check-sdk, check-deb and check-vm; PYTEST_ARGS=... goes to pytest (-k, -x, -n0)
#   make check-sdk  the published E2B SDKs, npm and PyPI, pinned versions of them, against sandboxd
#   make install    put it below PREFIX=/usr/local, staged in DESTDIR= if given; make uninstall takes it away again
#   make deb        build/deb/sandstorm_VERSION_ARCH.deb for Debian 12
#   make check-deb  look at the package: lintian, contents, dependencies
#   make check-vm   boot a Debian 12, install the package with apt, run, reload, upgrade, kill, purge (as root)
#   make coverage   which lines the tests of make check run, by folder and file; ends with an error below 90 %; HTML in build/coverage/html/
#   make lint       layout, clang-tidy, cppcheck, layers
#   make bench      what requests cost, against yardsticks of the same run; BENCH_ARGS=... goes to tests/bench/relay.py (--only, --rounds)
#   make soak       random runs for SOAK_MINUTES=30 while workers die, reload and are upgraded; SOAK_ARGS='--seed 7 --clients 30'
#   make fuzz       libFuzzer on each parser, FUZZ_SECONDS=60 each; new inputs stay in build/fuzz/
#   make clean      remove build/
#
#   CC=clang        another compiler        SAN=address,undefined   sanitizers (objects in build/san-...)
#   WERROR=1        warnings are errors     V=1                     show the commands
#
# Every target installs the Debian packages it lacks (apt-get, through sudo when not root).

VERSION  := 0.1.0
SAN      ?=
WERROR   ?=
COVERAGE ?=
CC       := $(if $(filter default,$(origin CC)),gcc,$(CC))
empty    :=
comma    := ,
space    := $(empty) $(empty)
ROOT     := build
BUILD    := $(ROOT)$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))$(if $(filter-out gcc,$(notdir $(CC))),$(if $(SAN),-,/)$(notdir $(CC)))$(if $(COVERAGE),/coverage)
SUDO     := $(if $(filter 0,$(shell id -u)),,sudo)
Q        := $(if $(V),,@)
# Debian's own interpreter: another one earlier in PATH may lack venv.
PYTHON   ?= /usr/bin/python3

# --- packages -----------------------------------------------------------------------------------
PACKAGES_BUILD := gcc libc6-dev pkg-config libevent-dev libcurl4-openssl-dev libjansson-dev \
                  libssl-dev libseccomp-dev zlib1g-dev
PACKAGES_RUN   := bubblewrap ca-certificates python3 git
PACKAGES_CHECK := libcmocka-dev python3-venv valgrind procps chromium mandoc systemd
PACKAGES_DEB   := debhelper lintian
PACKAGES_VM    := debootstrap systemd-container
PACKAGES_LINT  := clang clang-format clang-tidy cppcheck
PACKAGES_FUZZ  := clang libclang-rt-14-dev
PACKAGES_COVERAGE := gcovr
PACKAGES_SAN   := $(if $(filter clang%,$(notdir $(CC))),clang libclang-rt-14-dev)

# install_packages NAMES: only what dpkg does not know as installed, so that a second run needs no network.
define install_packages
$(Q)missing=$$(for p in $(1); do \
	dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q '^install ok installed$$' || printf '%s ' $$p; done); \
if [ -n "$$missing" ]; then \
	echo "installing: $$missing"; \
	$(SUDO) apt-get update -q >/dev/null && \
	DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -q --no-install-recommends $$missing >/dev/null; \
fi
endef

# --- flags --------------------------------------------------------------------------------------
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wconversion \
            -Wno-sign-conversion $(if $(WERROR),-Werror)
CSTD     := -std=gnu17 -D_GNU_SOURCE -I. -DSANDSTORM_VERSION='"$(VERSION)"'
HARDEN   := -fstack-protector-strong -fPIE $(if $(SAN)$(COVERAGE),,-D_FORTIFY_SOURCE=2)
# DWARF 4: what the valgrind of Debian 12 can read from clang too.
OPT      ?= $(if $(COVERAGE),-O0,-O2) -g -gdwarf-4
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
CFLAGS_ALL  = $(CSTD) $(OPT) $(WARNINGS) $(HARDEN) $(SANFLAGS) $(CFLAGS)
LDFLAGS_ALL = -pie -Wl,-z,relro,-z,now $(SANFLAGS) $(if $(COVERAGE),$(COVERAGE_LINK)) $(LDFLAGS)
# Counters reach their files however a process ends: tests/coverage/dump.c.
COVERAGE_DUMP = $(if $(COVERAGE),$(BUILD)/obj/tests/coverage/dump.o)
COVERAGE_LINK = --coverage -Wl,--wrap=__gcov_dump,--wrap=_exit,--wrap=abort $(COVERAGE_DUMP)

# What each folder may see: the layers of the house. common/ and master/ get libc and nothing else.
PKGS_common   :=
PKGS_master   :=
PKGS_worker   := libevent libcurl jansson libcrypto libssl
PKGS_sandboxd := libevent jansson libcrypto libseccomp zlib
PKGS_cli      := libcurl jansson libcrypto
PKGS_unit     := cmocka $(PKGS_worker)
PKGS_bench    := $(PKGS_worker) libevent_openssl
PKGS_fuzz     := $(PKGS_worker) $(PKGS_sandboxd)

pkg_cflags = $(if $(PKGS_$(1)),$(shell pkg-config --cflags $(PKGS_$(1))))
pkg_libs   = $(if $(PKGS_$(1)),$(shell pkg-config --libs $(PKGS_$(1))))

# --- sources ------------------------------------------------------------------------------------
MAINS := master/main.c sandboxd/main.c cli/ds.c
sources = $(sort $(wildcard $(1)/*.c))
objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
lib_objects = $(call objects,$(filter-out $(MAINS),$(call sources,$(1))))

LIBS  := $(foreach d,common master worker sandboxd,$(BUILD)/lib$(d).a)
UNITS := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(sort $(wildcard tests/unit/test_*.c)))
BENCHES := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(sort $(wildcard tests/bench/bench_*.c)))
BENCH_TOOLS := $(BUILD)/bench/simulator $(BUILD)/bench/load
FUZZ_TARGETS := $(patsubst tests/fuzz/fuzz_%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
RACES := $(patsubst tests/unit/race_%.c,$(BUILD)/race/%,$(sort $(wildcard tests/unit/race_*.c)))
FUZZERS := $(patsubst %,$(BUILD)/fuzz/%,$(FUZZ_TARGETS))
REPLAYS := $(patsubst %,$(BUILD)/replay/%,$(FUZZ_TARGETS))
PROGRAMS := $(addprefix $(BUILD)/,sandstorm sandboxd sandbox-init ds)
ALL_C := $(sort $(wildcard common/*.[ch] master/*.[ch] worker/*.[ch] sandboxd/*.[ch] sandboxd/init/*.[ch] cli/*.[ch] tests/unit/*.[ch] \
         tests/bench/*.[ch] tests/fuzz/*.[ch] tests/coverage/*.c))

.PHONY: all install uninstall deb check-deb check-vm check-sdk demo template check coverage count lint bench soak fuzz fuzzers replays venv clean deps-run deps-check deps-lint deps-template install-node install-program
.DELETE_ON_ERROR:
.SECONDARY:

all: $(PROGRAMS)

$(ROOT)/.deps-build: Makefile
	@mkdir -p $(ROOT)
	$(call install_packages,$(PACKAGES_BUILD) $(PACKAGES_SAN))
	@touch $@

deps-run:
	$(call install_packages,$(PACKAGES_RUN))

deps-check: deps-run
	$(call install_packages,$(PACKAGES_CHECK))
	$(Q)for p in nginx haproxy; do \
		test -x /usr/sbin/$$p || $(MAKE) --no-print-directory install-program PROGRAM=$$p || exit 1; done

# The program without its service: nothing is started on this machine, now or at its next boot.
install-program:
	$(Q)test ! -d /run/systemd/system || $(SUDO) systemctl -q mask --runtime $(PROGRAM).service
	$(call install_packages,$(PROGRAM))
	$(Q)test ! -d /run/systemd/system || \
		{ $(SUDO) systemctl -q unmask --runtime $(PROGRAM).service && $(SUDO) systemctl -q disable $(PROGRAM).service; }

deps-lint:
	$(call install_packages,$(PACKAGES_LINT))

# --- compile ------------------------------------------------------------------------------------
$(BUILD)/obj/%.o: %.c | $(ROOT)/.deps-build
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC $<")
	$(Q)$(CC) $(CFLAGS_ALL) $(call pkg_cflags,$(firstword $(subst /, ,$<))) $(if $(COVERAGE),--coverage) -MMD -MP -c -o $@ $<

# The compiler does not tell what the assembler includes.
$(BUILD)/obj/worker/embedded.o: $(wildcard worker/pages/*)

$(BUILD)/lib%.a:
	$(Q)rm -f $@ && ar rcsD $@ $^

$(BUILD)/libcommon.a: $(call lib_objects,common)
$(BUILD)/libmaster.a: $(call lib_objects,master)
$(BUILD)/libworker.a: $(call lib_objects,worker)
# The control channel's codec is the one thing sandboxd and its init share.
$(BUILD)/libsandboxd.a: $(call lib_objects,sandboxd) $(BUILD)/obj/sandboxd/init/control.o

$(PROGRAMS) $(UNITS) $(REPLAYS) $(BENCHES) $(BENCH_TOOLS) $(BUILD)/layers-ok: | $(COVERAGE_DUMP)

link = $(if $(V),,@echo "  LD $@")$(newline)$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(1)
define newline


endef

$(BUILD)/sandstorm: $(BUILD)/obj/master/main.o $(BUILD)/libmaster.a $(BUILD)/libworker.a $(BUILD)/libcommon.a
	$(call link,$(call pkg_libs,worker))

$(BUILD)/sandboxd: $(BUILD)/obj/sandboxd/main.o $(BUILD)/libsandboxd.a $(BUILD)/libcommon.a
	$(call link,$(call pkg_libs,sandboxd))

$(BUILD)/ds: $(call objects,$(call sources,cli)) $(BUILD)/libcommon.a
	$(call link,$(call pkg_libs,cli))

# The init of a sandbox is static: it runs where the host's libraries may be another version's. Never sanitized.
$(BUILD)/sandbox-init: $(call sources,sandboxd/init) $(wildcard sandboxd/init/*.h) | $(ROOT)/.deps-build
	@mkdir -p $(@D)
	$(if $(V),,@echo "  LD $@")
	$(Q)$(CC) $(CSTD) -O2 -g $(WARNINGS) -fstack-protector-strong -static -o $@ $(filter %.c,$^)

$(BUILD)/unit/%: $(BUILD)/obj/tests/unit/%.o $(LIBS)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  LD $@")
	$(Q)$(CC) $(LDFLAGS_ALL) $(LINK_$(*F)) -o $@ $< -Wl,--start-group $(LIBS) -Wl,--end-group $(call pkg_libs,unit) $(call pkg_libs,sandboxd)

# What asks for memory is asked of the test: tests/unit/failing_memory.h.
MEMORY_CALLS := malloc calloc realloc reallocarray strdup strndup asprintf vasprintf __asprintf_chk __vasprintf_chk open_memstream
$(foreach t,$(filter test_no_memory_%,$(notdir $(UNITS))),$(eval LINK_$(t) := $(MEMORY_CALLS:%=-Wl,--wrap=%)))

# Test programs see what the program they test sees.
$(BUILD)/obj/tests/%.o: tests/%.c | $(ROOT)/.deps-build
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC $<")
	$(Q)$(CC) $(CFLAGS_ALL) $(call pkg_cflags,$(firstword $(subst /, ,$*))) -MMD -MP -c -o $@ $<

$(BUILD)/bench/%: $(BUILD)/obj/tests/bench/%.o $(LIBS)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  LD $@")
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $< -Wl,--start-group $(LIBS) -Wl,--end-group $(call pkg_libs,bench) -lm

# Races in shared memory are looked for by ThreadSanitizer, which no other sanitizer can be beside.
$(BUILD)/race/%: tests/unit/race_%.c $(wildcard common/*.[ch]) | $(ROOT)/.deps-build
	@mkdir -p $(@D)
	$(if $(V),,@echo "  LD $@")
	$(Q)$(CC) $(CSTD) -O2 -g $(WARNINGS) -fsanitize=thread -fPIE -pie -pthread -o $@ $< $(wildcard common/*.c)

# A fuzz target, driven by libFuzzer, or by its stored corpus. Both daemons have a server: to sandboxd_% it is sandboxd's.
link_fuzz = $(if $(V),,@echo "  LD $@")$(newline)$(Q)$(CC) $(LDFLAGS_ALL) $(1) -o $@ $(filter %.o,$^) \
	$(if $(filter sandboxd_%,$(@F)),$(BUILD)/libsandboxd.a) -Wl,--start-group $(LIBS) -Wl,--end-group $(call pkg_libs,fuzz)

$(BUILD)/fuzz/%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(LIBS)
	@mkdir -p $(@D)
	$(call link_fuzz,-fsanitize=fuzzer)

$(BUILD)/replay/%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(BUILD)/obj/tests/fuzz/replay.o $(LIBS)
	@mkdir -p $(@D)
	$(call link_fuzz)

# --- install ------------------------------------------------------------------------------------
# The names are GNU's. What belongs to the system manager lies where its own files do: below the prefix.
PREFIX        ?= /usr/local
DESTDIR       ?=
prefix        := $(PREFIX)
bindir        ?= $(prefix)/bin
libexecdir    ?= $(prefix)/libexec
datadir       ?= $(prefix)/share
mandir        ?= $(datadir)/man
sysconfdir    ?= $(if $(filter /usr,$(prefix)),/etc,$(prefix)/etc)
systemunitdir ?= $(prefix)/lib/systemd/system
sysusersdir   ?= $(prefix)/lib/sysusers.d
tmpfilesdir   ?= $(prefix)/lib/tmpfiles.d
logrotatedir  ?= $(sysconfdir)/logrotate.d
completiondir ?= $(datadir)/bash-completion/completions
INSTALL       ?= install
GUIDES        := $(sort $(wildcard man/*.7))
STARTERS      := $(sort $(wildcard cli/starters/*))

# install_filled SOURCE,PATH: with the places where things are filled in.
define install_filled
sed -e 's|@bindir@|$(bindir)|g' -e 's|@libexecdir@|$(libexecdir)|g' -e 's|@sysconfdir@|$(sysconfdir)|g' $(1) \
	>$(DESTDIR)$(2) && chmod 644 $(DESTDIR)$(2)
endef

# install_setting FILE,MODE,SED SCRIPT: only what is not there; an operator's settings stay.
define install_setting
test -e $(DESTDIR)$(sysconfdir)/sandstorm/$(1) || { sed -e '$(3)' etc/$(1) >$(DESTDIR)$(sysconfdir)/sandstorm/$(1) && \
	chmod $(2) $(DESTDIR)$(sysconfdir)/sandstorm/$(1); }
endef

# The settings that an installed server has: where its files are, and the runtime that needs nothing else here.
INSTALLED_SETTINGS := s|^\# project_dir =$$|project_dir = $(sysconfdir)/sandstorm|; \
	s|^\# state_dir =$$|state_dir = /var/lib/sandstorm/state|; \
	s|^\# template_dir =$$|template_dir = /var/lib/sandstorm/templates|; s|^\# runtime = auto$$|runtime = e2b|

install: all
	$(Q)$(INSTALL) -d $(addprefix $(DESTDIR),$(bindir) $(libexecdir)/sandstorm $(datadir)/sandstorm/agent \
		$(datadir)/sandstorm/systemd $(mandir)/man1 $(mandir)/man5 $(mandir)/man7 $(mandir)/man8 $(sysconfdir)/sandstorm \
		$(systemunitdir) $(sysusersdir) $(tmpfilesdir) $(logrotatedir) $(completiondir)) \
		$(STARTERS:cli/%=$(DESTDIR)$(datadir)/sandstorm/%)
	$(Q)$(INSTALL) $(BUILD)/sandstorm $(BUILD)/ds $(DESTDIR)$(bindir)
	$(Q)$(INSTALL) $(BUILD)/sandboxd $(BUILD)/sandbox-init systemd/end-workers systemd/reload $(DESTDIR)$(libexecdir)/sandstorm
	$(Q)$(INSTALL) -m 644 agent/runner.mjs agent/package.json agent/package-lock.json agent/.npmrc \
		$(DESTDIR)$(datadir)/sandstorm/agent
	$(Q)for starter in $(STARTERS:cli/%=%); do $(INSTALL) -m 644 cli/$$starter/sandstorm.json cli/$$starter/.env.example \
		cli/$$starter/README.md $(DESTDIR)$(datadir)/sandstorm/$$starter || exit 1; done
	$(Q)$(INSTALL) -m 644 cli/completion/ds.bash $(DESTDIR)$(completiondir)/ds
	$(Q)$(INSTALL) -m 644 systemd/local-runtime.conf $(DESTDIR)$(datadir)/sandstorm/systemd
	$(Q)$(INSTALL) -m 644 man/ds.1 $(DESTDIR)$(mandir)/man1
	$(Q)$(INSTALL) -m 644 man/sandstorm.conf.5 $(DESTDIR)$(mandir)/man5
	$(Q)$(INSTALL) -m 644 $(GUIDES) $(DESTDIR)$(mandir)/man7
	$(Q)$(INSTALL) -m 644 man/sandstorm.8 man/sandboxd.8 $(DESTDIR)$(mandir)/man8
	$(Q)$(call install_filled,systemd/sandstorm.service.in,$(systemunitdir)/sandstorm.service)
	$(Q)$(INSTALL) -m 644 systemd/sandstorm.socket $(DESTDIR)$(systemunitdir)
	$(Q)$(INSTALL) -m 644 systemd/sandstorm.sysusers $(DESTDIR)$(sysusersdir)/sandstorm.conf
	$(Q)$(call install_filled,systemd/sandstorm.tmpfiles.in,$(tmpfilesdir)/sandstorm.conf)
	$(Q)$(call install_setting,sandstorm.conf,644,$(INSTALLED_SETTINGS))
	$(Q)$(call install_setting,sandstorm.env,640)
	$(Q)$(call install_setting,sandstorm.json,644)
	$(Q)test -e $(DESTDIR)$(logrotatedir)/sandstorm || \
		$(INSTALL) -m 644 etc/sandstorm.logrotate $(DESTDIR)$(logrotatedir)/sandstorm
	$(Q)test -e $(DESTDIR)$(sysconfdir)/sandstorm/.env || ln -s sandstorm.env $(DESTDIR)$(sysconfdir)/sandstorm/.env

# Settings and state stay: they are the operator's.
uninstall:
	$(Q)rm -f $(addprefix $(DESTDIR),$(bindir)/sandstorm $(bindir)/ds $(mandir)/man1/ds.1 $(mandir)/man5/sandstorm.conf.5 \
		$(mandir)/man8/sandstorm.8 $(mandir)/man8/sandboxd.8 $(systemunitdir)/sandstorm.service $(systemunitdir)/sandstorm.socket \
		$(sysusersdir)/sandstorm.conf $(tmpfilesdir)/sandstorm.conf $(completiondir)/ds \
		$(GUIDES:man/%=$(mandir)/man7/%))
	$(Q)rm -rf $(DESTDIR)$(libexecdir)/sandstorm $(DESTDIR)$(datadir)/sandstorm

# --- package ------------------------------------------------------------------------------------
# Built in a copy, so that debhelper's traces stay out of here.
DEB_SOURCES := Makefile README.md LICENSE agent cli common debian etc man master sandboxd systemd worker
DEB_TREE    := $(ROOT)/deb/sandstorm-$(VERSION)

deb: $(ROOT)/.deps-build
	$(call install_packages,$(PACKAGES_DEB))
	$(Q)rm -rf $(ROOT)/deb && mkdir -p $(DEB_TREE) && cp -a $(DEB_SOURCES) $(DEB_TREE)
	$(Q)cd $(DEB_TREE) && dpkg-buildpackage -b -us -uc >../build.log 2>&1 || { tail -n 40 ../build.log; exit 1; }
	@ls $(ROOT)/deb/*.deb

check-deb: deb venv
	$(Q)$(VENV)/bin/python -m pytest tests/package/test_deb.py $(PYTEST_ARGS)

# The machine is a container that boots: nspawn needs root, and no other machine.
VM_BASE := $(ROOT)/vm/base

$(ROOT)/vm/.stamp: tests/package/make_base.sh debian/control
	$(call install_packages,$(PACKAGES_VM))
	$(Q)mkdir -p $(@D) && $(SUDO) tests/package/make_base.sh $(ROOT)/deb/sandstorm_$(VERSION)_*.deb $(VM_BASE) >$(@D)/base.log 2>&1 || \
		{ tail -n 20 $(@D)/base.log; exit 1; }
	@touch $@

check-vm: deb venv template
	$(Q)$(MAKE) --no-print-directory $(ROOT)/vm/.stamp
	$(Q)$(SUDO) $(VENV)/bin/python -m pytest -p no:cacheprovider tests/package/test_vm.py $(PYTEST_ARGS)

# --- demo ---------------------------------------------------------------------------------------
# The template of the local runtime: what package-lock.json pins, prepared once, shared read-only by all sandboxes.
# npm wants nodejs to be a package, or a node of one's own in PATH.
deps-template:
	$(Q)if ! command -v node >/dev/null || ! command -v npm >/dev/null; then $(MAKE) --no-print-directory install-node; fi

install-node:
	$(call install_packages,nodejs npm)

template: $(BUILD)/sandboxd deps-template
	$(Q)mkdir -p $(ROOT)/templates && $(BUILD)/sandboxd template build sandstorm --template-dir $(ROOT)/templates

demo: all deps-run template
	$(Q)$(PYTHON) tests/demo/demo.py

# --- check --------------------------------------------------------------------------------------
VENV := $(ROOT)/venv
PYTEST_ARGS ?=

$(VENV)/.stamp: tests/requirements.txt
	$(Q)$(PYTHON) -m venv $(VENV)
	$(Q)$(VENV)/bin/pip install -q --disable-pip-version-check -r $<
	@touch $@

venv: deps-check
	$(Q)$(MAKE) --no-print-directory $(VENV)/.stamp

$(BUILD)/layers-ok: $(BUILD)/libmaster.a $(BUILD)/libcommon.a tests/unit/layer_worker_main.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CSTD) $(LDFLAGS_ALL) -o $@ tests/unit/layer_worker_main.c -Wl,--whole-archive $(BUILD)/libmaster.a \
		$(BUILD)/libcommon.a -Wl,--no-whole-archive

# The compiler for the TypeScript of the manual, from its lock file.
$(ROOT)/typescript/.stamp: tests/typescript/package.json tests/typescript/package-lock.json tests/typescript/.npmrc | deps-template
	$(Q)rm -rf $(@D) && mkdir -p $(@D) && cp $^ $(@D) && cd $(@D) && npm ci --prefer-offline --loglevel=error >/dev/null
	@touch $@

# Packages and SDKs have targets of their own: check-deb, check-vm, check-sdk. pytest comes last and runs the cmocka programs too (tests/unit/test_units.py): its summary is the last line.
# -n auto: in several processes (tests/parallel.py); PYTEST_ARGS=-n0 runs them one after the other.
check: all venv template $(ROOT)/typescript/.stamp
	$(Q)$(MAKE) --no-print-directory $(UNITS) $(RACES) $(BENCH_TOOLS) $(BUILD)/layers-ok
	$(Q)$(MAKE) --no-print-directory $(REPLAY_BUILD) replays
	$(Q)node --test --test-reporter=spec $(sort $(wildcard agent/test/*.test.mjs))
	$(Q)SANDSTORM_BUILD=$(BUILD) $(VENV)/bin/python -m pytest tests --ignore=tests/package --ignore=tests/conformance -n auto $(PYTEST_ARGS)

# --- coverage -----------------------------------------------------------------------------------
# What make check runs, counted: gcc only, objects and counts in a folder of their own. Users other than the builder write counts too.
# A test that fails does not keep the report from being made. Everything computes longer there: SANDSTORM_SLOW.
coverage: export SANDSTORM_SLOW ?= 3
coverage: $(ROOT)/.deps-build
	$(call install_packages,$(PACKAGES_COVERAGE))
	$(Q)rm -rf $(ROOT)/coverage
	$(Q)$(MAKE) --no-print-directory CC=gcc SAN= COVERAGE=1 count; tests=$$?; \
	$(PYTHON) tests/coverage/report.py $(ROOT)/coverage && exit $$tests

count: all
	$(Q)find $(BUILD)/obj -type d -exec chmod 777 {} +
	$(Q)$(MAKE) --no-print-directory check

# --- check-sdk ----------------------------------------------------------------------------------
# Clients we did not write. Each is installed from the lock file in its folder of tests/conformance/; what cannot be installed ends the target.
SDK            := $(ROOT)/sdk
SDK_PACKAGES   := js-2.45.0 js-2.51.0
SDK_NODE_IS_OK := const [a, b, c] = process.versions.node.split('.').map(Number); \
	process.exit(a >= 22 || (a === 20 && (b > 18 || (b === 18 && c >= 1))) ? 0 : 1)

$(SDK)/venv/.stamp: tests/conformance/requirements.txt
	$(Q)rm -rf $(@D) && mkdir -p $(SDK) && $(PYTHON) -m venv $(@D)
	$(Q)$(@D)/bin/pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(SDK)/%/.stamp: tests/conformance/%/package.json tests/conformance/%/package-lock.json tests/conformance/%/.npmrc
	$(Q)rm -rf $(@D) && mkdir -p $(@D) && cp $^ $(@D) && cd $(@D) && npm ci --prefer-offline --loglevel=error >/dev/null
	@touch $@

# The SDKs want Node 20.18.1 or one from 22 on: npm's own copy of it is used where the system's is older.
check-sdk: all deps-run deps-template
	$(call install_packages,python3-venv)
	$(Q)$(MAKE) --no-print-directory $(SDK)/venv/.stamp $(SDK_PACKAGES:%=$(SDK)/%/.stamp)
	$(Q)node=node; if ! node -e "$(SDK_NODE_IS_OK)"; then \
		$(MAKE) --no-print-directory $(SDK)/node/.stamp && node=$(SDK)/node/node_modules/.bin/node || exit 1; fi; \
	SANDSTORM_NODE=$$node SANDSTORM_BUILD=$(BUILD) $(SDK)/venv/bin/python -m pytest --confcutdir=tests/conformance tests/conformance $(PYTEST_ARGS)

# --- bench --------------------------------------------------------------------------------------
# BENCH_ARGS: of tests/bench/relay.py, as in BENCH_ARGS='--only paced,flood --rounds 1'. The Python server's packages are its own business:
# where they cannot be had, the table says so.

bench: all deps-run
	$(Q)test -x /usr/sbin/nginx || $(MAKE) --no-print-directory install-program PROGRAM=nginx
	$(call install_packages,python3-venv)
	$(Q)$(MAKE) --no-print-directory $(BENCHES) $(BENCH_TOOLS)
	$(Q)for bench in $(BENCHES); do $$bench || exit 1; done
	$(Q)$(PYTHON) tests/bench/relay.py --build $(BUILD) $(BENCH_ARGS)

# --- soak ---------------------------------------------------------------------------------------
# SOAK_ARGS: of tests/soak/soak.py. The server's log stays in build/soak.
SOAK_MINUTES ?= 30

soak: all venv
	$(Q)SANDSTORM_BUILD=$(BUILD) PYTHONPATH=tests:tests/fake:tests/e2e $(VENV)/bin/python tests/soak/soak.py \
		--minutes $(SOAK_MINUTES) $(SOAK_ARGS)

# --- fuzz ---------------------------------------------------------------------------------------
# Built by clang with the sanitizers and libFuzzer's coverage, beside the other builds. FUZZ_TARGETS=... names some.
# rss_limit_mb is no measure of a leak, which its input tells: the sanitizer keeps what was freed, a gigabyte in minutes.
FUZZ_SECONDS ?= 60
FUZZ_BUILD   := CC=clang SAN=fuzzer-no-link,address,undefined OPT='-O1 -g' BUILD=$(ROOT)/fuzz-build

# Stored inputs are always replayed under sanitizers: where this build has none, by one beside it. Its warnings are this
# one's, and some of gcc's that are wrong (format-truncation).
REPLAY_BUILD := $(if $(SAN),,SAN=address,undefined OPT='-O1 -g1' CFLAGS=-w WERROR= COVERAGE= BUILD=$(BUILD)/sanitized)

replays: $(REPLAYS)

fuzzers: $(FUZZERS)

fuzz: $(ROOT)/.deps-build
	$(call install_packages,$(PACKAGES_FUZZ))
	$(Q)$(MAKE) --no-print-directory $(FUZZ_BUILD) fuzzers
	$(Q)for target in $(FUZZ_TARGETS); do \
		mkdir -p $(ROOT)/fuzz/corpus/$$target && \
		$(ROOT)/fuzz-build/fuzz/$$target -max_total_time=$(FUZZ_SECONDS) -max_len=65536 -timeout=10 -rss_limit_mb=4096 -malloc_limit_mb=1024 \
			-print_final_stats=1 -close_fd_mask=2 -artifact_prefix=$(ROOT)/fuzz/$$target- \
			$$(test ! -f tests/fuzz/$$target.dict || echo -dict=tests/fuzz/$$target.dict) \
			$(ROOT)/fuzz/corpus/$$target tests/fuzz/corpus/$$target || \
			{ echo "which promise: $(ROOT)/fuzz-build/fuzz/$$target $(ROOT)/fuzz/$$target-*"; exit 1; }; \
	done

# --- lint ---------------------------------------------------------------------------------------
TIDY_FLAGS = $(CSTD) -I$(CURDIR) $(call pkg_cflags,worker) $(call pkg_cflags,sandboxd) $(call pkg_cflags,unit)

# varFuncNullUB: NULL is a pointer with every compiler and libc we build with.
lint: $(ROOT)/.deps-build deps-lint deps-check
	$(Q)clang-format --dry-run -Werror $(ALL_C)
	$(Q)cppcheck -q --std=c11 --library=.cppcheck.cfg --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
		--suppress=missingIncludeSystem --suppress=varFuncNullUB -I. -DSANDSTORM_VERSION='""' common master worker sandboxd cli
	$(Q)printf '%s\n' $(TIDY_FLAGS) >$(ROOT)/compile_flags.txt
	$(Q)printf '%s\n' $(filter %.c,$(ALL_C)) | xargs -P 2 -n 4 clang-tidy --quiet --warnings-as-errors='*' -p $(ROOT) 2>/dev/null
	@echo "lint: clean"

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

clean:
	rm -rf $(ROOT)
