package policy

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden runs f on each archive of a folder: it gets the file "policy.yaml" and
// returns what the file named want should hold.
func golden(t *testing.T, folder, want string, f func(t *testing.T, a *txtar.Archive) string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", folder, "*.txtar"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden files in %s: %v", folder, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := f(t, a)
			if *update {
				set(a, want, got)
				if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(get(t, a, want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		})
	}
}

func get(t *testing.T, a *txtar.Archive, name string) string {
	t.Helper()
	for _, f := range a.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	t.Fatalf("no file %s in the archive", name)
	return ""
}

func set(a *txtar.Archive, name, data string) {
	for i := range a.Files {
		if a.Files[i].Name == name {
			a.Files[i].Data = []byte(data)
			return
		}
	}
	a.Files = append(a.Files, txtar.File{Name: name, Data: []byte(data)})
}

// TestDecide asserts verdict, rule and reason of each line of a "requests" file:
//
//	protocol name port [address]
func TestDecide(t *testing.T) {
	golden(t, "decide", "decisions", func(t *testing.T, a *txtar.Archive) string {
		p, err := Parse("policy.yaml", []byte(get(t, a, "policy.yaml")))
		if err != nil {
			t.Fatal(err)
		}
		return decisions(t, p, get(t, a, "requests"))
	})
}

// decisions says what is decided about each line of requests.
func decisions(t *testing.T, p *Policy, requests string) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(requests) {
		line = strings.TrimSpace(line)
		d := p.Decide(parseRequest(t, line))
		fmt.Fprintf(&out, "%-42s %-5s %s", line, d.Verdict, d.Reason)
		if d.Rule != "" {
			fmt.Fprintf(&out, "; %s", d.Rule)
		}
		if d.Expects != Unknown {
			fmt.Fprintf(&out, "; expects %s", d.Expects)
		}
		if d.ECH {
			out.WriteString("; with ECH")
		}
		if len(d.Addresses) > 0 {
			fmt.Fprintf(&out, "; dials %v", d.Addresses)
		}
		for layer, budget := range d.Budgets {
			if budget != nil {
				fmt.Fprintf(&out, "; %s budget %s", Layer(layer), budget)
			}
		}
		out.WriteByte('\n')
	}
	return out.String()
}

func parseRequest(t *testing.T, line string) Request {
	t.Helper()
	f := strings.Fields(line)
	if len(f) < 3 {
		t.Fatalf("request %q: protocol, name and port are needed", line)
	}
	r := Request{Protocol: Unknown}
	for i, name := range protocolNames {
		if name == f[0] {
			r.Protocol = Protocol(i)
		}
	}
	if f[1] != "-" {
		name, err := ParseName(f[1])
		if err != nil {
			t.Fatal(err)
		}
		r.Name = name
	}
	port, err := strconv.ParseUint(f[2], 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	r.Port = uint16(port)
	if len(f) > 3 {
		r.Addr = netip.MustParseAddr(f[3])
	}
	return r
}

// TestErrors asserts every message for a broken policy, which is a project's if
// the file is called project.yaml.
func TestErrors(t *testing.T) {
	golden(t, "errors", "errors", func(t *testing.T, a *txtar.Archive) string {
		source := Source{User, a.Files[0].Name, a.Files[0].Data}
		if source.Name == "project.yaml" {
			source.Layer = Project
		}
		p, err := source.Parse()
		if err == nil {
			t.Errorf("policy is accepted:\n%s", p)
			return "\n"
		}
		if p != nil {
			t.Error("an error comes with a policy")
		}
		return err.Error() + "\n"
	})
}

// TestZeroDenies is invariant I6.
func TestZeroDenies(t *testing.T) {
	name, _ := ParseName("example.org")
	for _, p := range []*Policy{nil, {}, Default()} {
		for _, r := range []Request{
			{},
			{Protocol: TLS, Name: name, Port: 443},
			{Protocol: DNS, Name: name},
			{Protocol: TCP, Addr: netip.MustParseAddr("93.184.216.34"), Port: 443},
		} {
			if d := p.Decide(r); d.Verdict != Deny || d.Reason == "" {
				t.Errorf("%v decides %+v as %+v", p, r, d)
			}
		}
	}
	if (Decision{}).Verdict != Deny {
		t.Error("the zero Decision allows")
	}
}

func TestStringParsesAgain(t *testing.T) {
	const text = `version: 1
network:
  rules:
    - allow: Example.ORG.
    - {allow: bücher.example, ports: [8443, 443]}
    - {allow: "*.github.io", shared: true}
    - {allow: browser.test, ech: true}
    - {allow: db.test, ports: [5432], protocol: tcp, addresses: [10.0.0.5, "fd00::5"]}
    - {allow: "null", protocol: http, budget: {up: 1536KiB/24h, down: 1GiB, connections: 100/60s, requests: 3/1s}}
    - {deny: "*.evil.test", ports: [22]}
    - deny: "*.ru"
workspace: {read_only: [.github/workflows, "/b\u00fc*?"], hidden: [".env\a"], writable: [.vscode]}
files: [{path: /opt/toolchain, access: read}, {path: "/srv/\"x\"", access: read}]
limits: {memory: 1536MiB, pids: 1024, cpus: 0.5}
`
	p, err := Parse("a", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("a", []byte(p.String()))
	if err != nil {
		t.Fatalf("parse of\n%s: %v", p, err)
	}
	if diff := cmp.Diff(p.String(), again.String()); diff != "" {
		t.Errorf("(-first +second):\n%s", diff)
	}
	if want := `{allow: "xn--bcher-kva.example", ports: [8443, 443], protocol: tls}`; !strings.Contains(p.String(), want) {
		t.Errorf("%s\nlacks %s", p, want)
	}
	if want := `{allow: "browser.test", ports: [443], protocol: tls, ech: true}`; !strings.Contains(p.String(), want) {
		t.Errorf("%s\nlacks %s", p, want)
	}
	if want := `workspace:
  read_only: [".github/workflows", "/bü*?"]
  hidden: [".env\a"]
  writable: [".vscode"]
files:
  - {path: "/opt/toolchain", access: read}
  - {path: "/srv/\"x\"", access: read}
limits: {memory: 1536MiB, pids: 1024, cpus: 0.5}
`; !strings.HasSuffix(p.String(), want) {
		t.Errorf("%s\ndoes not end in %s", p, want)
	}
	if got := (*Policy)(nil).String(); !strings.Contains(got, "rules: []") {
		t.Errorf("nil policy prints as %q", got)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte("version: 1\n"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	write(0o644)
	if _, err := Load(path); err != nil {
		t.Error(err)
	}
	for _, mode := range []os.FileMode{0o664, 0o646, 0o666} {
		write(mode)
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "chmod go-w "+path) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	write(0o600)
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "chown 0 "+path) {
			t.Errorf("foreign owner: %v", err)
		}
	}
	if _, err := Load(t.TempDir()); err == nil {
		t.Error("a folder is a policy")
	}
}

// TestReadProject: whoever wrote it, it is read, if it is a file of a sane size.
func TestReadProject(t *testing.T) {
	dir := t.TempDir()
	path, link, fifo := filepath.Join(dir, "project.yaml"), filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	for _, err := range []error{os.WriteFile(path, []byte("version: 1\n"), 0o666), os.Chmod(path, 0o666), os.Symlink(path, link), syscall.Mkfifo(fifo, 0o666)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := ReadProject(path); err != nil || string(text) != "version: 1\n" {
		t.Errorf("%q, %v", text, err)
	}
	for at, want := range map[string]string{link: "a symbolic link", fifo: "not a regular file", dir: "not a regular file", "/dev/null": "not a regular file"} {
		if _, err := ReadProject(at); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", at, err, want)
		}
	}
	for size, want := range map[int64]bool{maxProject: true, maxProject + 1: false} {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadProject(path); (err == nil) != want {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// TestDecideAllocatesNothing covers everything but the refusal of an address,
// whose reason names it.
func TestDecideAllocatesNothing(t *testing.T) {
	p, err := Parse("policy", []byte(`version: 1
network:
  presets: [github]
  rules:
    - allow: "*.example.org"
    - deny: x.example.org
    - {deny: y.example.org, ports: [80]}
    - {allow: db.test, ports: [5432], protocol: tcp, addresses: [10.0.0.5, 10.0.0.6]}
`))
	if err != nil {
		t.Fatal(err)
	}
	global, private := netip.MustParseAddr("93.184.216.34"), netip.MustParseAddr("10.0.0.6")
	for _, test := range []struct {
		request Request
		want    Verdict
	}{
		{Request{Protocol: TLS, Name: Name{"a.example.org"}, Port: 443}, Allow},
		{Request{Protocol: TLS, Name: Name{"a.example.org"}, Port: 443, Addr: global}, Allow},
		{Request{Protocol: TLS, Name: Name{"api.github.com"}, Port: 443}, Allow},
		{Request{Protocol: TCP, Name: Name{"db.test"}, Port: 5432, Addr: private}, Allow},
		{Request{Protocol: TCP, Addr: private, Port: 5432}, Allow},
		{Request{Protocol: TLS, Name: Name{"x.example.org"}, Port: 443}, Deny},
		{Request{Protocol: HTTP, Name: Name{"a.example.org"}, Port: 443}, Deny},
		{Request{Protocol: TLS, Name: Name{"a.example.org"}, Port: 8443}, Deny},
		{Request{Protocol: TLS, Name: Name{"nowhere.test"}, Port: 443}, Deny},
		{Request{Protocol: TCP, Addr: global, Port: 5432}, Deny},
		{Request{Protocol: DNS, Name: Name{"a.example.org"}}, Allow},
		{Request{Protocol: DNS, Name: Name{"y.example.org"}}, Allow},
		{Request{Protocol: DNS, Name: Name{"x.example.org"}}, Deny},
		{Request{Protocol: DNS, Name: Name{"nowhere.test"}}, Deny},
	} {
		var got Decision
		if n := testing.AllocsPerRun(10, func() { got = p.Decide(test.request) }); n != 0 {
			t.Errorf("%+v: %v allocations", test.request, n)
		}
		if got.Verdict != test.want {
			t.Errorf("%+v: %+v", test.request, got)
		}
	}
}

// TestBounds asserts what is too much, and that it is said once.
func TestBounds(t *testing.T) {
	head := "version: 1\nnetwork:\n  rules:\n"
	for _, test := range []struct{ text, want string }{
		{strings.Repeat("#", maxFile+1), "p:1:1: larger than 67108864 bytes"},
		{head + strings.Repeat("    - deny: a.ab\n", maxRules+1), "p:4:5: network.rules: more than 1048576 entries"},
		{head + strings.Repeat("    - {deny: 1}\n", maxErrors+2), `p:103:14: network.rules.deny: must be a string, not "1"` + "\np: and 2 more"},
		{"version: 1\nworkspace: {hidden: [" + strings.Repeat("a, ", maxPatterns) + "b]}", "p:2:21: workspace.hidden: more than 1024 entries"},
		{"version: 1\nworkspace: {hidden: [" + strings.Repeat("a", maxPattern+1) + "]}", `p:2:22: workspace.hidden: "` + strings.Repeat("a", 100) + `"... has more than 4096 bytes`},
		{head + "    - {deny: a.test, ports: [" + strings.Repeat("1,", maxPorts) + "1]}", "p:4:29: network.rules.ports: more than 64 entries"},
	} {
		_, err := Parse("p", []byte(test.text))
		if err == nil {
			t.Errorf("accepted, want %s", test.want)
		} else if got := err.Error(); !strings.HasSuffix(got, test.want) || strings.Count(got, "\n") > maxErrors {
			t.Errorf("got %s, want %s", got[max(0, len(got)-200):], test.want)
		}
	}
}
