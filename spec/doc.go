// Package spec says what an agent may touch and rewrites any engine's OCI runtime-spec until it can touch nothing else.
//
// A container travels through it in four steps. [ReadBundle] decodes config.json strictly: a field that this version of
// runtime-spec does not know is an error, since nobody has thought about it. [Describe] reads the annotations and finds
// the workspace, and yields a [Sandbox], plain data that names no mechanism. The caller resolves the sources of
// Sandbox.Files (symbolic links, existence) and gathers the facts about this host in a [Host]. [Rewrite] then builds a
// new runtime-spec from the old one, rule by rule, and lists every [Change]; [WriteBundle] puts it in the old one's
// place. A process that joins later (exec) goes through [RewriteProcess], a later change of limits through
// [RewriteResources] or [RewriteUpdate].
//
// The new spec is built from nothing: a rule copies what it has judged, so a field without a rule is absent from the
// result. What is missing or zero denies; what cannot be made safe is a [RefusedError]; what is taken away is a Change
// with a reason. Applying Rewrite to its own result changes nothing.
//
// All functions are pure but for ReadBundle and WriteBundle, keep no state, and may be called concurrently. Paths are
// judged by their text alone. So the package cannot see a symbolic link in a source (the caller resolves it) or in the
// image below a destination (the runtime resolves it within the root file system), nor what a source is: the caller
// checks that a workspace is a directory and not, say, a socket.
//
// The runtime-spec meant here is https://github.com/opencontainers/runtime-spec at v1.3.0.
package spec
