package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/record"
)

const sshPolicy = `version: 1
network:
  rules:
    - {allow: git.test, ports: [PORT], protocol: ssh, addresses: ["::1"]}
`

// sayBytes writes one segment per byte.
func sayBytes(conn net.Conn, text string) {
	for i := range len(text) {
		if _, err := conn.Write([]byte{text[i]}); err != nil {
			return
		}
	}
}

// TestSSH: an ssh rule carries SSH, whoever begins and however it is cut up.
func TestSSH(t *testing.T) {
	const agentLine, serverLine = "SSH-2.0-agent comment\r\n", "SSH-2.0-server\r\n"
	say := func(c net.Conn, text string) { io.WriteString(c, text) }
	for _, test := range []struct {
		name   string
		server string // up to the end of its identification
		waits  string // "agent" or "server": which of them begins only after the other; empty for none
		say    func(net.Conn, string)
	}{
		{"both at once", serverLine, "", say},
		{"both at once, byte by byte", serverLine, "", sayBytes},
		{"the server first", serverLine, "agent", say},
		{"the server first, byte by byte", serverLine, "agent", sayBytes},
		{"the agent first", serverLine, "server", say},
		{"the agent first, byte by byte", serverLine, "server", sayBytes},
		{"lines before", "Welcome\r\nto this server\r\n\r\n" + serverLine, "agent", say},
		{"lines before, byte by byte", "Welcome\r\n" + serverLine, "", sayBytes},
		{"a server that knows version 1", "SSH-1.99-server\r\n", "", sayBytes},
		{"LF alone", "SSH-2.0-server\n", "", say},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, sshPolicy)
			const agentSays, serverSays = agentLine + "\x00kex of the agent", "\x00kex of the server"
			atServer := make(chan string, 1)
			l.upstream(func(c *net.TCPConn) {
				in := bufio.NewReader(c)
				line := ""
				if test.waits == "server" {
					line, _ = in.ReadString('\n')
				}
				test.say(c, test.server+serverSays)
				c.CloseWrite()
				rest, _ := io.ReadAll(in)
				atServer <- line + string(rest)
			})
			conn := l.dial(l.synthetic("git.test"))
			in := bufio.NewReader(conn)
			got := ""
			if test.waits == "agent" {
				for !strings.HasPrefix(got[strings.LastIndex(strings.TrimSuffix(got, "\n"), "\n")+1:], "SSH-") {
					line, err := in.ReadString('\n')
					if got += line; err != nil {
						t.Fatalf("got %q, %v", got, err)
					}
				}
			}
			test.say(conn, agentSays)
			conn.CloseWrite()
			rest, err := io.ReadAll(in)
			if got += string(rest); got != test.server+serverSays {
				t.Errorf("the agent got %q, %v", got, err)
			}
			if got := <-atServer; got != agentSays {
				t.Errorf("the server got %q", got)
			}
			checkRecords(t, l.records(), []string{
				"decision allow dns git.test: a rule allows it",
				"decision allow ssh git.test: a rule allows it",
				fmt.Sprintf("close ssh git.test: up %d down %d", len(agentSays), len(test.server+serverSays)),
			})
		})
	}
}

// TestNotSSH: nothing of an agent that does not speak SSH leaves, and no more than
// its first line goes to a server that does not.
func TestNotSSH(t *testing.T) {
	const server, agent = "SSH-2.0-server\r\n", "SSH-2.0-agent\r\n"
	for _, test := range []struct {
		name, agent, server string
		ends                bool   // the agent's half, after what it says
		leaves              string // to the server
		reason              string // of the closing record
		denied              bool   // by a decision of its own
	}{
		{"HTTP", "GET / HTTP/1.1\r\n\r\n", server, false, "", "the agent does not speak SSH: no line of SSH-2.0", true},
		{"TLS", "\x16\x03\x01\x00\x05", server, false, "", "the agent does not speak SSH: no line of SSH-2.0", true},
		{"version 1", "SSH-1.5-agent\r\n", server, false, "", "the agent does not speak SSH: no line of SSH-2.0", true},
		{"version 1.99 of a client", "SSH-1.99-agent\r\n", server, false, "", "the agent does not speak SSH: no line of SSH-2.0", true},
		{"a line before", "hello\r\n" + agent, server, false, "", "the agent does not speak SSH: no line of SSH-2.0", true},
		{"no software", "SSH-2.0-\r\n", server, false, "", "the agent does not speak SSH: no software version", true},
		{"control characters", "SSH-2.0-a\x00b\r\n", server, false, "", "the agent does not speak SSH: other than printable characters", true},
		{"CR inside", "SSH-2.0-a\rb\r\n", server, false, "", "the agent does not speak SSH: other than printable characters", true},
		{"a long line", "SSH-2.0-" + strings.Repeat("a", 246) + "\r\n", server, false, "", "the agent does not speak SSH: longer than 255 bytes", true},
		{"half a line", "SSH-2.0-agent", server, true, "", "the agent does not speak SSH: incomplete", true},
		{"nothing", "", server, true, "", "the agent does not speak SSH: incomplete", true},
		{"half a line and silence", "SSH-2.0-agent", server, false, "", "the agent does not speak SSH: incomplete when the time was up", true},
		{"a web server", agent + "secret", "HTTP/1.1 400 Bad Request\r\n\r\n", false, agent, "the server does not speak SSH: it ended before its identification", false},
		{"a server of version 1", agent + "secret", "SSH-1.5-server\r\n", false, agent, "the server does not speak SSH: no line of SSH-2.0", false},
		{"a server that says much", agent + "secret", strings.Repeat("x\n", 9000), false, agent, "the server does not speak SSH: no identification in the first 16384 bytes", false},
		{"a server that says much in one line", agent + "secret", strings.Repeat("x", 17000), false, agent, "the server does not speak SSH: no identification in the first 16384 bytes", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, sshPolicy, func(_ *Config, l *lab) {
				if strings.HasSuffix(test.reason, "time was up") {
					l.identify = 100 * time.Millisecond
				}
			})
			atServer := make(chan string, 1)
			l.upstream(func(c *net.TCPConn) {
				in := bufio.NewReader(c)
				line := ""
				if test.leaves != "" {
					line, _ = in.ReadString('\n') // so that it has left before the server is found out
				}
				io.WriteString(c, test.server)
				c.CloseWrite()
				rest, _ := io.ReadAll(in)
				atServer <- line + string(rest)
			})
			conn := l.dial(l.synthetic("git.test"))
			io.WriteString(conn, test.agent)
			if test.ends {
				conn.CloseWrite()
			}
			io.Copy(io.Discard, conn)
			if got := <-atServer; got != test.leaves {
				t.Errorf("the server got %q", got)
			}
			l.stop()
			denied, reason := false, ""
			for _, r := range readRecords(t, l.log) {
				switch {
				case r.Kind == record.Decision && r.Protocol == "ssh" && r.Verdict == "deny":
					denied = true
				case r.Kind == record.Close:
					reason = r.Reason
				}
			}
			if reason != test.reason || denied != test.denied {
				t.Errorf("closed with %q, denied %v", reason, denied)
			}
		})
	}
}

// FuzzSSH: a line is found wherever it is cut, and is the beginning of what was
// read.
func FuzzSSH(f *testing.F) {
	for _, s := range []string{"SSH-2.0-x\r\n", "SSH-2.0-x y\nrest", "a\nSSH-1.99-x\r\n", "SSH-1.5-x\n", "\n\n", "SSH", strings.Repeat("a", 300)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, parse := range []func([]byte) (int, error){
			sshGreeting,
			func(b []byte) (int, error) { return sshIdentity(b, "SSH-2.0-") },
		} {
			n, err := parse(data)
			switch {
			case n > len(data) || n > 0 && (err != nil || data[n-1] != '\n'):
				t.Fatalf("%d of %d bytes, %v", n, len(data), err)
			case n > 0 && !bytes.Contains(data[:n], []byte("SSH-")):
				t.Fatalf("%q is no identification", data[:n])
			}
			for cut := range min(n, 600) {
				if early, err := parse(data[:cut]); early != 0 || err != nil {
					t.Fatalf("%q gives %d, %v", data[:cut], early, err)
				}
			}
		}
	})
}

// BenchmarkSSHIdentity is what an ssh connection costs more than a tcp one.
func BenchmarkSSHIdentity(b *testing.B) {
	line := []byte("SSH-2.0-OpenSSH_9.6p1 Debian-1\r\n")
	b.ReportAllocs()
	for b.Loop() {
		if n, err := sshIdentity(line, "SSH-2.0-"); n != len(line) || err != nil {
			b.Fatal(policy.SSH, n, err)
		}
	}
}
