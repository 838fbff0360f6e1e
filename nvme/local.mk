noinst_LIBRARIES += %D%/libnvme.a
%C%_libnvme_a_SOURCES =
