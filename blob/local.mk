noinst_LIBRARIES += %D%/libblob.a
%C%_libblob_a_SOURCES =
