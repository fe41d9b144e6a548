//! Garbage collection: what no image, container, lease or snapshot refers to.
