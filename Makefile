# Sandstorm: the only build file.
#
#   make            build/sandstorm, build/sandboxd, build/sandbox-init, build/ds
#   make demo       set up, build, start a server on the local runtime, run four agents at once
#   make check      set up, build, run every test
#   make lint       layout, clang-tidy, cppcheck, layers
#   make clean      remove build/
#
#   CC=clang        another compiler        SAN=address,undefined   sanitizers (objects in build/san-...)
#   WERROR=1        warnings are errors     V=1                     show the commands
#
# Every target installs the Debian packages it lacks (apt-get, through sudo when not root).

VERSION  := 0.1.0
SAN      ?=
WERROR   ?=
CC       := $(if $(filter default,$(origin CC)),gcc,$(CC))
empty    :=
comma    := ,
space    := $(empty) $(empty)
ROOT     := build
BUILD    := $(ROOT)$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))$(if $(filter-out gcc,$(notdir $(CC))),/$(notdir $(CC)))
SUDO     := $(if $(filter 0,$(shell id -u)),,sudo)
Q        := $(if $(V),,@)
# Debian's own interpreter: another one earlier in PATH may lack venv.
PYTHON   ?= /usr/bin/python3

# --- packages -----------------------------------------------------------------------------------
PACKAGES_BUILD := gcc libc6-dev pkg-config libevent-dev libcurl4-openssl-dev libjansson-dev \
                  libssl-dev libseccomp-dev
PACKAGES_RUN   := bubblewrap ca-certificates python3 git
PACKAGES_CHECK := libcmocka-dev python3-venv valgrind procps
PACKAGES_LINT  := clang clang-format clang-tidy cppcheck
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
HARDEN   := -fstack-protector-strong -fPIE $(if $(SAN),,-D_FORTIFY_SOURCE=2)
OPT      ?= -O2 -g
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
CFLAGS_ALL  = $(CSTD) $(OPT) $(WARNINGS) $(HARDEN) $(SANFLAGS) $(CFLAGS)
LDFLAGS_ALL = -pie -Wl,-z,relro,-z,now $(SANFLAGS) $(LDFLAGS)

# What each folder may see: the layers of the house. common/ and master/ get libc and nothing else.
PKGS_common   :=
PKGS_master   :=
PKGS_worker   := libevent libcurl jansson libcrypto libssl
PKGS_sandboxd := libevent jansson libseccomp
PKGS_cli      :=
PKGS_unit     := cmocka $(PKGS_worker)

pkg_cflags = $(if $(PKGS_$(1)),$(shell pkg-config --cflags $(PKGS_$(1))))
pkg_libs   = $(if $(PKGS_$(1)),$(shell pkg-config --libs $(PKGS_$(1))))

# --- sources ------------------------------------------------------------------------------------
MAINS := master/main.c sandboxd/main.c cli/ds.c
sources = $(sort $(wildcard $(1)/*.c))
objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
lib_objects = $(call objects,$(filter-out $(MAINS),$(call sources,$(1))))

LIBS  := $(foreach d,common master worker sandboxd,$(BUILD)/lib$(d).a)
UNITS := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(sort $(wildcard tests/unit/test_*.c)))
PROGRAMS := $(addprefix $(BUILD)/,sandstorm sandboxd sandbox-init ds)
ALL_C := $(sort $(wildcard common/*.[ch] master/*.[ch] worker/*.[ch] sandboxd/*.[ch] sandboxd/init/*.[ch] cli/*.[ch] tests/unit/*.[ch]))

.PHONY: all clean deps-build deps-run deps-check deps-lint
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

deps-lint:
	$(call install_packages,$(PACKAGES_LINT))

# --- compile ------------------------------------------------------------------------------------
$(BUILD)/obj/%.o: %.c | $(ROOT)/.deps-build
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC $<")
	$(Q)$(CC) $(CFLAGS_ALL) $(call pkg_cflags,$(firstword $(subst /, ,$<))) -MMD -MP -c -o $@ $<

$(BUILD)/lib%.a:
	$(Q)rm -f $@ && ar rcsD $@ $^

$(BUILD)/libcommon.a: $(call lib_objects,common)
$(BUILD)/libmaster.a: $(call lib_objects,master)
$(BUILD)/libworker.a: $(call lib_objects,worker)
$(BUILD)/libsandboxd.a: $(call lib_objects,sandboxd)

link = $(if $(V),,@echo "  LD $@")$(newline)$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(1)
define newline


endef

$(BUILD)/sandstorm: $(BUILD)/obj/master/main.o $(BUILD)/libmaster.a $(BUILD)/libworker.a $(BUILD)/libcommon.a
	$(call link,$(call pkg_libs,worker))

$(BUILD)/sandboxd: $(BUILD)/obj/sandboxd/main.o $(BUILD)/libsandboxd.a $(BUILD)/libcommon.a
	$(call link,$(call pkg_libs,sandboxd))

$(BUILD)/ds: $(BUILD)/obj/cli/ds.o $(BUILD)/libcommon.a
	$(call link,$(call pkg_libs,cli))

# The init of a sandbox is static: it runs where the host's libraries may be another version's. Never sanitized.
$(BUILD)/sandbox-init: $(call sources,sandboxd/init) $(wildcard sandboxd/init/*.h) | $(ROOT)/.deps-build
	@mkdir -p $(@D)
	$(if $(V),,@echo "  LD $@")
	$(Q)$(CC) $(CSTD) -O2 -g $(WARNINGS) -fstack-protector-strong -static -o $@ $(filter %.c,$^)

$(BUILD)/unit/%: $(BUILD)/obj/tests/unit/%.o $(LIBS)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  LD $@")
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $< -Wl,--start-group $(LIBS) -Wl,--end-group $(call pkg_libs,unit) $(call pkg_libs,sandboxd)

$(BUILD)/obj/tests/unit/%.o: tests/unit/%.c | $(ROOT)/.deps-build
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC $<")
	$(Q)$(CC) $(CFLAGS_ALL) $(call pkg_cflags,unit) -MMD -MP -c -o $@ $<

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

clean:
	rm -rf $(ROOT)
