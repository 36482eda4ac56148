package proxy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cofferdam.dev/cofferdam/proxy/policy"
)

func TestPrefersJSON(t *testing.T) {
	for accept, want := range map[string]bool{
		"":                                  false,
		"*/*":                               false,
		"text/plain":                        false,
		"application/*":                     false,
		"application/json":                  true,
		"Application/JSON; charset=utf-8":   true,
		"application/json, text/plain, */*": true, // what axios sends
		"application/json, */*;q=0.5":       true,
		"text/plain;q=0.5, application/json;q=0.4":      false,
		"text/plain;q=0.5, application/json;q=0.6":      true,
		"application/json;q=0.6, */*":                   false,
		"*/*, text/plain;q=0.1, application/json;q=0.2": true, // the precise range counts
		"text/plain;q=0.1, */*, application/json;q=0.2": true,
		"application/json;q=0":                          false,
		"application/json;q=0, */*":                     false,
		"application/json;q=NaN":                        false,
		"application/json;q=2":                          false,
		"application/json;q=":                           false,
		"application/jsonp, application/json-seq":       false,
		"text/html,application/xhtml+xml,*/*;q=0.8":     false,
		",,;q=1,application/json":                       true,
	} {
		if got := prefersJSON(accept); got != want {
			t.Errorf("prefersJSON(%q) = %v", accept, got)
		}
	}
}

func TestRuleFor(t *testing.T) {
	name, _ := policy.ParseName("a.test")
	for _, test := range []struct {
		protocol policy.Protocol
		port     uint16
		want     string
	}{
		{policy.HTTP, 80, `- {allow: "a.test", protocol: http}`},
		{policy.HTTP, 8080, `- {allow: "a.test", protocol: http, ports: [8080]}`},
		{policy.HTTP, 443, `- {allow: "a.test", protocol: http, ports: [443]}`},
		{policy.Unknown, 443, `- {allow: "a.test"}`},
		{policy.Unknown, 8443, `- {allow: "a.test", ports: [8443]}`},
		{policy.Unknown, 80, `- {allow: "a.test", protocol: http}`},
		{policy.Unknown, 22, `- {allow: "a.test", protocol: ssh}`},
		{policy.TLS, 22, `- {allow: "a.test", ports: [22]}`},
	} {
		got := ruleFor(question{Request: policy.Request{Protocol: test.protocol, Name: name, Port: test.port}})
		if got != test.want {
			t.Errorf("%s %d: %s, want %s", test.protocol, test.port, got, test.want)
		}
		text := "version: 1\nnetwork:\n  rules:\n    " + got + "\n"
		p, err := policy.Parse("suggested", []byte(text))
		if err != nil {
			t.Errorf("%s does not parse: %v", got, err)
			continue
		}
		if test.protocol != policy.Unknown && p.Decide(policy.Request{Protocol: test.protocol, Name: name, Port: test.port}).Verdict != policy.Allow {
			t.Errorf("%s does not allow what it is suggested for", got)
		}
	}
}

// TestRefusalForms: each refusal has a text and a JSON form with the same facts,
// and what an upstream that is down gives is not taken for a denial.
func TestRefusalForms(t *testing.T) {
	for _, test := range []struct {
		name, host, accept string
		status             int
		want               map[string]string // of the JSON
		text               string
	}{
		{
			name: "no rule", host: "evil.test", status: 403,
			want: map[string]string{
				"error": "denied", "host": "evil.test:PORT", "reason": "no rule allows it",
				"remedy": "A person can add a rule to the sandbox's policy", "add": `- {allow: "evil.test", protocol: http, ports: [PORT]}`,
			},
			text: "cofferdam: access denied\n\nhost:   evil.test:PORT\nreason: no rule allows it\n\n" +
				"This was decided outside the sandbox, and nothing inside can change it.\n" +
				"A person can add a rule to the sandbox's policy:\n\n  - {allow: \"evil.test\", protocol: http, ports: [PORT]}\n",
		},
		{
			name: "a rule", host: "tls.test", status: 403,
			want: map[string]string{
				"error": "denied", "host": "tls.test:PORT", "reason": "the rule allows tls only",
				"rule": "allow tls.test:PORT tls (line 6)", "remedy": "A person can change the sandbox's policy",
			},
			text: "cofferdam: access denied\n\nhost:   tls.test:PORT\nreason: the rule allows tls only\nrule:   allow tls.test:PORT tls (line 6)\n\n" +
				"This was decided outside the sandbox, and nothing inside can change it.\nA person can change the sandbox's policy.\n",
		},
		{
			name: "upstream down", host: "good.test", status: 502,
			want: map[string]string{
				"error": "unreachable", "host": "good.test:PORT", "reason": `"dial [::1]:PORT: connection refused"`,
				"remedy": "The policy allows this, but its server did not answer. Try again later",
			},
			text: "cofferdam: upstream unreachable\n\nhost:   good.test:PORT\nreason: \"dial [::1]:PORT: connection refused\"\n\n" +
				"The policy allows this, but its server did not answer. Try again later.\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, httpPolicy)
			for _, accept := range []string{"text/plain", "application/json"} {
				conn := l.dial(literal)
				fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\n\r\n", test.host, accept)
				r, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(r.Body)
				if r.StatusCode != test.status || !strings.HasPrefix(r.Header.Get("Content-Type"), accept) || r.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("got %d with %v", r.StatusCode, r.Header)
				}
				plain := strings.ReplaceAll(string(body), fmt.Sprint(l.port), "PORT")
				if accept == "text/plain" {
					if diff := cmp.Diff(test.text, plain); diff != "" {
						t.Errorf("text (-want +got):\n%s", diff)
					}
					continue
				}
				var got map[string]string
				if err := json.Unmarshal([]byte(plain), &got); err != nil {
					t.Fatalf("%s: %v", plain, err)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("JSON (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// TestRefusalResponse: written without net/http it is the same answer.
func TestRefusalResponse(t *testing.T) {
	wire := unreachable("a.test:1", errors.New("x\r\ny")).response("application/json")
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(wire)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var got refusal
	if err := json.NewDecoder(r.Body).Decode(&got); err != nil || got.Reason != `"x\r\ny"` || r.StatusCode != 502 || !r.Close {
		t.Errorf("got %d %+v, %v", r.StatusCode, got, err)
	}
}
