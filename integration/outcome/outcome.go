// Package outcome is what the probe prints and the tests read.
package outcome

import (
	"encoding/json"
	"fmt"
	"time"
)

// Marker is in every reply of every sink of the lab, and in nothing that a proxy would say on its own.
const Marker = "cofferdam-lab"

// An Outcome tells how one attempt ended. For an attempt to talk to somebody, OK means that a reply of the lab came back: a connection
// alone proves nothing when a proxy accepts for every address.
type Outcome struct {
	Attempt   []string      `json:"attempt"`
	OK        bool          `json:"ok"`
	Connected bool          `json:"connected,omitempty"` // a TCP handshake or a connect(2) succeeded
	Errno     string        `json:"errno,omitempty"`     // e.g. ECONNREFUSED
	Unknown   bool          `json:"unknown,omitempty"`   // the probe knows no such attempt: nothing was made
	Detail    string        `json:"detail,omitempty"`    // the error, or what was found
	Reply     string        `json:"reply,omitempty"`     // what the other side said, at most 64 KiB
	Elapsed   time.Duration `json:"elapsed"`             // nanoseconds
}

func (o Outcome) String() string {
	b, err := json.Marshal(o)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Parse reads the last line of out, which is what the probe printed there.
func Parse(out []byte) (Outcome, error) {
	var o Outcome
	end := len(out)
	for end > 0 && out[end-1] == '\n' {
		end--
	}
	start := end
	for start > 0 && out[start-1] != '\n' {
		start--
	}
	if err := json.Unmarshal(out[start:end], &o); err != nil {
		return o, fmt.Errorf("the probe printed %q: %w", out, err)
	}
	return o, nil
}
