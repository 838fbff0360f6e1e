/* Telling the service manager how the daemon fares (the sd_notify protocol, spoken directly). */
#ifndef TARGET_NOTIFY_H
#define TARGET_NOTIFY_H

/* Sends a line such as "READY=1" to $NOTIFY_SOCKET; does nothing without one. */
void notify_manager(const char *line);

#endif
