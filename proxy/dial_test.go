package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/record"
)

// TestRace: when each way starts, which one wins, and what becomes of the others.
func TestRace(t *testing.T) {
	const stagger = 250 * time.Millisecond
	type way struct {
		takes time.Duration // forever if zero
		fails string
	}
	for _, test := range []struct {
		name   string
		ways   []way
		limit  time.Duration // of the context
		starts []time.Duration
		want   int // the winner, or -1
		err    string
		after  time.Duration
	}{
		{"nothing to try", nil, 0, nil, -1, "no address", 0},
		{"the first is fast enough", []way{{takes: 200 * time.Millisecond}, {takes: 1}}, 0, []time.Duration{0}, 0, "", 200 * time.Millisecond},
		{"the second is started beside the first", []way{{takes: time.Second}, {takes: 100 * time.Millisecond}}, 0, []time.Duration{0, stagger}, 1, "", 350 * time.Millisecond},
		{"the first answers after all", []way{{takes: 300 * time.Millisecond}, {}, {}}, 0, []time.Duration{0, stagger}, 0, "", 300 * time.Millisecond},
		{
			"a failure starts the next one at once",
			[]way{{takes: 10 * time.Millisecond, fails: "a"}, {takes: 10 * time.Millisecond, fails: "b"}, {takes: 10 * time.Millisecond}},
			0,
			[]time.Duration{0, 10 * time.Millisecond, 20 * time.Millisecond},
			2, "", 30 * time.Millisecond,
		},
		{
			"the delay counts from the last start",
			[]way{{}, {takes: 50 * time.Millisecond, fails: "b"}, {}, {takes: 1}},
			0,
			[]time.Duration{0, stagger, stagger + 50*time.Millisecond, 2*stagger + 50*time.Millisecond},
			3, "", 2*stagger + 50*time.Millisecond + 1,
		},
		{"all fail", []way{{takes: 1, fails: "a"}, {takes: 1, fails: "b"}, {takes: 1, fails: "a"}}, 0, []time.Duration{0, 1, 2}, -1, "a; b", 3},
		{
			"none answers in time",
			[]way{{}, {}},
			time.Second,
			[]time.Duration{0, stagger},
			-1, "context deadline exceeded", time.Second,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if test.limit > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.limit)
					defer cancel()
				}
				began := time.Now()
				var mu sync.Mutex // guards starts
				var starts []time.Duration
				var discarded []int
				numbers := make([]int, len(test.ways))
				for i := range numbers {
					numbers[i] = i
				}
				got, err := race(ctx, stagger, numbers, func(ctx context.Context, i int) (int, error) {
					mu.Lock()
					starts = append(starts, time.Since(began))
					mu.Unlock()
					var done <-chan time.Time
					if w := test.ways[i]; w.takes > 0 {
						done = time.After(w.takes)
					}
					select {
					case <-done:
						if test.ways[i].fails != "" {
							return -1, errors.New(test.ways[i].fails)
						}
						return i, nil
					case <-ctx.Done():
						if test.ways[i].takes > 0 {
							return i, nil // reached it nevertheless
						}
						return -1, ctx.Err()
					}
				}, func(i int) { discarded = append(discarded, i) })
				if after := time.Since(began); after != test.after || !slices.Equal(starts, test.starts) {
					t.Errorf("it took %v with starts at %v, want %v and %v", after, starts, test.after, test.starts)
				}
				if test.want >= 0 && (got != test.want || err != nil) || test.want < 0 && fmt.Sprint(err) != test.err {
					t.Errorf("got %d, %v", got, err)
				}
				for i, w := range test.ways[:len(starts)] {
					if lost := i != test.want && w.takes > 0 && w.fails == ""; lost != slices.Contains(discarded, i) {
						t.Errorf("discarded %v", discarded)
					}
				}
			})
		})
	}
}

// mute returns an address that neither answers nor refuses: its listener's queue
// is full.
func mute(t *testing.T, ip [4]byte) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: ip}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4(ip), uint16(sa.(*unix.SockaddrInet4).Port))
	for range 8 {
		conn, err := net.DialTimeout("tcp4", at.String(), 50*time.Millisecond)
		if err != nil {
			return at
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatalf("%s answers on and on", at)
	return at
}

// listenAt accepts connections at an address of loopback and says hi.
func listenAt(t *testing.T, at netip.AddrPort) {
	t.Helper()
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "hi")
			conn.Close()
		}
	}()
}

// TestSeveralAddresses: of a name's addresses the one that answers is used, and
// the error names each that did not.
func TestSeveralAddresses(t *testing.T) {
	at := mute(t, [4]byte{127, 0, 0, 7})
	q := question{Request: policy.Request{Protocol: policy.TCP, Name: mustName(t, "raw.test"), Port: at.Port()}}
	l := newLab(t, fmt.Sprintf("version: 1\nnetwork:\n  rules:\n"+
		"    - {allow: raw.test, ports: [%d], protocol: tcp, addresses: [127.0.0.7, 127.0.0.8, 127.0.0.9]}\n", at.Port()))
	dial := func() (string, error) {
		d, targets, err := l.server.authorize(t.Context(), q)
		if d.Verdict != policy.Allow || len(targets) != 3 || err != nil {
			t.Fatalf("%v, %v, %v", d, targets, err)
		}
		conn, err := l.server.dial(t.Context(), q, targets)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		hi, _ := io.ReadAll(conn)
		return addrPortOf(conn.RemoteAddr()).Addr().String() + " " + string(hi), nil
	}
	l.server.timeouts.attempt = 50 * time.Millisecond
	port := fmt.Sprint(at.Port())
	want := strings.ReplaceAll("dial 127.0.0.8:PORT: connection refused; dial 127.0.0.9:PORT: connection refused; dial 127.0.0.7:PORT: i/o timeout", "PORT", port)
	for _, part := range strings.Split(want, "; ") {
		if _, err := dial(); err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
			t.Errorf("error is %v, want %s", err, part)
		}
	}
	l.server.timeouts.attempt = patience
	listenAt(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), at.Port()))
	if got, err := dial(); got != "127.0.0.9 hi" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestDeniedAtConnect: each socket is decided about, and what is denied there is
// a refusal, not a failure.
func TestDeniedAtConnect(t *testing.T) {
	l := newLab(t, tlsPolicy)
	l.upstream(func(*net.TCPConn) { t.Error("the upstream was reached") })
	q := question{Request: policy.Request{Protocol: policy.TLS, Name: mustName(t, "good.test"), Port: uint16(l.port)}}
	for _, target := range []string{"127.0.0.1", "::2", "127.0.0.5"} {
		to := []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(target), q.Port)}
		conn, err := l.server.dial(t.Context(), q, to)
		if _, ok := errors.AsType[*denied](err); !ok || conn != nil {
			t.Errorf("%s: %v, %v", target, conn, err)
		}
	}
	if conn, err := l.server.dial(t.Context(), q, nil); err == nil {
		t.Errorf("no target: %v", conn.RemoteAddr())
	}
}

// TestFailuresAreNoRefusals: the agent can tell an upstream that does not answer
// from a refusal, where its protocol has words for it.
func TestFailuresAreNoRefusals(t *testing.T) {
	t.Run("tls", func(t *testing.T) {
		l := newLab(t, tlsPolicy)
		_, err := l.askTLS(l.synthetic("good.test"), "good.test", nil)
		if err == nil || !strings.Contains(err.Error(), "internal error") {
			t.Errorf("upstream down: %v, want the alert internal_error", err)
		}
		if _, err = l.askTLS(literal, "evil.test", nil); err == nil || !strings.Contains(err.Error(), "access denied") {
			t.Errorf("refused: %v, want the alert access_denied", err)
		}
		l.stop()
		for _, r := range readRecords(t, l.log) {
			if r.Kind == record.Close && r.Reason != fmt.Sprintf("dial [::1]:%d: connection refused", l.port) {
				t.Errorf("the record says %q", r.Reason)
			}
		}
	})
	t.Run("http", func(t *testing.T) {
		l := newLab(t, httpPolicy)
		for host, want := range map[string]string{"good.test": "HTTP/1.1 502 Bad Gateway", "evil.test": "HTTP/1.1 403 Forbidden"} {
			conn := l.dial(literal)
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
			got, _ := io.ReadAll(conn)
			if !strings.HasPrefix(string(got), want) || strings.Contains(string(got), "upstream unreachable") != (host == "good.test") {
				t.Errorf("%s: got %q", host, got)
			}
		}
	})
	t.Run("names that do not resolve", func(t *testing.T) {
		sink := newAuthority(t, func(string) []netip.Addr { return nil })
		l := newLab(t, "version: 1\nnetwork: {rules: [{allow: good.test, ports: [PORT]}]}\n", withResolver(sink))
		if _, err := l.askTLS(literal, "good.test", nil); err == nil || !strings.Contains(err.Error(), "internal error") {
			t.Errorf("got %v, want the alert internal_error", err)
		}
	})
}
