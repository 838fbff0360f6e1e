# What rdma-basic does, over soft-iWARP: no shared receives wider than six places, one place in an RDMA READ, no padding of requests.
# timeout: 1800
RDMA=siw
. "$(dirname "${BASH_SOURCE[0]}")/rdma-basic.sh"
