package gitconfig

import "strings"

// refused are reasons for people, nothing more: a key without a row in allowed is frozen, whether it is here or not. A pattern that ends in a dot
// stands for all that starts so. The first that fits counts.
var refused = []struct{ keys, why string }{
	{"include. includeif.", whyIncludes},
	{"core.hookspath init.templatedir hook.", whyPrograms},
	{
		"alias. core.alternaterefscommand core.askpass core.editor core.gitproxy core.pager core.sshcommand sequence.editor pager. " +
			"credential. diff.external diff.*. diff.guitool diff.tool difftool. merge.*. merge.default merge.guitool merge.tool mergetool. filter. interactive.difffilter " +
			"browser. web.browser help. man. guitool. gpg. imap. sendemail. instaweb. trailer. tar.*. gc.recentobjectshook " +
			"uploadpack.packobjectshook branch.*.mergeoptions pull.octopus pull.twohead remote.*.receivepack remote.*.uploadpack remote.*.vcs remotes. receive.procreceiverefs " +
			"core.fsmonitorhookversion ssh.variant uploadarchive. lfs. gui. gitcvs.",
		whyCommand,
	},
	{"rebase.instructionformat", "it is written into the list of commands that a rebase carries out"},
	{"core.commentchar core.commentstring", "it says which lines of a list of commands are none"},
	{
		"core.attributesfile core.excludesfile mailmap. blame.ignorerevsfile commit.template diff.orderfile format. fsck.skiplist " +
			"trace2. attr. gc.repackfilterto gc.repackfilter http. bundle. fetch.bundleuri fetch.bundlecreationtoken " +
			"transfer.bundleuri fsmonitor. submodule.*.gitdir maintenance.repo",
		"it names a file or an address that git reads or writes",
	},
	{
		"url. remote.pushdefault remote.*.push remote.*.pushurl remote.*.proxy remote.*.proxyauthmethod remote.*.serveroption branch.*.pushremote " +
			"push.pushoption push.recursesubmodules submodule.recurse submodule.propagatebranches fetch.all checkout.defaultremote clone.defaultremotename clone.filtersubmodules sendpack. promisor.",
		"it changes where the owner's data goes, or what goes with it",
	},
	{
		"safe. protocol. transfer. receive. fetch.fsck. uploadpack. uploadpackfilter. lsrefs. fsck. fetch.fsckobjects core.protecthfs core.protectntfs core.sharedrepository " +
			"clean. push.gpgsign commit.gpgsign tag. user.signingkey merge.verifysignatures log.showsignature extensions.preciousobjects",
		"it is a protection, or says what a repository gives to others",
	},
	{
		"color. column. pretty. log. diff. status. blame. advice. showbranch. versionsort. branch.sort notes. core.notesref core.ignorestat core.trustctime " +
			"core.checkstat core.whitespace core.usereplacerefs core.warnambiguousrefs i18n. grep. merge.suppressdest rerere. sparse. completion. gitweb. stash.",
		"it can hide from a reader what is there, and git does not write it by itself",
	},
	{
		"core. clone. commit. am. apply. add. checkout. commitgraph. credentialcache. credentialstore. extensions. fastimport. feature. fetch. gc. index. interactive. mailinfo. " +
			"maintenance. pack. push. rebase. reftable. repack. replay. revert. splitindex. submodule. tar. worktree. pull.",
		"git's everyday work inside has no need of it",
	},
}

// The reasons of keys whose values name what git runs or obeys.
const (
	whyIncludes = "it has git read another file as configuration"
	whyPrograms = "it names programs that git runs"
	whyCommand  = "it names a command, or changes how one is run"
)

func refusedWhy(e entry) string {
	for _, r := range refused {
		for key := range strings.FieldsSeq(r.keys) {
			for _, name := range []string{e.name, e.pattern()} {
				if key == name || strings.HasSuffix(key, ".") && strings.HasPrefix(name, key) {
					return r.why
				}
			}
		}
	}
	return ""
}
