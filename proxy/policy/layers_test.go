package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// sources are the files admin.yaml, user.yaml and project.yaml of an archive.
func sources(a *txtar.Archive) []Source {
	var all []Source
	for _, layer := range []Layer{Admin, User, Project} {
		for _, f := range a.Files {
			if f.Name == layer.String()+".yaml" {
				all = append(all, Source{layer, f.Name, f.Data})
			}
		}
	}
	return all
}

// TestLayers asserts what layers make together: the text of each, what they say
// beside the network, what is decided, and why.
func TestLayers(t *testing.T) {
	golden(t, "layers", "together", func(t *testing.T, a *txtar.Archive) string {
		p, err := ParseLayers(sources(a))
		if err != nil {
			return err.Error() + "\n"
		}
		out := "workspace: " + fmt.Sprintf("%+v", p.Workspace()) + "\nfiles:"
		for _, f := range p.Files() {
			out += " " + f.Path
		}
		out += "\nlimits: " + p.Limits().String() + "\n"
		out += decisions(t, p, get(t, a, "requests"))
		for line := range strings.Lines(get(t, a, "hosts")) {
			name, addr, port := parseHost(t, strings.TrimSpace(line))
			out += "\n" + p.Explain(name, addr, port).String()
		}
		return out
	})
}

func TestLayersThatAreNone(t *testing.T) {
	p, err := ParseLayers(nil)
	if err != nil || p.String() != Default().String() {
		t.Errorf("no layers are %v, %v", p, err)
	}
	text := []byte("version: 1\nnetwork: {rules: [{allow: a.test}]}\n")
	for _, order := range [][]Layer{{User, Admin}, {User, User}, {Project, Project}, {Project, User}, {allLayers}, {Admin, User, Project, Project}} {
		var sources []Source
		for _, layer := range order {
			sources = append(sources, Source{layer, "p", text})
		}
		if p, err := ParseLayers(sources); err == nil {
			t.Errorf("layers %v are taken: %v", order, p)
		}
	}
	// Of the zero Source: it is the project's, and grants nothing.
	p, err = ParseLayers([]Source{{Text: text}})
	if err != nil {
		t.Fatal(err)
	}
	if d := p.Decide(Request{Protocol: TLS, Name: Name{"a.test"}, Port: 443}); d.Verdict != Deny {
		t.Errorf("a project alone is given %+v", d)
	}
	half := []byte(strings.Repeat("#", maxFile/2+1))
	if _, err := ParseLayers([]Source{{Admin, "a", half}, {User, "u", half}}); err == nil || !strings.Contains(err.Error(), "u: with the layers above larger than") {
		t.Errorf("two halves that are too much: %v", err)
	}
}

func TestLayerTravels(t *testing.T) {
	want := []Source{{Admin, "a", []byte("x")}, {User, "u", nil}, {Project, "p", nil}}
	data, err := MarshalLayers(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := UnmarshalLayers(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, none := range []string{"", "null", "[]"} {
		if got, err := UnmarshalLayers([]byte(none)); err != nil || len(got) > 0 {
			t.Errorf("%q is %v, %v", none, got, err)
		}
	}
	for _, bad := range []string{`[{"Layer":"root"}]`, `[{"Layer":2}]`, `[{"Text":""`, `[{"Texts":""}]`, "version: 1\n"} {
		if got, err := UnmarshalLayers([]byte(bad)); err == nil {
			t.Errorf("%s is %v", bad, got)
		}
	}
}

// TestLayersOnlyNarrow compares layers that were made at random with each of them
// alone: together they allow what each allows, with the budgets of all, and a
// project alone nothing.
func TestLayersOnlyNarrow(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	names := []string{"a.test", "b.test", "x.a.test", "x.b.test"}
	addrs := []netip.Addr{{}, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("93.184.216.34")}
	rule := func() string {
		pattern := []string{"a.test", "b.test", "*.a.test", "*.b.test"}[random.IntN(4)]
		if random.IntN(4) == 0 {
			return fmt.Sprintf("{deny: %q}", pattern)
		}
		more := []string{"", "", ", ech: true", ", addresses: [10.0.0.1]", ", addresses: [10.0.0.1, 10.0.0.2]", ", budget: {up: 1MiB}", ", protocol: tcp"}[random.IntN(7)]
		return fmt.Sprintf("{allow: %q, ports: [%d]%s}", pattern, []int{22, 443}[random.IntN(2)], more)
	}
	count := map[Verdict]int{}
	for range 4000 {
		var layers []Source
		var alone []*Policy
		for _, layer := range [][]Layer{{Admin, User, Project}, {Admin, Project}, {User, Project}, {Admin, User}}[random.IntN(4)] {
			var rules []string
			for range 1 + random.IntN(6) {
				rules = append(rules, rule())
			}
			s := Source{layer, layer.String(), []byte("version: 1\nnetwork: {rules: [" + strings.Join(rules, ", ") + "]}\n")}
			p, err := s.Parse()
			if err != nil {
				continue // these rules tie
			}
			layers, alone = append(layers, s), append(alone, p)
		}
		if len(layers) == 0 {
			continue
		}
		p, err := ParseLayers(layers)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			r := Request{Port: []uint16{22, 443}[random.IntN(2)], Protocol: []Protocol{Unknown, TLS, TCP, DNS}[random.IntN(4)], Addr: addrs[random.IntN(len(addrs))]}
			if random.IntN(4) > 0 {
				r.Name = Name{names[random.IntN(len(names))]}
			}
			want, pinned, ech, budgets := Allow, true, true, Budgets{}
			if layers[0].Layer == Project {
				want = Deny
			}
			for _, l := range alone {
				d := l.Decide(r)
				if d.Verdict != Allow {
					want = Deny
				}
				pinned, ech = pinned && len(d.Addresses) > 0, ech && d.ECH
				budgets[l.layer] = d.Budgets[l.layer]
			}
			got := p.Decide(r)
			if got.Verdict != want || got.Reason == "" {
				t.Fatalf("%s\n%+v is decided %+v, want %s", p, r, got, want)
			}
			count[want]++
			if want != Allow {
				continue
			}
			if got.Pinned != pinned || got.ECH != ech {
				t.Fatalf("%s\n%+v is decided %+v, want pinned %v and ECH %v", p, r, got, pinned, ech)
			}
			for layer, budget := range budgets {
				if (budget == nil) != (got.Budgets[layer] == nil) || budget != nil && p.Budgets()[got.Budgets[layer].Key] != got.Budgets[layer] {
					t.Fatalf("%s\n%+v is charged to %v, want %v", p, r, got.Budgets, budgets)
				}
			}
		}
	}
	if count[Allow] < 1000 || count[Deny] < 1000 {
		t.Fatalf("decisions: %v", count)
	}
}

func TestLayersAllocateNothing(t *testing.T) {
	rules := func(text string) []byte { return []byte("version: 1\nnetwork: {rules: [" + text + "]}\n") }
	p, err := ParseLayers([]Source{
		{Admin, "admin", rules(`{allow: "*.a.test", budget: {up: 1GiB}}, {allow: b.test}`)},
		{User, "user", rules(`{allow: "*.a.test"}, {deny: x.a.test}, {allow: b.test}`)},
		{Project, "project", rules(`{allow: y.a.test, budget: {up: 1MiB}}, {allow: x.a.test}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		want Verdict
	}{{"y.a.test", Allow}, {"x.a.test", Deny}, {"b.test", Deny}, {"c.test", Deny}} {
		for _, protocol := range []Protocol{TLS, DNS, Unknown} {
			var d Decision
			if n := testing.AllocsPerRun(10, func() { d = p.Decide(Request{Protocol: protocol, Name: Name{test.name}, Port: 443}) }); n != 0 {
				t.Errorf("%s %s: %v allocations", protocol, test.name, n)
			}
			if protocol != Unknown && d.Verdict != test.want {
				t.Errorf("%s %s: %+v", protocol, test.name, d)
			}
		}
	}
}

// FuzzLayers: whatever a project says, it widens nothing.
func FuzzLayers(f *testing.F) {
	above := []Source{{User, "user", []byte(`version: 1
network: {rules: [{allow: a.test}, {allow: "*.a.test", budget: {up: 1MiB}}, {allow: b.test, protocol: tcp, ports: [5432], addresses: [10.0.0.1]}]}
workspace: {read_only: [.git], writable: [.vscode]}
files: [{path: /opt/a, access: read}]
limits: {memory: 1GiB}
`)}}
	alone, err := ParseLayers(above)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{
		"version: 1\n", "version: 1\nnetwork: {rules: [{allow: a.test}, {allow: \"*.a.test\"}, {allow: c.test}]}\n", "version: 1\nnetwork: {}\nfiles: []\nlimits: {memory: 2GiB, pids: 1}\n",
		"version: 1\nfiles: [{path: /opt/a/b, access: read}]\nworkspace: {hidden: [.env], writable: [x]}\n", "version: 1\nfiles: [{path: /opt, access: read}]\n",
		"version: 1\nnetwork: {rules: [{allow: b.test, protocol: tcp, ports: [5432], addresses: [10.0.0.2]}]}\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParseLayers(append(above, Source{Project, "project", data}))
		if err != nil {
			return
		}
		for _, name := range []Name{{}, {"a.test"}, {"x.a.test"}, {"b.test"}, {"c.test"}} {
			for _, protocol := range []Protocol{DNS, TLS, TCP} {
				for _, addr := range []netip.Addr{{}, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("93.184.216.34")} {
					for _, port := range []uint16{443, 5432} {
						r := Request{Protocol: protocol, Name: name, Port: port, Addr: addr}
						if got, most := p.Decide(r), alone.Decide(r); got.Verdict == Allow && (most.Verdict != Allow || got.Budgets[User] != nil && most.Budgets[User] == nil || got.Budgets[User] == nil && most.Budgets[User] != nil) {
							t.Fatalf("%+v is decided %+v below %+v", r, got, most)
						}
					}
				}
			}
		}
		for _, f := range p.Files() {
			if !alone.Files()[0].Holds(f.Path) {
				t.Fatalf("file %s", f.Path)
			}
		}
		if l := p.Limits(); l.MemoryBytes == 0 || l.MemoryBytes > 1<<30 {
			t.Fatalf("limits %s", l)
		}
		if w := p.Workspace(); w.ReadOnly[0] != ".git" || len(w.Writable) != 1 || w.Writable[0] != ".vscode" {
			t.Fatalf("workspace %+v", w)
		}
	})
}
