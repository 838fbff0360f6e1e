# test
include %D%/sim/local.mk
include %D%/scenario/local.mk
include %D%/fuzz/local.mk
include %D%/cli/local.mk
include %D%/crash/local.mk
include %D%/lab/local.mk
