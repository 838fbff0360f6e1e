noinst_LIBRARIES += %D%/libruntime.a
%C%_libruntime_a_SOURCES =
