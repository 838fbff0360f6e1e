EXTRA_DIST += %D%/install-deps
