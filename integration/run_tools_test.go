//go:build linux

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
	"cofferdam.dev/cofferdam/integration/registry"
)

// toolPath is the PATH of agents here: the host's programs are what a sandbox sees below /usr.
const toolPath = "/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin"

// toolPrograms are what the tests of tools need, by the name to require; see hack/packages.sh.
var toolPrograms = map[string]string{
	"git": "git", "ssh": "ssh", "sshd": "/usr/sbin/sshd", "dns2tcpc": "dns2tcpc", "dns2tcpd": "dns2tcpd", "curl": "curl", "wget": "wget", "node": "node", "npm": "npm", "python": "python3", "pip": "pip3",
	"go": "go", "cargo": "cargo", "javac": "javac", "keytool": "keytool", "apt": "apt-get", "gcc": "gcc", "newuidmap": "newuidmap",
	"make": "make", "strace": "strace", "ip": "/usr/sbin/ip", "ss": "ss", "chroot": "/usr/sbin/chroot", "redis-server": "redis-server",
}

// findTools looks for toolPrograms where an agent will.
func findTools(done func(name, path string, err error)) {
	for name, program := range toolPrograms {
		err := fmt.Errorf("%s is not in %s", program, toolPath)
		if filepath.IsAbs(program) {
			_, err = os.Stat(program)
		}
		for _, dir := range filepath.SplitList(toolPath) {
			if _, serr := os.Stat(filepath.Join(dir, program)); err != nil && serr == nil {
				program, err = filepath.Join(dir, program), nil
			}
		}
		done(name, program, err)
	}
}

// Where the servers of the tools are.
const (
	toolsHost = "tools.test"
	toolsAddr = "45.67.89.30"
	evilHost  = "evil.test" // at lab.Evil: the same servers, which no policy here allows
)

// A tool is a program of developers, and what they do with it, in an empty workspace. HOST is where the servers are.
type tool struct {
	name   string
	needs  []string
	script string // for sh
	prints string // what it prints when it works
	says   string // what it says when it may not reach HOST
}

var tools = []tool{
	{"curl", []string{"curl"}, `curl -fsS https://$HOST/hello`, "greetings by http", "Could not resolve host: evil.test"},
	{"wget", []string{"wget"}, `wget -nv -O- https://$HOST/hello`, "greetings by http", "unable to resolve host address ‘evil.test’"},
	{"python", []string{"python"}, `python3 -c "import urllib.request; print(urllib.request.urlopen('https://$HOST/hello').read())"`, "greetings by http", "Name or service not known"},
	{"node fetch", []string{"node"}, `node -e "fetch('https://$HOST/hello').then(r => r.text()).then(console.log)"`, "greetings by http", "getaddrinfo ENOTFOUND evil.test"},
	{"java", []string{"javac", "keytool"}, `
		cat >Hello.java <<-END
			class Hello {
				public static void main(String[] args) throws Exception {
					new java.net.URL("https://$HOST/hello").openStream().transferTo(System.out);
				}
			}
		END
		java Hello.java`, "greetings by http", "UnknownHostException: evil.test"},
	{"git by https", []string{"git"}, gitScript + `work https://$HOST/git/project` + gitTellsNothing, "Ann <ann@here.test> Ann <ann@here.test>\n", "Could not resolve host: evil.test"},
	{"git by ssh", []string{"git", "ssh", "sshd"}, gitScript + `work ssh://root@$HOST$REPOS/project` + gitTellsNothing, "Ann <ann@here.test> Ann <ann@here.test>\n", "Could not resolve hostname evil.test"},
	{"npm", []string{"npm"}, `
		printf "registry=https://$HOST/npm/\nfetch-retries=0\n" >~/.npmrc # a protected name in a workspace; it asks again for names that do not exist, for 70 seconds
		echo '{"name": "x", "version": "1.0.0", "dependencies": {"greet": "^1.0.0"}}' >package.json
		npm install
		node -p 'require("greet")'`, "greetings by npm", "getaddrinfo ENOTFOUND evil.test"},
	{"pip", []string{"pip", "python"}, `
		echo 'greet >= 1.0' >requirements.txt
		pip3 install --retries 1 --index-url https://$HOST/pypi/simple --target lib -r requirements.txt
		PYTHONPATH=lib python3 -c 'import greet; print(greet.hello)'`, "greetings by pip", "Name or service not known"},
	{"go", []string{"go"}, `
		export GOPROXY=https://$HOST/go GONOSUMDB=lab.test
		printf 'module x\n\nrequire ` + registry.GoModule + ` v1.0.0\n' >go.mod
		printf 'package main\n\nimport "` + registry.GoModule + `"\n\nfunc main() { println(greet.Hello) }\n' >main.go
		go mod tidy
		go run . 2>&1`, "greetings by go", "lookup evil.test on 10.200.0.1:53: no such host"},
	{"cargo", []string{"cargo"}, `
		mkdir -p ~/.cargo src # in a workspace it is protected
		printf '[registries.lab]\nindex = "https://'$HOST'/git/index"\n' >~/.cargo/config.toml
		printf '[package]\nname = "x"\nversion = "1.0.0"\nedition = "2021"\n[dependencies]\ngreet = {version = "1", registry = "lab"}\n' >Cargo.toml
		echo 'fn main() { println!("{}", greet::HELLO); }' >src/main.rs
		cargo run`, "greetings by cargo", "failed to resolve address for evil.test"},
}

// gitScript defines work: clone, commit, push and fetch.
const gitScript = `
	work() {
		git clone "$1" here
		cd here
		head -c 3000000 /dev/urandom >blob # more than one request may hold
		git add blob
		git commit -m 'change what there is'
		git -c http.version=HTTP/1.1 push # libcurl 7.88, which Debian 12 has, garbles large uploads by HTTP/2, without walls too
		git clone "$1" ../there
		cd ../there
		git fetch
		cmp blob ../here/blob
		git log -1 --format='%an <%ae> %cn <%ce>'
	}
	`

// gitTellsNothing says that of the caller's configuration the agent has no more than the names.
const gitTellsNothing = `
	! git config --get-regexp '^(credential|alias)'
	`

// Real tools work between the walls as they do without, and say what is the matter where they may not go.
func TestRunToolsWork(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		l := lab.Get(t)
		flags := serveTools(t, l, p)
		before := lab.Take()
		for _, tool := range tools {
			t.Run(tool.name, func(t *testing.T) {
				Require(t, tool.needs...)
				run := func(host string) ctrd.Result {
					dir := filepath.Join(p.workspace(), strings.ReplaceAll(tool.name, " ", "-")+"-"+host)
					if err := errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, int(p.id), int(p.id))); err != nil {
						t.Fatal(err)
					}
					args := append([]string{"-w", dir, "--env", "HOST=" + host}, flags...)
					return p.run(t, append(args, "--", "sh", "-euc", tool.script)...)
				}
				mark := l.Mark(t)
				if got := run(evilHost); got.Code == 0 || !strings.Contains(got.Stdout+got.Stderr, tool.says) {
					t.Errorf("it should say %q: %s", tool.says, got)
				}
				l.Silent(t, mark)
				got := run(toolsHost)
				if got.Code != 0 || !strings.Contains(got.Stdout, tool.prints) {
					t.Errorf("it should print %q: %s\n%s", tool.prints, got, lab.Join(l.Since(t, mark)))
				}
				for _, e := range l.Since(t, mark) {
					if to := e.Dst.Addr().String(); to != toolsAddr && to != lab.Resolver {
						t.Errorf("something else was reached: %s", e)
					}
				}
			})
		}
		lab.NoLeftovers(t, before, notOfASandbox...)
	})
}

// whole reads a request to its end before it is served: CGI wants to know the length of a body first.
func whole(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		h.ServeHTTP(w, r)
	})
}

// serveTools starts the servers and returns the flags of an agent that may reach them. It trusts the lab's authority as it does others: the
// host does.
func serveTools(t *testing.T, l *lab.Lab, p person) []string {
	t.Helper()
	Require(t, "git", "ssh", "sshd")
	trust(t, l)
	a, _ := lab.Inside()
	dir, err := os.MkdirTemp(a.Dir, "tools-")
	if err != nil {
		t.Fatal(err)
	}
	repos, keys := filepath.Join(dir, "repos"), filepath.Join(p.home, "keys")
	crates, index := registry.Cargo(toolsHost)
	newRepository(t, filepath.Join(repos, "project"), registry.Files{"README": "a project\n"})
	newRepository(t, filepath.Join(repos, "index"), index)

	files := registry.Files{"/hello": "greetings by http\n"}
	for _, more := range []registry.Files{crates, registry.NPM(), registry.PyPI(), registry.Go(), registry.Apt()} {
		maps.Copy(files, more)
	}
	servers := http.NewServeMux()
	servers.Handle("/", files)
	servers.Handle("/git/", whole(&cgi.Handler{
		Path: a.Paths["git"], Args: []string{"http-backend"}, Root: "/git", Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + repos, "GIT_HTTP_EXPORT_ALL=1"},
	}))
	shell := sshServer(t, dir, keys)
	for host, addr := range map[string]string{toolsHost: toolsAddr, evilHost: lab.Evil} {
		l.SetName(host, addr)
		l.Serve(t, host, servers)
		l.ServeSSH(t, addr, shell)
	}
	t.Cleanup(func() { l.SetName(toolsHost) })

	for name, text := range map[string]string{
		".gitconfig": `
[user]
	name = Ann
	email = ann@example.test
[includeIf "gitdir:here/"]
	path = here.config
[credential]
	helper = store
[alias]
	st = status
`,
		"here.config": `
[user]
	email = ann@here.test
[credential]
	username = ann
`,
	} {
		if err := os.WriteFile(filepath.Join(p.home, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("chown", "-R", fmt.Sprintf("%d:%d", p.id, p.id), p.home).CombinedOutput(); err != nil {
		t.Fatalf("chown: %v: %s", err, out)
	}
	return []string{
		"--allow", toolsHost, "--allow", toolsHost + ":22", "--allow", toolsHost + ":80", "--read", keys, "--env", "PATH=" + toolPath,
		"--env", "REPOS=" + repos, "--env", "GIT_SSH_COMMAND=ssh -i " + keys + "/agent -o UserKnownHostsFile=" + keys + "/known_hosts",
		// Some builds of node bring authorities of their own and ask for no others.
		"--env", "NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt",
	}
}

// trust has the host trust the lab's authority, as an administrator has it: in /etc, which is an overlay here.
func trust(t *testing.T, l *lab.Lab) {
	t.Helper()
	const dir = "/etc/ssl/certs"
	single := filepath.Join(dir, "cofferdam-lab.pem")
	if _, err := os.Stat(single); err == nil {
		return
	}
	all, err := os.ReadFile(filepath.Join(dir, "ca-certificates.crt"))
	err = errors.Join(err, os.WriteFile(filepath.Join(dir, "ca-certificates.crt"), append(all, l.CA...), 0o644), os.WriteFile(single, l.CA, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	must(t, "openssl", "rehash", dir)
	if a, _ := lab.Inside(); a.Paths["keytool"] != "" {
		must(t, a.Paths["keytool"], "-importcert", "-noprompt", "-alias", "lab", "-file", single, "-keystore", filepath.Join(dir, "java/cacerts"), "-storepass", "changeit")
	}
}

// must runs a command of the host.
func must(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// newRepository makes a bare repository with one commit, to which may be pushed.
func newRepository(t *testing.T, dir string, files registry.Files) {
	t.Helper()
	must(t, "git", "init", "-q", "--bare", "-b", "main", dir)
	must(t, "git", "-C", dir, "config", "http.receivepack", "true")
	work := dir + ".work"
	for name, text := range files {
		file := filepath.Join(work, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	git := []string{"-c", "user.name=lab", "-c", "user.email=lab@lab.test", "--git-dir", dir, "--work-tree", work}
	must(t, "git", append(git, "add", "-A")...)
	must(t, "git", append(git, "commit", "-q", "-m", "begin")...)
}

// sshServer makes keys of a server and of somebody who may log in, and returns what serves a connection with sshd.
func sshServer(t *testing.T, dir, keys string) func(*net.TCPConn) {
	t.Helper()
	if err := errors.Join(os.Mkdir(keys, 0o700), os.MkdirAll("/run/sshd", 0o755)); err != nil { // sshd locks itself up in there
		t.Fatal(err)
	}
	host, agent, config := filepath.Join(dir, "host"), filepath.Join(keys, "agent"), filepath.Join(dir, "sshd_config")
	must(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host)
	must(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", agent)
	key, err := os.ReadFile(host + ".pub")
	err = errors.Join(err,
		os.WriteFile(filepath.Join(keys, "known_hosts"), fmt.Appendf(nil, "%s,%s %s", toolsHost, evilHost, key), 0o644),
		os.WriteFile(config, fmt.Appendf(nil, "HostKey %s\nAuthorizedKeysFile %s.pub\nStrictModes no\nUsePAM no\n", host, agent), 0o644),
	)
	if err != nil {
		t.Fatal(err)
	}
	var sessions sync.WaitGroup
	t.Cleanup(sessions.Wait)
	return func(c *net.TCPConn) {
		sessions.Add(1)
		defer sessions.Done()
		f, err := c.File()
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		cmd := exec.Command("/usr/sbin/sshd", "-i", "-e", "-f", config)
		cmd.Stdin, cmd.Stdout = f, f
		_ = cmd.Run() // a client that leaves is an error to it; what went wrong shows at the client
	}
}

// Root of an image installs packages, as its package manager does it: as several users. An ordinary user needs subordinate ids for that.
func TestRunInstallsPackagesInAnImage(t *testing.T) {
	Require(t, "apt", needShim, needImage)
	lab.Get(t)
	t.Run("root", func(t *testing.T) { installPackages(t, newPerson(t, "root", 0), hostImage(t, "/")) })
	t.Run("user", func(t *testing.T) {
		p := newRanged(t)
		installPackages(t, p, hostImage(t, p.idmapped(t, "/")), "--as-root")
	})
}

func installPackages(t *testing.T, p person, root string, more ...string) {
	t.Helper()
	l := lab.Get(t)
	flags := append(serveTools(t, l, p), more...)
	script := `echo "deb [trusted=yes] http://$HOST/debian ./" >/etc/apt/sources.list
		apt-get -o APT::Update::Error-Mode=any -o Acquire::Retries=0 update
		apt-get install -y greet
		greet`
	run := func(host string) ctrd.Result {
		return p.run(t, append(flags, "--rootfs", root, "--env", "HOST="+host, "--env", "DEBIAN_FRONTEND=noninteractive", "--", "sh", "-euc", script)...)
	}
	mark := l.Mark(t)
	if got := run(evilHost); got.Code == 0 || !strings.Contains(got.Stderr, "Could not resolve 'evil.test'") {
		t.Errorf("%s: %s", evilHost, got)
	}
	l.Silent(t, mark)
	if got := run(toolsHost); got.Code != 0 || !strings.HasSuffix(got.Stdout, "\ngreetings by apt\n") {
		t.Errorf("%s: %s", toolsHost, got)
	}
}

// hostImage is a root file system with what this host has installed, without its sources of packages: what is written to it is not written
// to the host, which is seen at the path host.
func hostImage(t *testing.T, host string) string {
	t.Helper()
	root, err := os.MkdirTemp("/srv", "image-")
	if err != nil {
		t.Fatal(err)
	}
	written, err := os.MkdirTemp("/run", "image-") // in memory
	if err != nil {
		t.Fatal(err)
	}
	upper, work := filepath.Join(written, "upper"), filepath.Join(written, "work")
	for _, err := range []error{
		os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755),
		unix.Mount("overlay", root, "overlay", unix.MS_NODEV, "lowerdir="+host+",upperdir="+upper+",workdir="+work),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(root, 0), os.Remove(root), os.RemoveAll(written)); err != nil {
			t.Error(err)
		}
	})
	for _, err := range []error{
		os.RemoveAll(filepath.Join(root, "etc/apt/sources.list.d")), os.RemoveAll(filepath.Join(root, "var/lib/apt/lists")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}
