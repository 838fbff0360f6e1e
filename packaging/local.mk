EXTRA_DIST += %D%/install-deps quickstart

dist_man_MANS += %D%/man/ferrule.1 %D%/man/ferruled.8
bashcompletiondir = $(datadir)/bash-completion/completions
dist_bashcompletion_DATA = %D%/completion/ferrule
