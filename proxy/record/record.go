// Package record is the log of what a sandbox's proxy decided: one JSON object
// per line, appended by the proxy, read by people and programs outside.
//
// Every decision about a connection leaves one record of kind "decision"; a
// connection that was allowed anything also leaves exactly one of kind "close"
// with the same conn, when it ends, however it does. If an allowed one turns out
// to be denied at the last moment, a denial of the same conn follows its close. A connection that carries HTTP leaves one decision per host that its
// requests name, and one for the denial that ends it. Names are recorded once
// per process when they are looked up, not once per query. Of a flood of denials
// the first ones have a record each, and one record counts the further ones that
// differ in nothing but the connection; what is allowed is never counted
// together. Packets that no proxy sees, since the kernel refuses them, are
// counted by whoever keeps the log: one denial for many, without a seq. Kind "proxy" is about the process itself, and its "started" begins
// a new count of seq and conn.
//
// The agent chooses many of the strings, so none is trusted: they are bounded
// when written, JSON keeps them inside one line, and [Record.String] neutralises
// what could steer a terminal.
package record

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The kinds of records.
const (
	Decision = "decision"
	Close    = "close"
	Proxy    = "proxy"
	// Workspace is about files: one that was made executable (by name), or how many were changed and removed so far.
	Workspace = "workspace"
)

// File is the protocol of decisions about protected places of a workspace, whose name is the path.
const File = "file"

// Record is one line of the log. The zero values of optional fields are left
// out.
type Record struct {
	Time    time.Time `json:"time"`    // RFC 3339 with nanoseconds, UTC
	Sandbox string    `json:"sandbox"` // ID
	Seq     uint64    `json:"seq"`     // from 1 per proxy process; a gap is a record that the log could not take; 0 if it is not the proxy's
	Kind    string    `json:"kind"`

	Verdict  string `json:"verdict,omitempty"`  // "allow" or "deny"; of kind decision
	Protocol string `json:"protocol,omitempty"` // dns, tls, http, ssh, tcp or unknown; udp, icmp, ip or ipv6 of packets that the kernel refused
	Name     string `json:"name,omitempty"`
	Address  string `json:"address,omitempty"`  // original destination, as the agent dialled or asked for it
	Port     uint16 `json:"port,omitempty"`     // the same
	Via      string `json:"via,omitempty"`      // connect, absolute or socks5, if the agent asked for it by a proxy protocol
	Upstream string `json:"upstream,omitempty"` // address and port that the proxy dials
	Through  string `json:"through,omitempty"`  // address and port of the site's HTTP proxy, which was told the name; of kind close
	Rule     string `json:"rule,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Policy   string `json:"policy,omitempty"`
	Count    int64  `json:"count,omitempty"` // denials that the record stands for, if it is not one; they have no conn

	Conn       uint64 `json:"conn,omitempty"`        // joins decision and close, per process
	BytesUp    int64  `json:"bytes_up,omitempty"`    // from the agent to the upstream
	BytesDown  int64  `json:"bytes_down,omitempty"`  // from the upstream to the agent
	DurationMS int64  `json:"duration_ms,omitempty"` // from accept to close

	Changed int64 `json:"changed,omitempty"` // paths; of kind workspace
	Removed int64 `json:"removed,omitempty"` // likewise
}

// maxText bounds each string of a record in bytes. A host name has at most 253.
const maxText = 300

// bounded returns r with every string cut to maxText.
func (r Record) bounded() Record {
	for _, s := range []*string{
		&r.Sandbox, &r.Kind, &r.Verdict, &r.Protocol, &r.Name, &r.Address,
		&r.Upstream, &r.Through, &r.Rule, &r.Reason, &r.Policy,
	} {
		if len(*s) > maxText {
			*s = strings.ToValidUTF8((*s)[:maxText], "") + "..."
		}
	}
	return r
}

// String is the record for people, in one line and local time:
//
//	15:04:05 deny  tls  evil.test:443  no rule allows it
//
// Whatever the record holds, the text has no control characters and nothing
// that changes the direction of writing.
func (r Record) String() string {
	var b strings.Builder
	clock := r.Time.Local().Format("15:04:05")
	switch r.Kind {
	case Decision:
		fmt.Fprintf(&b, "%s %-5s %-4s ", clock, Plain(r.Verdict), Plain(r.Protocol))
		if to := r.Destination(); to != "" {
			b.WriteString(to + "  ")
		}
		b.WriteString(Plain(r.Reason))
		if r.Rule != "" {
			fmt.Fprintf(&b, ": %s", Plain(r.Rule))
		}
		if r.Count > 0 {
			fmt.Fprintf(&b, " (%d times)", r.Count)
		}
	case Close:
		fmt.Fprintf(&b, "%s close %-4s %s  %d bytes up, %d down, %s", clock, Plain(r.Protocol), r.Destination(),
			r.BytesUp, r.BytesDown, time.Duration(r.DurationMS)*time.Millisecond)
		if r.Reason != "" {
			fmt.Fprintf(&b, ": %s", Plain(r.Reason))
		}
	case Workspace:
		fmt.Fprintf(&b, "%s files ", clock)
		if r.Name != "" {
			fmt.Fprintf(&b, "%s  %s", Plain(r.Name), Plain(r.Reason))
		} else {
			fmt.Fprintf(&b, "%d changed, %d removed so far", r.Changed, r.Removed)
		}
	default:
		fmt.Fprintf(&b, "%s %s %s", clock, Plain(r.Kind), Plain(r.Reason))
	}
	return b.String()
}

// Destination is the name, or else the address, with the port.
func (r Record) Destination() string {
	host := r.Name
	if host == "" {
		host = r.Address
	}
	host = Plain(host)
	if r.Port == 0 {
		return host
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(r.Port))
}

// Plain makes a string safe to print: what is not a printable character becomes
// an escape, and so do the characters of the bidirectional algorithm, which
// reorder what a person reads.
func Plain(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		c, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case c == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case !unicode.IsPrint(c), unicode.Is(unicode.Bidi_Control, c), unicode.Is(unicode.Variation_Selector, c):
			quoted := strconv.QuoteRuneToASCII(c)
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteRune(c)
		}
		i += size
	}
	return b.String()
}
