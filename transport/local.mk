noinst_LIBRARIES += %D%/libtransport.a
%C%_libtransport_a_SOURCES =
