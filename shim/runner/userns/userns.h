/* What the constructor has done: the descriptor that the variable named, or -1 if there was none to act on; whether the namespace has more ids
 * than the caller's; and how it failed. */
extern int userns_fd;
extern int userns_ids;
extern int userns_errno;
extern const char *userns_step;
