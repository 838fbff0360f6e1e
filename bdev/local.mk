noinst_LIBRARIES += %D%/libbdev.a
%C%_libbdev_a_SOURCES =
