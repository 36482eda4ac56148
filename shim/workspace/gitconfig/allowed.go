package gitconfig

import (
	"strings"
	"sync"
)

// row is a key that may come from inside the workspace.
type row struct {
	keys   string // patterns, in lower case; "*" stands for a subsection
	kind   kind
	values string // of choice and boolOr
	stays  bool   // once there, it may neither change nor go
	why    string
}

// allowed are the keys that git's everyday work writes, and those that people set for it. Whatever is in no row is frozen.
var allowed = []row{
	// The form of the repository.
	{keys: "core.repositoryformatversion", kind: choice, values: "0 1", why: "git refuses what it does not know"},
	{keys: "core.bare core.filemode core.symlinks core.ignorecase core.precomposeunicode", kind: boolean, why: "what the file system can do; git init finds it out"},
	{keys: "core.logallrefupdates", kind: boolOr, values: "always", why: "whether the repository keeps reflogs"},
	{keys: "core.sparsecheckout core.sparsecheckoutcone", kind: boolean, why: "which files are checked out"},
	{keys: "core.worktree", kind: worktree, why: "where a submodule's files lie"},
	{keys: "extensions.worktreeconfig", kind: boolean, stays: true, why: "without it the settings of a worktree are not read"},
	{keys: "extensions.objectformat extensions.compatobjectformat", kind: choice, values: "sha1 sha256", why: "the hash of the repository"},
	{keys: "extensions.refstorage", kind: choice, values: "files reftable", why: "the form of the refs"},
	{keys: "extensions.relativeworktrees", kind: boolean, why: "how worktrees refer to each other"},
	{keys: "extensions.partialclone", kind: remote, why: "where missing objects come from"},

	// Line ends, and the size and speed of things.
	{keys: "core.autocrlf", kind: boolOr, values: "input", why: "line ends"},
	{keys: "core.eol", kind: choice, values: "lf crlf native", why: "line ends"},
	{keys: "core.safecrlf", kind: boolOr, values: "warn", why: "a warning about line ends"},
	{keys: "core.fsmonitor", kind: choice, values: "false", why: "no monitor; true starts git's own, which runs on as the owner, and any other value is a command"},
	{keys: "core.untrackedcache", kind: boolOr, values: "keep", why: "a cache in the index"},
	{keys: "core.splitindex core.preloadindex core.commitgraph core.multipackindex", kind: boolean, why: "how git reads its own files"},
	{keys: "core.quotepath", kind: boolean, why: "names are quoted when printed"},
	{keys: "core.abbrev", kind: boolOr, values: "auto 7 8 9 10 11 12 16 20 40", why: "length of printed hashes"},
	{keys: "core.compression core.loosecompression core.bigfilethreshold core.packedgitlimit core.packedgitwindowsize core.deltabasecachelimit", kind: number, why: "sizes"},
	{keys: "feature.manyfiles feature.experimental", kind: boolean, why: "defaults of harmless keys"},
	{keys: "index.version", kind: choice, values: "2 3 4", why: "the form of the index"},
	{keys: "index.sparse index.skiphash index.recordendofindexentries index.recordoffsettable", kind: boolean, why: "the form of the index"},
	{keys: "index.threads pack.threads", kind: boolOr, values: "2 3 4 5 6 7 8 12 16 24 32", why: "speed"},
	{keys: "pack.compression pack.deltacachelimit pack.deltacachesize pack.depth pack.packsizelimit pack.window pack.windowmemory", kind: number, why: "sizes"},
	{keys: "pack.usebitmaps pack.usesparse pack.writebitmaphashcache pack.writebitmaplookuptable pack.writereverseindex", kind: boolean, why: "the form of packs"},
	{keys: "repack.packkeptobjects repack.usedeltabaseoffset repack.usedeltaislands repack.writebitmaps", kind: boolean, why: "the form of packs"},
	{keys: "commitgraph.generationversion commitgraph.maxnewfilters", kind: number, why: "the form of a cache"},
	{keys: "commitgraph.readchangedpaths", kind: boolean, why: "use of a cache"},
	{keys: "gc.aggressivedepth gc.aggressivewindow gc.auto gc.autopacklimit gc.bigpackthreshold gc.maxcruftsize", kind: number, why: "when and how git packs"},
	{keys: "gc.autodetach gc.cruftpacks gc.writecommitgraph", kind: boolean, why: "how git packs"},
	{keys: "gc.packrefs", kind: boolOr, values: "notbare", why: "how git packs"},
	{keys: "gc.logexpiry gc.pruneexpire gc.reflogexpire gc.reflogexpireunreachable gc.*.reflogexpire gc.*.reflogexpireunreachable gc.rerereresolved gc.rerereunresolved gc.worktreepruneexpire", kind: date, why: "when git deletes what nothing refers to, which can be deleted from inside anyway"},
	{keys: "maintenance.auto", kind: boolean, why: "whether git packs by itself"},
	{keys: "maintenance.strategy", kind: choice, values: "none incremental", why: "how git packs"},
	{keys: "protocol.version", kind: choice, values: "0 1 2", why: "the form of git's own protocol"},

	// Remotes, branches, submodules.
	{keys: "remote.*.url", kind: address, stays: true, why: "the owner's next push would go elsewhere; removed, it could be added again"},
	{keys: "remote.*.fetch", kind: refspec, why: "which refs a fetch writes; they can be written from inside anyway"},
	{keys: "remote.*.tagopt", kind: choice, values: "--tags --no-tags", why: "whether a fetch takes tags"},
	{keys: "remote.*.prune remote.*.prunetags remote.*.skipdefaultupdate remote.*.skipfetchall", kind: boolean, why: "what a fetch takes and deletes"},
	{keys: "remote.*.followremotehead", kind: choice, values: "never create warn always", why: "whether a fetch writes the remote's HEAD"},
	{keys: "remote.*.mirror", kind: mirror, why: "whether a push takes all refs; clone --mirror writes it"},
	{keys: "remote.*.promisor", kind: promisor, why: "whether missing objects come from there"},
	{keys: "remote.*.partialclonefilter", kind: filter, why: "which objects a fetch leaves out"},
	{keys: "branch.*.remote", kind: remote, why: "what the branch follows"},
	{keys: "branch.*.merge", kind: ref, why: "what the branch follows"},
	{keys: "branch.*.rebase", kind: boolOr, values: "merges m", why: "how a pull joins"},
	{keys: "branch.*.description", kind: text, why: "text for people"},
	{keys: "branch.autosetupmerge", kind: boolOr, values: "always inherit simple", why: "whether a new branch follows the one it comes from"},
	{keys: "branch.autosetuprebase", kind: choice, values: "never local remote always", why: "how a pull into a new branch joins"},
	{keys: "submodule.*.url", kind: address, why: "where a submodule comes from; which commit, the commit around it says"},
	{keys: "submodule.*.active", kind: boolean, why: "whether commands reach into the submodule"},
	{keys: "submodule.*.fetchrecursesubmodules", kind: boolOr, values: "on-demand", why: "whether a fetch reaches into the submodule"},
	{keys: "submodule.*.update", kind: choice, values: "checkout rebase merge none", why: "how a submodule gets its commit; anything else is a command"},
	{keys: "submodule.*.branch", kind: text, why: "the branch that update --remote looks at"},
	{keys: "submodule.*.ignore", kind: choice, values: "none untracked dirty all", why: "what status says; .gitmodules can say it too"},
	{keys: "submodule.active", kind: text, why: "which submodules are active"},
	{keys: "submodule.alternatelocation", kind: choice, values: "no superproject", why: "clone --reference"},
	{keys: "submodule.alternateerrorstrategy", kind: choice, values: "die info ignore", why: "clone --reference"},
	{keys: "submodule.fetchjobs", kind: number, why: "speed"},

	// Who commits, and how commands behave.
	{keys: "user.name user.email author.name author.email committer.name committer.email", kind: text, why: "text in commits"},
	{keys: "user.useconfigonly", kind: boolean, why: "whether git guesses the above"},
	{keys: "commit.status commit.verbose", kind: boolean, why: "what the editor shows"},
	{keys: "commit.cleanup", kind: choice, values: "strip whitespace verbatim scissors default", why: "white space of messages"},
	{keys: "init.defaultbranch", kind: text, why: "a branch's name"},
	{keys: "init.defaultobjectformat", kind: choice, values: "sha1 sha256", why: "the hash of new repositories"},
	{keys: "init.defaultrefformat", kind: choice, values: "files reftable", why: "the form of refs of new repositories"},
	{keys: "pull.ff merge.ff", kind: boolOr, values: "only", why: "how a pull joins"},
	{keys: "pull.rebase", kind: boolOr, values: "merges m", why: "how a pull joins"},
	{keys: "push.default", kind: choice, values: "nothing current upstream tracking simple", why: "which branch goes; matching would take more than the current one"},
	{keys: "push.autosetupremote push.followtags push.negotiate push.usebitmaps push.useforceifincludes", kind: boolean, why: "how a push works, not where it goes"},
	{keys: "fetch.prune fetch.prunetags fetch.showforcedupdates fetch.writecommitgraph", kind: boolean, why: "what a fetch takes and deletes"},
	{keys: "fetch.recursesubmodules", kind: boolOr, values: "on-demand", why: "whether a fetch reaches into submodules"},
	{keys: "fetch.parallel fetch.unpacklimit transfer.unpacklimit", kind: number, why: "speed"},
	{keys: "fetch.output", kind: choice, values: "full compact", why: "what a fetch prints"},
	{keys: "fetch.negotiationalgorithm", kind: choice, values: "consecutive skipping noop default", why: "speed"},
	{keys: "merge.conflictstyle", kind: choice, values: "merge diff3 zdiff3", why: "the form of conflicts"},
	{keys: "merge.autostash merge.branchdesc merge.defaulttoupstream merge.renormalize", kind: boolean, why: "how a merge works"},
	{keys: "merge.log", kind: boolOr, values: "10 20 50", why: "the text of merges"},
	{keys: "merge.renames diff.renames status.renames", kind: boolOr, values: "copies copy", why: "whether renames are found"},
	{keys: "merge.directoryrenames", kind: boolOr, values: "conflict", why: "whether renames are found"},
	{keys: "merge.stat rebase.stat", kind: boolOr, values: "compact", why: "what a merge prints"},
	{keys: "merge.renamelimit merge.verbosity diff.renamelimit status.renamelimit", kind: number, why: "how hard git looks, how much it says"},
	{keys: "rebase.abbreviatecommands rebase.autosquash rebase.autostash rebase.forkpoint rebase.reschedulefailedexec rebase.updaterefs", kind: boolean, why: "how a rebase works"},
	{keys: "rebase.backend", kind: choice, values: "apply merge", why: "how a rebase works"},
	{keys: "rebase.missingcommitscheck", kind: choice, values: "ignore warn error", why: "a warning"},
	{keys: "rebase.rebasemerges", kind: boolOr, values: "rebase-cousins no-rebase-cousins", why: "how a rebase works"},
	{keys: "am.keepcr am.threeway", kind: boolean, why: "how patches are applied"},
	{keys: "apply.ignorewhitespace", kind: choice, values: "change no none never false", why: "how patches are applied"},
	{keys: "apply.whitespace", kind: choice, values: "nowarn warn fix error error-all", why: "how patches are applied"},
	{keys: "add.ignoreerrors", kind: boolean, why: "how add goes on"},
	{keys: "checkout.guess worktree.guessremote worktree.userelativepaths clone.rejectshallow", kind: boolean, why: "how commands read their arguments"},
	{keys: "checkout.workers checkout.thresholdforparallelism", kind: number, why: "speed"},

	// What is printed.
	{keys: "color.ui color.branch color.diff color.grep color.interactive color.showbranch color.status color.push color.remote color.transport color.advice", kind: boolOr, values: "auto", why: "whether there are colours; colours of one's own could hide text"},
	{keys: "diff.algorithm", kind: choice, values: "myers minimal patience histogram default", why: "the form of a diff"},
	{keys: "diff.colormoved", kind: boolOr, values: "default plain blocks zebra dimmed-zebra", why: "colours"},
	{keys: "diff.indentheuristic diff.mnemonicprefix diff.noprefix", kind: boolean, why: "the form of a diff"},
	{keys: "diff.submodule", kind: choice, values: "short log diff", why: "the form of a diff"},
	{keys: "grep.column grep.extendedregexp grep.fullname grep.linenumber", kind: boolean, why: "what grep prints"},
	{keys: "grep.patterntype", kind: choice, values: "default basic extended fixed perl", why: "how grep reads its pattern"},
	{keys: "log.abbrevcommit log.follow log.showroot", kind: boolean, why: "what log prints"},
	{keys: "log.decorate", kind: boolOr, values: "short full auto", why: "what log prints"},
	{keys: "stash.showincludeuntracked stash.showpatch stash.showstat status.aheadbehind status.branch status.relativepaths status.short status.showstash", kind: boolean, why: "what status and stash print"},

	{keys: "lfs.repositoryformatversion", kind: choice, values: "0", why: "git-lfs writes it into each repository"},
}

// rows finds the row of a pattern. It is made when it is first asked for: most starts of the shim never are.
var rows = sync.OnceValue(func() map[string]row {
	found := map[string]row{}
	for _, r := range allowed {
		for key := range strings.FieldsSeq(r.keys) {
			found[key] = r
		}
	}
	return found
})

func lookup(e entry) (row, bool) {
	r, ok := rows()[e.pattern()]
	return r, ok
}
