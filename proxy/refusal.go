package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// refusal answers an HTTP request that is not passed on. It comes as text for
// people or as JSON for programs; the names and meanings of the JSON fields do
// not change.
type refusal struct {
	Error  refusalKind `json:"error"`
	Host   string      `json:"host"`           // and port, as understood; quoted as sent if not understood
	Reason string      `json:"reason"`         // why, as in the record
	Rule   string      `json:"rule,omitempty"` // that decided, with its line
	Remedy string      `json:"remedy"`         // what a person can do
	Add    string      `json:"add,omitempty"`  // the line of a policy that would allow it

	wait time.Duration // until it may be asked again; zero if that does not help
}

// refusalKind is the word that tells refusals apart.
type refusalKind string

const (
	isDenied      refusalKind = "denied"      // 403: by policy
	isMalformed   refusalKind = "malformed"   // 400: nobody could decide about it
	isUnreachable refusalKind = "unreachable" // 502: allowed, but there is no upstream
)

// status is 429 for a budget that comes back, which clients know to wait for.
func (r refusal) status() int {
	switch {
	case r.Error == isMalformed:
		return http.StatusBadRequest
	case r.Error == isUnreachable:
		return http.StatusBadGateway
	case r.wait > 0:
		return http.StatusTooManyRequests
	default:
		return http.StatusForbidden
	}
}

func (k refusalKind) title() string {
	switch k {
	case isMalformed:
		return "malformed request"
	case isUnreachable:
		return "upstream unreachable"
	default:
		return "access denied"
	}
}

// deniedBy is the refusal of a question. host is what the agent asked for.
func deniedBy(q question, host string, d policy.Decision) refusal {
	r := refusal{Error: isDenied, Host: host, Reason: d.Reason, Rule: d.Rule, Remedy: "A person can change the sandbox's policy"}
	if !q.Name.IsZero() && (q.looked.IsZero() || q.looked == q.Name) && d.Rule == "" && q.problem == "" && !q.orphan {
		r.Remedy, r.Add = "A person can add a rule to the sandbox's policy", ruleFor(q)
	}
	return r
}

// unreachable is the refusal of what was allowed, and failed.
func unreachable(host string, err error) refusal {
	return refusal{
		Error: isUnreachable, Host: host, Reason: strconv.QuoteToASCII(err.Error()),
		Remedy: "The policy allows this, but its server did not answer. Try again later",
	}
}

// ruleFor is the line of a policy that allows a question. If nothing was said in
// any protocol yet, the port has to tell it.
func ruleFor(q question) string {
	usual := map[uint16]policy.Protocol{80: policy.HTTP, 22: policy.SSH}
	protocol := q.Protocol
	if protocol == policy.Unknown {
		if protocol = usual[q.Port]; protocol == policy.Unknown {
			protocol = policy.TLS
		}
	}
	rule := fmt.Sprintf("- {allow: %q", q.Name)
	if protocol != policy.TLS {
		rule += ", protocol: " + protocol.String()
	}
	if usual[q.Port] != protocol && (protocol != policy.TLS || q.Port != 443) {
		rule += fmt.Sprintf(", ports: [%d]", q.Port)
	}
	return rule + "}"
}

// body is the refusal in the form that the client prefers.
func (r refusal) body(accept string) (contentType string, body []byte) {
	if prefersJSON(accept) {
		body, _ = json.Marshal(r) // of strings only
		return "application/json", append(body, '\n')
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "cofferdam: %s\n\nhost:   %s\nreason: %s\n", r.Error.title(), r.Host, r.Reason)
	if r.Rule != "" {
		fmt.Fprintf(&b, "rule:   %s\n", r.Rule)
	}
	b.WriteByte('\n')
	if r.Error == isDenied {
		b.WriteString("This was decided outside the sandbox, and nothing inside can change it.\n")
	}
	if r.Add != "" {
		fmt.Fprintf(&b, "%s:\n\n  %s\n", r.Remedy, r.Add)
	} else {
		fmt.Fprintf(&b, "%s.\n", r.Remedy)
	}
	return "text/plain; charset=utf-8", b.Bytes()
}

// response is the answer as it goes over the wire.
func (r refusal) response(accept string) []byte { return r.wire(1, accept, true) }

// wire is the answer in HTTP/1 of a minor version; to a HEAD without its body. The
// connection ends with it.
func (r refusal) wire(minor byte, accept string, withBody bool) []byte {
	contentType, body := r.body(accept)
	status := r.status()
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.%d %d %s\r\n", minor, status, http.StatusText(status))
	if r.wait > 0 {
		fmt.Fprintf(&b, "Retry-After: %s\r\n", retryAfter(r.wait))
	}
	fmt.Fprintf(&b, "Content-Type: %s\r\nContent-Length: %d\r\n", contentType, len(body))
	b.WriteString("X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n")
	if withBody {
		b.Write(body)
	}
	return b.Bytes()
}

// prefersJSON reads an Accept field (RFC 9110, 12.5.1). A client gets JSON if it
// names application/json itself, not by a wildcard, and gives it no less quality
// than text/plain: programs say so, and those that say nothing are shown to
// people. What is malformed is as if it were not there.
func prefersJSON(accept string) bool {
	jsonQuality, textQuality, textPrecision := 0.0, 0.0, -1
	for item := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(item)
		if err != nil {
			continue
		}
		quality := 1.0
		if text, ok := params["q"]; ok {
			if quality, err = strconv.ParseFloat(text, 64); err != nil || !(quality >= 0 && quality <= 1) {
				continue
			}
		}
		precision := map[string]int{"*/*": 0, "text/*": 1, "text/plain": 2}
		if media == "application/json" {
			jsonQuality = max(jsonQuality, quality)
		} else if p, ok := precision[media]; ok && p >= textPrecision {
			// The most precise range counts, whatever the order.
			textQuality, textPrecision = quality, p
		}
	}
	return jsonQuality > 0 && jsonQuality >= textQuality
}
