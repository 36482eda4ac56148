/* What the constructor has done: the descriptor that the variable named, or -1 if there was none to act on; and how it failed. */
extern int userns_fd;
extern int userns_errno;
extern const char *userns_step;
