# test
include %D%/sim/local.mk
