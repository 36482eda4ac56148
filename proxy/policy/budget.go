package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Budget bounds what one allow rule lets through, over all names and ports that
// the rule covers. A nil Quota bounds nothing.
type Budget struct {
	// Key names the rule in its own terms, without its line, and no other rule
	// of the policy, with the layer if that is not the user's: what is counted under it still holds if the file changes
	// elsewhere.
	Key string

	Up, Down    *Quota // bytes from and to the agent
	Connections *Quota // made to a server; of http, for each host on a connection
	Requests    *Quota // of http
}

// Budgets are those of the rules that allow one thing, by layer; nil bounds
// nothing.
type Budgets [allLayers]*Budget

// Quota is an amount, and the time in which no more than that is let through.
// The zero Quota lets nothing through (I6).
type Quota struct {
	Most int64         // bytes, connections or requests
	Per  time.Duration // in any period of this length; zero is as long as the proxy runs
}

// Bounds of a quota.
const (
	maxBytes  = 1 << 50
	maxCount  = 1_000_000_000
	maxWindow = 366 * 24 * time.Hour
)

type unit struct {
	name string
	size int64
}

// The units, the largest first. There are no decimal sizes: MB means one thing
// to some programs and another to the rest.
var (
	sizeUnits   = []unit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}
	windowUnits = []unit{{"d", int64(24 * time.Hour)}, {"h", int64(time.Hour)}, {"m", int64(time.Minute)}, {"s", int64(time.Second)}}
)

// String is the budget in the policy's own syntax.
func (b *Budget) String() string {
	var parts []string
	for _, part := range []struct {
		key   string
		quota *Quota
		text  func(Quota) string
	}{
		{"up", b.Up, Quota.Bytes},
		{"down", b.Down, Quota.Bytes},
		{"connections", b.Connections, Quota.Count},
		{"requests", b.Requests, Quota.Count},
	} {
		if part.quota != nil {
			parts = append(parts, part.key+": "+part.text(*part.quota))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// Bytes is a quota of bytes in the policy's own syntax.
func (q Quota) Bytes() string { return inUnits(q.Most, sizeUnits) + q.window() }

// Count is a quota of connections or requests in the policy's own syntax.
func (q Quota) Count() string { return strconv.FormatInt(q.Most, 10) + q.window() }

func (q Quota) window() string {
	if q.Per == 0 {
		return ""
	}
	return "/" + inUnits(int64(q.Per), windowUnits)
}

// inUnits writes a multiple of the smallest unit in the largest that divides it.
func inUnits(n int64, units []unit) string {
	for _, u := range units {
		if n%u.size == 0 && n >= u.size {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// budget reads the budget of a rule.
func (p *parser) budget(path string, n *yaml.Node) *Budget {
	b := &Budget{}
	quota := func(into **Quota, amount func(string) (int64, error)) func(string, *yaml.Node) {
		return func(key string, v *yaml.Node) {
			if v.Kind != yaml.ScalarNode || v.ShortTag() != "!!str" && v.ShortTag() != "!!int" {
				p.fail(at(v), key, "must be an amount, not %s", kind(v))
				return
			}
			p.plain(v, key)
			q, err := parseQuota(v.Value, amount)
			if err != nil {
				p.fail(at(v), key, "%q %v", v.Value, err)
				return
			}
			*into = &q
		}
	}
	mistakes := len(p.problems)
	p.mapping(n, path, map[string]func(string, *yaml.Node){
		"up":          quota(&b.Up, parseSize),
		"down":        quota(&b.Down, parseSize),
		"connections": quota(&b.Connections, parseCount),
		"requests":    quota(&b.Requests, parseCount),
	})
	if *b == (Budget{}) && len(p.problems) == mistakes {
		p.fail(at(n), path, "is empty")
	}
	return b
}

// parseQuota reads an amount, or an amount, a slash and a window.
func parseQuota(s string, amount func(string) (int64, error)) (q Quota, err error) {
	most, window, windowed := strings.Cut(s, "/")
	if q.Most, err = amount(most); err != nil || !windowed {
		return q, err
	}
	n, ok := units(window, windowUnits, int64(maxWindow))
	if !ok {
		return q, errors.New("has no window of time after the slash, such as 30s, 1m, 12h or 7d")
	}
	q.Per = time.Duration(n)
	return q, nil
}

func parseSize(s string) (int64, error) {
	n, ok := units(s, sizeUnits, maxBytes)
	if !ok {
		return 0, errors.New("is not a size, such as 512KiB, 10MiB or 2GiB")
	}
	return n, nil
}

func parseCount(s string) (int64, error) {
	n, ok := units(s, []unit{{"", 1}}, maxCount)
	if !ok {
		return 0, fmt.Errorf("is not a whole number from 1 to %d", int64(maxCount))
	}
	return n, nil
}

// units reads a whole number above zero, written in digits without a leading
// zero, with one of the units directly behind it.
func units(s string, known []unit, most int64) (int64, bool) {
	digits := s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || digits[0] == '0' {
		return 0, false
	}
	for _, u := range known {
		if s[len(digits):] == u.name {
			return n * u.size, n <= most/u.size
		}
	}
	return 0, false
}
