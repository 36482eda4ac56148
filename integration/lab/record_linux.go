package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An Event is one thing that the lab saw.
type Event struct {
	// Kind is frame, dns, http, tls, ssh, tcp, udp or wire. A frame is recorded for every packet that left UPLINK, the others by the sink that
	// understood it; tls is a handshake, whose Detail is the server name; wire is what a careless server would understand on a web sink's port.
	Kind   string
	Src    netip.AddrPort // port 0 where the protocol has none
	Dst    netip.AddrPort
	Proto  string // of a frame: tcp, udp, icmp, icmp6, arp, ip/N, ether/N
	Detail string // the name asked for, method and URL, the first bytes
	Bytes  int64  // of the payload
}

func (e Event) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s -> %s %s", e.Kind, e.Proto, e.Src, e.Dst, e.Detail))
}

// housekeeping reports what a kernel says on any link without being asked: address resolution and multicast membership.
func (e Event) housekeeping() bool {
	if e.Kind != "frame" {
		return false
	}
	switch e.Proto {
	case "arp":
		return true
	case "icmp6":
		return slices.Contains([]string{"130", "131", "132", "133", "134", "135", "136", "143"}, e.Detail)
	}
	return e.Dst.Addr().String() == fence
}

// recorder keeps events in the order in which they were seen.
type recorder struct {
	fd     *os.File // of the packet socket
	mu     sync.Mutex
	events []Event    // guarded by mu
	fences int        // frames to fence so far; guarded by mu
	more   *sync.Cond // on mu, signalled for each event
}

func (r *recorder) init() { r.more = sync.NewCond(&r.mu) }

func (r *recorder) add(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Kind == "frame" && e.Dst.Addr().String() == fence {
		r.fences++
	}
	if !e.housekeeping() {
		r.events = append(r.events, e)
	}
	r.more.Broadcast()
}

// A Mark is a moment in the record.
type Mark int

// Mark returns the present moment; what was sent before it has been recorded.
func (l *Lab) Mark(t testing.TB) Mark {
	t.Helper()
	l.fence(t)
	l.record.mu.Lock()
	defer l.record.mu.Unlock()
	return Mark(len(l.record.events))
}

// Since returns everything that was seen after m, in order, without address resolution. Everything that left UPLINK before the call is in
// it. (A sink's own event, which is made by a goroutine of this process, may follow its frames: use WaitFor for those.)
func (l *Lab) Since(t testing.TB, m Mark) []Event {
	t.Helper()
	l.fence(t)
	l.record.mu.Lock()
	defer l.record.mu.Unlock()
	return slices.Clone(l.record.events[m:])
}

// Silent fails the test if the lab saw anything after m.
func (l *Lab) Silent(t testing.TB, m Mark) {
	t.Helper()
	if events := l.Since(t, m); len(events) > 0 {
		t.Errorf("the internet saw %d events, want none:\n%s", len(events), Join(events))
	}
}

// WaitFor waits until an event after m satisfies want, and returns it. It fails the test after five seconds, with what was seen instead.
func (l *Lab) WaitFor(t testing.TB, m Mark, what string, want func(Event) bool) Event {
	t.Helper()
	r := &l.record
	deadline := time.Now().Add(5 * time.Second)
	wake := time.AfterFunc(time.Until(deadline), func() { r.mu.Lock(); r.more.Broadcast(); r.mu.Unlock() })
	defer wake.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if i := slices.IndexFunc(r.events[m:], want); i >= 0 {
			return r.events[int(m)+i]
		}
		if !time.Now().Before(deadline) {
			t.Fatalf("the internet never saw %s; it saw\n%s", what, Join(r.events[m:]))
		}
		r.more.Wait()
	}
}

// Join prints events, one a line, at most thirty.
func Join(events []Event) string {
	var b strings.Builder
	for i, e := range events {
		if i == 30 {
			fmt.Fprintf(&b, "\t… and %d more\n", len(events)-i)
			break
		}
		fmt.Fprintf(&b, "\t%s\n", e)
	}
	return b.String()
}

// fence sends one datagram from each processor, behind whatever waits in that processor's queue, and waits until all are recorded.
func (l *Lab) fence(t testing.TB) {
	t.Helper()
	r := &l.record
	r.mu.Lock()
	before := r.fences
	r.mu.Unlock()
	done := make(chan error)
	sent := 0
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, which is bound to one processor, ends
		done <- func() error {
			s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(s)
			var all, one unix.CPUSet
			if err := unix.SchedGetaffinity(0, &all); err != nil {
				return err
			}
			for cpu := range 1024 {
				if !all.IsSet(cpu) {
					continue
				}
				one.Zero()
				one.Set(cpu)
				if err := unix.SchedSetaffinity(0, &one); err != nil {
					return err
				}
				if err := unix.Sendto(s, []byte("fence"), 0, &unix.SockaddrInet4{Port: 9, Addr: netip.MustParseAddr(fence).As4()}); err != nil {
					return err
				}
				sent++
			}
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal("send a fence:", err)
	}
	deadline := time.Now().Add(5 * time.Second)
	wake := time.AfterFunc(time.Until(deadline), func() { r.mu.Lock(); r.more.Broadcast(); r.mu.Unlock() })
	defer wake.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.fences < before+sent {
		if !time.Now().Before(deadline) {
			t.Fatalf("the recorder has seen %d of %d fences: it is not to be trusted", r.fences-before, sent)
		}
		r.more.Wait()
	}
	if n := l.dropped(t); n > 0 {
		t.Fatalf("the recorder has lost %d frames: it is not to be trusted", n)
	}
}

// dropped returns the number of frames that the kernel could not hand over since the last call.
func (l *Lab) dropped(t testing.TB) uint32 {
	t.Helper()
	raw, err := l.record.fd.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var stats *unix.TpacketStats
	var serr error
	if err := raw.Control(func(fd uintptr) {
		stats, serr = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	}); err != nil {
		t.Fatal(err)
	}
	if serr != nil {
		t.Fatal("PACKET_STATISTICS:", serr)
	}
	return stats.Drops
}

// listenFrames opens the packet socket (packet(7)) on INTERNET's only link. Its reader ends when the lab is closed.
func (l *Lab) listenFrames() error {
	return l.Do(func() error {
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network order
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20); err != nil {
			return os.NewSyscallError("SO_RCVBUFFORCE", err)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return os.NewSyscallError("PACKET_IGNORE_OUTGOING", err)
		}
		link, err := net.InterfaceByName("inet")
		if err != nil {
			return err
		}
		// Bound, since what INTERNET says to itself is nobody's doing: an ICMP error about an answer to a forged address, three seconds late.
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}); err != nil {
			return os.NewSyscallError("bind", err)
		}
		l.record.fd = os.NewFile(uintptr(fd), "frames")
		l.closers = append(l.closers, l.record.fd.Close)
		go func() {
			buf := make([]byte, 64<<10)
			for {
				n, err := l.record.fd.Read(buf)
				if errors.Is(err, os.ErrClosed) {
					return
				}
				if err == nil && n >= 14 {
					l.record.add(parseFrame(buf[:n]))
				}
			}
		}()
		return nil
	})
}

// parseFrame names the ends of an Ethernet frame (RFC 894, 791, 8200). What it does not know it still records.
func parseFrame(b []byte) Event {
	e := Event{Kind: "frame"}
	typ, b := binary.BigEndian.Uint16(b[12:14]), b[14:]
	proto := -1
	switch {
	case typ == unix.ETH_P_ARP:
		e.Proto = "arp"
	case typ == unix.ETH_P_IP && len(b) >= 20:
		e.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), 0)
		e.Dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:20])), 0)
		proto = int(b[9])
		b = b[min(len(b), int(b[0]&15)*4):]
	case typ == unix.ETH_P_IPV6 && len(b) >= 40:
		e.Src = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), 0)
		e.Dst = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[24:40])), 0)
		proto = int(b[6])
		b = b[40:]
		if proto == 0 && len(b) >= 8 { // hop-by-hop options, which multicast membership reports carry
			proto = int(b[0])
			b = b[min(len(b), 8+int(b[1])*8):]
		}
	default:
		e.Proto = fmt.Sprintf("ether/%#04x", typ)
	}
	ports := func(name string, header int) {
		e.Proto = name
		if len(b) < 4 {
			return
		}
		e.Src = netip.AddrPortFrom(e.Src.Addr(), binary.BigEndian.Uint16(b))
		e.Dst = netip.AddrPortFrom(e.Dst.Addr(), binary.BigEndian.Uint16(b[2:]))
		e.Bytes = int64(max(0, len(b)-header))
	}
	switch proto {
	case -1:
	case unix.IPPROTO_TCP:
		header := 20
		if len(b) > 12 {
			header = int(b[12]>>4) * 4
		}
		ports("tcp", header)
	case unix.IPPROTO_UDP:
		ports("udp", 8)
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		e.Proto = "icmp"
		if proto == unix.IPPROTO_ICMPV6 {
			e.Proto = "icmp6"
		}
		if len(b) > 0 {
			e.Detail = fmt.Sprint(b[0])
		}
	default:
		e.Proto = fmt.Sprintf("ip/%d", proto)
	}
	return e
}
