/*
 * How far a long operation is, and the wish to end it early.  Whoever asks for the operation gives one (NULL: nobody looks), the
 * fiber that works keeps it true and looks at cancel between steps.
 */
#ifndef RUNTIME_PROGRESS_H
#define RUNTIME_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* Owner: the asker, until the operation has returned; both sides are fibers of one thread. */
struct progress {
	uint64_t done, total; /* in the operation's own unit (clusters unless it says otherwise); total 0: not yet known */
	bool cancel;	      /* set by the asker: end soon with -ECANCELED, leaving what has been done done */
};

#endif
