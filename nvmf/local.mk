noinst_LIBRARIES += %D%/libnvmf.a
%C%_libnvmf_a_SOURCES = %D%/nvmf.h %D%/transport.h
