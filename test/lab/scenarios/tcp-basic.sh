# A stock kernel's host uses a volume over TCP, with eight I/O queues: the steps of lib/stock-host.sh.
# timeout: 1800
. "$LIB/stock-host.sh"

step "target"
target_start
rpc bdev_malloc_create name=m0 num_blocks=1048576 block_size=512 > /dev/null
export_bdevs "$NQN" m0

step "guest"
guest_boot -c 8 -m 2048
stock_host tcp 10.0.2.2 8 ${OPTIONS:-}
guest_off
