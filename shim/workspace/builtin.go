package workspace

// A Protection is a place that no agent changes, and why.
type Protection struct {
	Pattern string
	Reason  string
}

// BuiltIn returns the places that are protected unless a policy lifts it. What git runs is known without patterns, see the package's
// description. What programs only read, and what a person reads before running it, is not here: .gitattributes and .gitmodules name
// what only a git configuration can define, and AGENTS.md is text.
func BuiltIn() []Protection {
	var all []Protection
	for _, group := range builtIn {
		for _, p := range group.patterns {
			all = append(all, Protection{p, group.reason})
		}
	}
	return all
}

var builtIn = []struct {
	reason   string
	patterns []string
}{
	{"it says what Cofferdam allows here", []string{".cofferdam.yaml", ".cofferdam.yml"}},
	{"git runs what lies in there, once core.hooksPath names it, as hook managers have it do", []string{".husky", ".githooks", ".git-hooks"}},
	{"it says what a hook manager runs at the next commit", []string{
		".pre-commit-config.yaml", ".pre-commit-config.yml", "lefthook.yml", "lefthook.yaml", "lefthook.toml", "lefthook.json", ".lefthook.yml", ".lefthook.yaml",
		".lefthook.toml", ".lefthook.json", "lefthook-local.*", ".lefthook-local.*", ".lefthook", ".lefthook-local", ".lefthookrc", ".overcommit.yml", ".overcommit",
		".lintstagedrc", ".lintstagedrc.*", "lint-staged.config.*", ".simple-git-hooks.*", "simple-git-hooks.*", ".commitlintrc", ".commitlintrc.*",
		"commitlint.config.*", "captainhook.json", ".huskyrc", ".huskyrc.*", "husky.config.*",
	}},
	{"other version control systems run what it names", []string{
		".hg/hgrc", ".hg/hgrc-not-shared", ".hg/sharedpath", ".jj/repo/config.toml", ".jj/repo/workspace-config.toml", ".jj/repo/config-id", ".jj/workspace-config.toml",
		".sl/config", ".bzr/branch/branch.conf", ".pijul/config", ".gitconfig", ".hgrc",
	}},
	{"a shell runs it", []string{
		".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".bash_aliases", ".profile", ".zshrc", ".zshenv", ".zprofile", ".zlogin", ".zlogout", ".kshrc",
		".mkshrc", ".cshrc", ".tcshrc", ".login", ".logout", ".inputrc", ".xonshrc", ".config/fish", ".config/nushell",
	}},
	{"it is run by who enters the folder", []string{
		".envrc", ".autoenv", ".autoenv.zsh", ".env.autoenv", ".mise", ".mise.toml", ".mise.*.toml", "mise.toml", "mise.*.toml", ".config/mise", ".config/mise.toml", ".rtx.toml", ".rvmrc",
	}},
	{"an editor runs what it names", []string{
		".vscode", "*.code-workspace", ".idea", ".fleet", ".zed", ".vs", ".nova", "*.sublime-project", "*.sublime-workspace", ".settings", ".externalToolBuilders", ".vimrc", "_vimrc",
		".gvimrc", ".exrc", ".nvimrc", ".nvim.lua", ".lvimrc", ".local.vimrc", ".vimspector.json", ".vim", ".nvim", ".config/nvim", ".dir-locals.el", ".dir-locals-2.el",
		".emacs", ".emacs.d", ".helix", ".kakrc", ".vscode-server", ".theia",
	}},
	{"an agent outside runs or obeys what it says", []string{
		".claude", ".claude.json", ".mcp.json", "mcp.json", ".cursor", ".cursorrules", ".windsurf", ".windsurfrules", ".codeium", ".codex", ".gemini", ".aider.conf.yml", ".aider.conf.yaml",
		".continue", ".continuerc.json", ".cline", ".clinerules", ".roo", ".roomodes", ".roorules", ".kilocode", ".kilocodemodes", ".kiro", ".amazonq", ".augment",
		".opencode", "opencode.json", "opencode.jsonc", ".goose", ".goosehints", ".junie", ".qwen", ".crush.json", "crush.json", ".openhands", ".trae", ".tabnine",
		".vibe", ".factory", ".agents", ".agent", ".github/copilot-instructions.md", ".github/instructions", ".github/prompts", ".github/chatmodes",
		".github/agents", ".github/copilot", ".github/hooks", ".github/mcp.json", ".github/skills",
	}},
	{"a dev container's tool runs it on the host or mounts what it names", []string{
		".devcontainer", ".devcontainer.json", ".devfile.yaml", "devfile.yaml", ".gitpod.yml", ".gitpod.Dockerfile", ".gitpod", ".ona",
	}},
	{"CI runs it with secrets", []string{
		".github/workflows", ".github/actions", ".gitlab-ci.yml", ".gitlab-ci.yaml", ".gitlab", ".gitea/workflows", ".gitea/actions", ".forgejo/workflows", ".forgejo/actions", ".circleci", ".travis.yml",
		"azure-pipelines.yml", "azure-pipelines.yaml", ".azure-pipelines", ".azuredevops", "bitbucket-pipelines.yml", "Jenkinsfile", "Jenkinsfile.*", ".drone.yml", ".drone.yaml", ".drone.jsonnet", ".drone.star",
		".woodpecker", ".woodpecker.yml", ".woodpecker.yaml", ".buildkite", ".cirrus.yml", ".cirrus.star", ".semaphore", ".teamcity", ".tekton", "appveyor.yml",
		".appveyor.yml", ".builds", ".build.yml", ".ci", "cloudbuild.yaml", "cloudbuild.yml", "buildspec.yml", "buildspec.yaml", ".harness", ".codefresh", "codefresh.yml",
	}},
	{"a package manager runs or loads what it names", []string{
		".npmrc", ".yarnrc", ".yarnrc.yml", ".yarn/plugins", ".yarn/releases", ".pnpmfile.cjs", ".pnpmfile.mjs", "pnpmfile.js", "bunfig.toml", ".bunfig.toml", ".pypirc", "pip.conf", ".pip",
		".cargo/config", ".cargo/config.toml", ".cargo/credentials", ".cargo/credentials.toml", ".mvn", ".gradle/init.d", ".gradle/init.gradle", ".gradle/init.gradle.kts", ".bundle", ".gemrc", ".condarc", ".sbtopts", ".jvmopts",
		".bazelrc", ".bazeliskrc", "user.bazelrc", ".buckconfig", ".buckconfig.local", "gradle/wrapper",
	}},
	{"an interpreter or debugger runs it when it is started here", []string{
		".gdbinit", ".lldbinit", "sitecustomize.py", "usercustomize.py", ".pdbrc", ".irbrc", ".pryrc", ".Rprofile", ".Renviron", ".octaverc", ".ghci", ".ocamlinit",
		".pythonrc", ".pythonstartup", ".sqliterc", ".psqlrc", ".my.cnf", ".screenrc", ".tmux.conf", ".tmuxinator.yml", ".wezterm.lua",
	}},
	{"it holds keys, or says what may log in", []string{".ssh", ".gnupg", ".netrc", ".git-credentials", ".aws", ".kube", ".docker"}},
}
