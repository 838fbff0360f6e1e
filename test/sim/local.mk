# The whole stack, simulated.  make check runs a few seeds; make check-sim a thousand (SIM_SEEDS=FIRST-LAST for others).
check_PROGRAMS += %D%/whole_stack
%C%_whole_stack_SOURCES = %D%/host.c %D%/host.h %D%/model.c %D%/model.h %D%/stack.c %D%/stack.h %D%/whole_stack.c
%C%_whole_stack_LDADD = $(LIBS_TRANSPORT)

SIM_SEEDS = 1-1000

.PHONY: check-sim
check-sim: %D%/whole_stack
	%D%/whole_stack --seeds $(SIM_SEEDS)
