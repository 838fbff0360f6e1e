# The real daemon on loopback, from outside: each script is one program of make check.
EXTRA_DIST += %D%/ferrule.py %D%/nvme_host.py
dist_check_SCRIPTS += %D%/command_line.py %D%/copies.py %D%/deletions.py %D%/host_setup.py %D%/http_calls.py %D%/jobs.py %D%/kill.py %D%/nvme_controllers.py %D%/rpc_hostile.py %D%/rpc_methods.py %D%/rpc_wire.py %D%/state.py %D%/volumes.py

# The same kill -9 under load, longer: make check-kill ROUNDS=100 [SEED=N].
ROUNDS = 100
.PHONY: check-kill
check-kill: ferruled$(EXEEXT) ferrule$(EXEEXT)
	BUILD='$(abs_top_builddir)' ROUNDS=$(ROUNDS) SEED='$(SEED)' SCENARIO_SECONDS=36000 $(top_srcdir)/test/scenario/kill.py
