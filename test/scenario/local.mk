# The real daemon on loopback, from outside: each script is one program of make check.
EXTRA_DIST += %D%/ferrule.py
dist_check_SCRIPTS += %D%/command_line.py %D%/http_calls.py %D%/rpc_methods.py %D%/rpc_wire.py %D%/state.py %D%/volumes.py
