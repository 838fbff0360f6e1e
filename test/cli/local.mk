dist_check_SCRIPTS += %D%/nvme_cli_test
