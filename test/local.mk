# test
include %D%/sim/local.mk
include %D%/scenario/local.mk
