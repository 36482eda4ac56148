package hometool

// A Tool is what a person may ask for by name.
type Tool struct {
	Name    string
	Purpose string
	Places  []Place
	// Stays names what lies there, too, and stays behind: credentials, and what holds them. It is text for people, since only what is
	// listed comes along.
	Stays string
}

// A Place is a folder of a tool's, and what of it is shown.
type Place struct {
	Variable string // of the environment; it names the folder, if it is set
	Folder   string // where it is otherwise, below the home; empty: nowhere
	Told     bool   // the tool needs Variable to find the folder
	Shared   bool   // other tools use it, too: what is there may be theirs
	Parts    []Part
	// Path are patterns of the folders that belong into PATH.
	Path []string
	// Versions is a pattern of such folders of which one belongs there: the one that PATH has already, or that the alias "default" names
	// in the folder Aliases, or the newest.
	Versions, Aliases string
	// Variables are further ones that the tool needs: their values are relative to the folder, and must be shown.
	Variables map[string]string
}

// A Part is something in a place.
type Part struct {
	Reason string
	// Pattern is one of [path.Match], relative to the place. It may end with a list, as in "lib/{a,b}", of which each is meant.
	Pattern string
}

const (
	// prefix is what programs are installed into, without etc, where configuration is.
	prefix = "/{bin,lib,lib64,libexec,include,share}"
	// environment is what a Python environment has, without pip.conf, which may name an index with a password.
	environment = "/{bin,lib,lib64,libexec,include,share,pyvenv.cfg}"
	// goroot is a Go toolchain.
	goroot = "{bin,lib,pkg,src,misc,VERSION,go.env,.unpacked-success}"
)

// links is the folder in which installers put the commands of what they keep elsewhere.
var links = Place{
	Folder: ".local/bin", Shared: true,
	Parts: []Part{{"programs, and links to them", "."}},
	Path:  []string{"."},
}

// BuiltIn returns the tools, in the order of their names.
func BuiltIn() []Tool { return builtIn }

var builtIn = []Tool{
	{
		Name: "bun", Purpose: "Bun, and what it has installed globally", Stays: "~/.bunfig.toml and ~/.npmrc, with tokens; the cache",
		Places: []Place{{
			Variable: "BUN_INSTALL", Folder: ".bun", Path: []string{"bin"},
			Parts: []Part{
				{"bun itself, and links to what is installed globally", "bin"},
				{"what is installed globally", "install/global/node_modules"},
			},
		}},
	},
	{
		Name: "cargo", Purpose: "Rust by rustup: cargo, rustc, and what cargo install has built",
		Stays: "credentials.toml and config.toml of ~/.cargo, with registry tokens; the registry's cache",
		Places: []Place{
			{Variable: "CARGO_HOME", Folder: ".cargo", Path: []string{"bin"}, Parts: []Part{{"rustup's proxies, and what cargo install has built", "bin"}}},
			{
				Variable: "RUSTUP_HOME", Folder: ".rustup", Told: true,
				Parts: []Part{{"the toolchains", "toolchains"}, {"it says which toolchain is the default", "settings.toml"}},
			},
		},
	},
	{
		Name: "deno", Purpose: "Deno, and what it has installed globally", Stays: "the cache, in which an origin's local storage may hold tokens",
		Places: []Place{{Variable: "DENO_INSTALL", Folder: ".deno", Path: []string{"bin"}, Parts: []Part{{"deno itself, and scripts that call it", "bin"}}}},
	},
	{
		Name: "fnm", Purpose: "Node.js by fnm", Stays: "etc/npmrc of each version and ~/.npmrc, with tokens",
		Places: []Place{{
			Variable: "FNM_DIR", Folder: ".local/share/fnm", Told: true, Path: []string{".", "aliases/default/bin"},
			Parts: []Part{
				{"fnm itself", "fnm"},
				{"the versions", "node-versions/*/installation" + prefix},
				{"the version that is the default", "aliases/default" + prefix},
			},
		}},
	},
	{
		Name: "go", Purpose: "Go in the home, and what go install has built",
		Stays: "~/.config/go/env and ~/.netrc, with tokens; the module cache, with other projects' private source",
		Places: []Place{
			{Variable: "GOPATH", Folder: "go", Path: []string{"bin"}, Parts: []Part{{"what go install has built", "bin"}}},
			{
				Variable: "GOROOT", Folder: ".local/go", Path: []string{"bin"},
				Parts: []Part{{"the toolchain", goroot}},
			},
			{Folder: "sdk", Parts: []Part{{"further toolchains, of golang.org/dl", "go*/" + goroot}}},
		},
	},
	{
		Name: "local-bin", Purpose: "programs and scripts in ~/.local/bin and ~/bin; their text may hold secrets of yours",
		Stays: "what links there lead to, see the other tools",
		Places: []Place{
			{Folder: ".local/bin", Path: []string{"."}, Parts: []Part{{"programs, and links to them", "."}}},
			{Folder: "bin", Path: []string{"."}, Parts: []Part{{"programs, and links to them", "."}}},
		},
	},
	{
		Name: "npm-global", Purpose: "what npm install --global has put into a folder of the home", Stays: "etc/npmrc in there and ~/.npmrc, with tokens",
		Places: []Place{{Variable: "NPM_CONFIG_PREFIX", Folder: ".npm-global", Path: []string{"bin"}, Parts: []Part{{"packages, and links to their programs", "{bin,lib}"}}}},
	},
	{
		Name: "nvm", Purpose: "Node.js by nvm, with what npm install --global has added", Stays: "etc/npmrc of each version and ~/.npmrc, with tokens; the cache",
		Places: []Place{{
			Variable: "NVM_DIR", Folder: ".nvm", Told: true, Versions: "versions/node/*/bin", Aliases: "alias",
			Parts: []Part{
				{"nvm itself, for scripts that source it", "{nvm.sh,nvm-exec,bash_completion}"},
				{"it says which version is the default", "alias"},
				{"the versions", "versions/*/*" + prefix},
			},
		}},
	},
	{
		Name: "pipx", Purpose: "what pipx has installed", Stays: "~/.config/pip and pip.conf of each environment, with tokens; logs",
		Places: []Place{
			links,
			{Variable: "PIPX_HOME", Folder: ".local/share/pipx", Parts: []Part{
				{"an environment for each application", "venvs/*" + environment}, {"what they share", "shared" + environment},
			}},
			{Folder: ".local/pipx", Parts: []Part{
				{"an environment for each application, of older versions", "venvs/*" + environment}, {"what they share", "shared" + environment},
			}},
		},
	},
	{
		Name: "pyenv", Purpose: "Python by pyenv, with what pip has added", Stays: "pip.conf of each version and ~/.config/pip, with tokens; ~/.pypirc",
		Places: []Place{{
			Variable: "PYENV_ROOT", Folder: ".pyenv", Told: true, Path: []string{"shims", "bin"},
			Parts: []Part{
				{"pyenv itself", "{bin,libexec,pyenv.d,completions}"},
				{"plugins: commands of pyenv", "plugins/*/{bin,libexec,shims,etc/pyenv.d}"},
				{"what stands for each program of a version", "shims"},
				{"it says which version is the default", "version"},
				{"the versions", "versions/*" + environment},
				{"environments of pyenv-virtualenv", "versions/*/envs/*" + environment},
			},
		}},
	},
	{
		Name: "rbenv", Purpose: "Ruby by rbenv, with installed gems", Stays: "~/.gem/credentials and ~/.bundle/config, with tokens",
		Places: []Place{{
			Variable: "RBENV_ROOT", Folder: ".rbenv", Told: true, Path: []string{"shims", "bin"},
			Parts: []Part{
				{"rbenv itself", "{bin,libexec,rbenv.d,completions}"},
				{"what stands for each program of a version", "shims"},
				{"it says which version is the default", "version"},
				{"the versions", "versions/*" + prefix},
			},
		}},
	},
	{
		Name: "sdkman", Purpose: "Java, Gradle, Maven, Kotlin and others by SDKMAN", Stays: "Maven's conf/settings.xml and ~/.m2, with passwords; ~/.gradle/gradle.properties",
		Places: []Place{{
			Variable: "SDKMAN_DIR", Folder: ".sdkman", Told: true, Path: []string{"candidates/*/current/bin"},
			Variables: map[string]string{"JAVA_HOME": "candidates/java/current"},
			Parts: []Part{
				{"the versions", "candidates/*/*/{bin,lib,lib64,libexec,include,share,boot}"},
				{"what a Java reads beside that", "candidates/java/*/{conf,jmods,jre,legal,release}"},
				{"how Maven logs", "candidates/maven/*/conf/logging"},
			},
		}},
	},
	{
		Name: "uv", Purpose: "uv, its Pythons, and what uv tool has installed", Stays: "~/.local/share/uv/credentials and ~/.config/uv, with tokens; the cache",
		Places: []Place{
			links,
			{Folder: ".local/bin", Parts: []Part{{"uv itself", "{uv,uvx}"}}},
			{Variable: "UV_PYTHON_INSTALL_DIR", Folder: ".local/share/uv/python", Told: true, Parts: []Part{{"the Pythons", "*" + prefix}}},
			{Variable: "UV_TOOL_DIR", Folder: ".local/share/uv/tools", Told: true, Parts: []Part{{"an environment for each tool", "*" + environment}}},
		},
	},
	{
		Name: "volta", Purpose: "Node.js by Volta, with installed packages", Stays: "hooks.json and ~/.npmrc, with tokens; the cache and the log",
		Places: []Place{{
			Variable: "VOLTA_HOME", Folder: ".volta", Told: true, Path: []string{"bin"},
			Parts: []Part{
				{"what stands for each program", "bin"},
				{"it says which layout this is", "layout.v*"},
				{"it says which version is the default, and what a package has of programs", "tools/user"},
				{"the versions", "tools/image/node/*" + prefix},
				{"package managers", "{tools/image/npm,tools/image/pnpm,tools/image/yarn}"},
				{"installed packages", "tools/image/packages/*/{bin,lib}"},
				{"installed packages of organisations", "tools/image/packages/@*/*/{bin,lib}"},
			},
		}},
	},
}
