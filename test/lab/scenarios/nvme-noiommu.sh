# What nvme-vfio does on a machine without an IOMMU, through vfio's unsafe mode, on physical addresses.
# timeout: 3600
MODE=noiommu RESETS=${RESETS:-5} PULLS=${PULLS:-1}
. "$(dirname "${BASH_SOURCE[0]}")/nvme-vfio.sh"
