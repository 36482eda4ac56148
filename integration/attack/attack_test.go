package attack

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the attacks into SECURITY.md")

func TestEveryAttackSaysWhatItIs(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range All() {
		if err := a.check(); err != nil {
			t.Error(err)
		}
		if seen[a.ID] {
			t.Errorf("attack %s: there are two", a.ID)
		}
		seen[a.ID] = true
	}
}

func TestTheDocumentListsEveryAttack(t *testing.T) {
	const file = "../../SECURITY.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	doc := Document()
	heading, _, _ := strings.Cut(doc, "\n")
	before, section, found := bytes.Cut(text, []byte("\n"+heading+"\n"))
	if !found {
		t.Fatalf("%s has no section %q", file, heading)
	}
	after := []byte(nil)
	if end := bytes.Index(section, []byte("\n## ")); end >= 0 {
		after = section[end:]
	}
	want := append(append(append(before, '\n'), doc...), after...)
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(text, want) {
		t.Errorf("%s does not list the attacks as they are; run go test ./integration/attack -update", file)
	}
}

func TestATableCounts(t *testing.T) {
	var b bytes.Buffer
	err := Table(&b, []Result{
		{ID: "net.udp", Front: "b", Outcome: "refused", Control: "it reached the internet"},
		{ID: "net.ping", Front: "b", Outcome: "ESCAPED", Control: "it reached the internet", Failed: true},
		{ID: "net.udp", Front: "a", Outcome: "refused", Control: "it reached the internet"},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `ATTACK    FRONT  OUTCOME  CONTROL
net.ping  b      ESCAPED  it reached the internet
net.udp   a      refused  it reached the internet
net.udp   b      refused  it reached the internet
2 attacks on 2 fronts, 3 results, 1 failed
`
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
}
