EXTRA_DIST += $(wildcard $(top_srcdir)/doc/*.md)
