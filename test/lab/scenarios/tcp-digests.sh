# The same with header and data digests.
# timeout: 1200
OPTIONS="--hdr-digest --data-digest"
. "$LIB/../scenarios/tcp-basic.sh"
