# Fails now and then since RDMA READs over iWARP have sinks: a queue pair goes into error while every queue is busy.
# What rdma-basic does, over soft-iWARP: six places in a request, one in an RDMA READ.
# timeout: 1800
RDMA=siw
OPTIONS=max_srq_depth=256 # a slow guest registers more for longer than soft-iWARP waits for an answer
. "$(dirname "${BASH_SOURCE[0]}")/../rdma-basic.sh"
