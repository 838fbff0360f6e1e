noinst_LIBRARIES += %D%/libmgmt.a
%C%_libmgmt_a_SOURCES =
