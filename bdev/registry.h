/* Between registry.c and examine.c. */
#ifndef BDEV_REGISTRY_H
#define BDEV_REGISTRY_H

struct bdev;

/* Tells those who asked of a new bdev, and has the examiners look at it; later, on the app thread. */
void examine_registered(struct bdev *bdev);

#endif
