// Package broker is the process through which an agent writes to its workspaces.
//
// # The journey of a write
//
// In the sandbox a workspace is mounted read-only: that is the wall, and it needs nothing of what follows. The agent's seccomp filter (package
// spec says of which calls) has the kernel ask before it carries out a call that could change files (seccomp_unotify(2)). Reading asks
// nobody. The broker reads the paths from the caller's memory, finds what they lead to, and, if that lies outside of all workspaces, has the
// kernel go on. That is always safe: what the kernel then does, it does with the agent's own rights, whatever the agent has written over the
// path meanwhile. In a workspace the broker judges the place ([workspace.Judge]) and does the call itself, in a copy of the sandbox's mounts
// in which the workspace is writable; a file that is to be open for writing is handed to the caller.
//
// So nothing depends on what memory holds at which time: a path is read once, resolved once to a folder and a name, and what is judged
// is what is changed. Names change one at a time where they decide where others lead (see rename).
//
// A text that decides about itself, such as a git configuration, is judged when it is whole: who opens it for writing gets a memory file, a draft,
// which takes its place once it is closed (see drafts).
//
// # The process
//
// It is started by whoever made the sandbox, outside of the sandbox's PID namespace, when the agent first asks. It enters the sandbox's mounts
// ([Main] explains the two steps), and has, of the host, nothing but those. It acts under the file system ids of each caller, so that the kernel checks the
// caller's rights. It keeps the capabilities of files that the agent has, those to take its ids, and CAP_SYS_PTRACE to read its memory, which its own
// filter allows to be used for nothing else; under a user namespace with one id it has none.
//
// If it is gone, calls that would ask fail with ENOSYS. A panic costs the call that caused it.
//
// # What is not as usual
//
// In a workspace there are no sockets and no files without a name (O_TMPFILE), no set-user-ID and no set-group-ID files. openat2(2) with
// restrictions on the path, for writing, fails with ENOSYS. The workspace shows as read-only in mount tables and statfs(2). A process in
// a root folder of its own (chroot(2)) cannot write to it.
package broker
